"""Trainers: exact gradient accumulation, distillation that learns, resume, and what they refuse."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_pico, uneven_plan
from datasets import Dataset
from script_inputs import dev_quality
from transformers import BertTokenizerFast, PreTrainedModel, TrainingArguments

from hfcompress.data.lists import RankingCollator, training_lists, with_scores
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError, ModelError
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import DistillationLoss, Optimization
from hfcompress.training.fit import fit, freeze
from hfcompress.training.trainer import RankingDistillationTrainer, RankingTrainer


def trainer(
    model: PreTrainedModel, lists: Dataset, tokenizer: BertTokenizerFast, folder: Path, **settings: Any
) -> RankingDistillationTrainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **{"max_grad_norm": 0.0, "save_strategy": "no", **settings},
    )
    return RankingDistillationTrainer(
        model=model,
        args=arguments,
        train_dataset=lists,
        eval_dataset=lists.select(range(4)),
        data_collator=RankingCollator(tokenizer, 32),
    )


@pytest.mark.parametrize("queries", [12, 10])  # 10 in parts of 4: the last part is smaller
def test_accumulation_gives_the_gradient_of_one_large_batch(
    queries: int, lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    gradients = []
    for batch, parts in ((queries, 1), (4, 3)):
        made = trainer(
            make_pico(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
            lists.select(range(queries)),
            tokenizer,
            tmp_path,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=parts,
            max_steps=1,
            optim="sgd",
            learning_rate=1.0,
            lr_scheduler_type="constant",
        )
        before = copy.deepcopy(made.model.state_dict())
        made.train()
        gradients.append({name: before[name] - tensor for name, tensor in made.model.state_dict().items()})
    assert max(tensor.abs().max() for tensor in gradients[0].values()) > 1e-3
    for name, tensor in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], tensor, atol=1e-5, rtol=1e-4)


def test_reported_loss_is_the_mean_over_lists(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    made = trainer(make_pico(), lists, tokenizer, tmp_path)
    batch = RankingCollator(tokenizer, 32)([lists[index] for index in range(5)])
    made.model.eval()
    alone = made.compute_loss(made.model, dict(batch))
    share = made.compute_loss(made.model, dict(batch), num_items_in_batch=10)
    torch.testing.assert_close(share * 2, alone)


@pytest.mark.parametrize("name", sorted(DistillationLoss.model_fields.keys() - {"temperature"}))
def test_every_term_of_the_recipe_counts_by_its_weight(
    name: str, lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    none = dict.fromkeys(DistillationLoss.model_fields.keys() - {"temperature"}, 0.0)
    scores, mask = torch.tensor([[0.5, -1.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool)
    targets = {"labels": torch.tensor([[1.0, 0.0, 0.0]]), "teacher_scores": torch.tensor([[2.0, 1.0, 0.5]])}
    values = []
    for weight in (1.0, 3.0):
        made = RankingDistillationTrainer(
            make_pico(),
            TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True, remove_unused_columns=False),
            train_dataset=lists,
            data_collator=RankingCollator(tokenizer, 32),
            distillation_loss=DistillationLoss(**(none | {name: weight})),
        )
        values.append(made.list_losses(scores, {**targets, "list_mask": mask}).item())
    assert 0 < 3 * values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.parametrize("bf16", [True, False])
def test_bf16_on_the_cpu_trains_without_the_fused_attention(
    bf16: bool, lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model, seen = make_pico(), []
    assert model.config._attn_implementation == "sdpa"
    made = trainer(model, lists, tokenizer, tmp_path, bf16=bf16, max_steps=1)
    model.register_forward_pre_hook(lambda *_: seen.append(model.config._attn_implementation))
    made.train()
    assert set(seen) == {"eager" if bf16 else "sdpa"} and model.config._attn_implementation == "sdpa"
    model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.train()
    assert model.config._attn_implementation == "sdpa"


def test_lists_without_labels_do_for_the_terms_of_the_teacher(
    lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    unlabelled = lists.remove_columns("labels")
    made = trainer(make_pico(), unlabelled, tokenizer, tmp_path)
    made.distillation_loss = DistillationLoss(hard=0)
    batch = RankingCollator(tokenizer, 32)([unlabelled[index] for index in range(3)])
    assert "labels" not in batch and torch.isfinite(made.compute_loss(made.model, batch))


def test_distillation_brings_a_pruned_model_back(
    word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    teacher = make_pico()
    labels = training_lists(word_data, 4, 0, seed=0)
    options = Optimization(epochs=20, learning_rate=2e-3, queries_per_batch=8)
    common: dict[str, Any] = {"data": word_data, "settings": options, "seed": 0, "progress": False}
    fit(RankingTrainer, teacher, tokenizer, lists=labels, folder=tmp_path / "t", **common)
    before = dev_quality(teacher, tokenizer, word_data)["ndcg@10"]
    scored = with_scores(labels, TorchRanker(teacher, tokenizer), progress=False)
    student = apply_plan(copy.deepcopy(teacher), uneven_plan())
    cut = dev_quality(student, tokenizer, word_data)["ndcg@10"]
    figures = fit(
        RankingDistillationTrainer,
        student,
        tokenizer,
        lists=scored,
        folder=tmp_path / "s",
        distillation_loss=DistillationLoss(),
        **common,
    )
    after = dev_quality(student, tokenizer, word_data)["ndcg@10"]
    assert after == pytest.approx(figures["best_dev_ndcg@10"])  # the best checkpoint is what is left
    assert before > 0.75
    assert after > cut + 0.05
    assert current_plan(student) == uneven_plan()


def test_bf16_needs_no_gpu(word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    labels = training_lists(word_data, 4, 0, seed=0)
    options = Optimization(epochs=1, learning_rate=2e-3, queries_per_batch=8, precision="bf16")
    model = make_pico()
    figures = fit(
        RankingTrainer, model, tokenizer, lists=labels, data=word_data, settings=options, folder=tmp_path, seed=0,
        progress=False,
    )  # fmt: skip
    assert figures["steps"] > 0 and {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_training_resumes_bit_equal(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    settings = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 5}
    whole = trainer(apply_plan(make_pico(), uneven_plan()), lists, tokenizer, tmp_path / "whole", **settings)
    whole.train()
    again = trainer(apply_plan(make_pico(seed=9), uneven_plan()), lists, tokenizer, tmp_path / "again", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


def test_freezing(word_data: RankingData) -> None:
    model = make_pico()
    freeze(model, 2)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        name
        for name in model.state_dict()
        if name.startswith(("bert.embeddings", "bert.encoder.layer.0.", "bert.encoder.layer.1."))
    }
    with pytest.raises(ModelError, match="freeze_layers"):
        freeze(model, 4)


def test_distillation_without_scores_is_refused(
    word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="teacher scores"):
        trainer(make_pico(), training_lists(word_data, 4, 1, seed=0), tokenizer, tmp_path)


def test_evaluations_do_not_change_what_is_trained(
    lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    weights = []
    for strategy in ("no", "steps"):
        made = trainer(
            make_pico(),
            lists,
            tokenizer,
            tmp_path,
            max_steps=4,
            eval_strategy=strategy,
            eval_steps=1,
            learning_rate=1e-3,
        )
        made.train()
        weights.append(made.model.state_dict())
    assert all(torch.equal(weights[1][name], tensor) for name, tensor in weights[0].items())
