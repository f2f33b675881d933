"""R-Drop and adversarial training: what they add, that they are exact and leave no trace, and when they are refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FAMILIES, make_pico, random_inputs, uneven_plan
from datasets import Dataset
from pydantic import ValidationError
from torch import Tensor
from transformers import BertTokenizerFast, PreTrainedModel, TrainingArguments

from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData
from hfcompress.errors import ModelError
from hfcompress.losses import listwise_kl, symmetric_kl
from hfcompress.models.surgery import apply_plan
from hfcompress.recipe import FeatureLoss, Optimization
from hfcompress.training.fit import fit, freeze, set_dropout
from hfcompress.training.regularization import adversarial_step
from hfcompress.training.trainer import RankingDistillationTrainer, RankingTrainer

EPSILON = 0.5


def student(dropout: float = 0.0, family: str = "bert", **changes: Any) -> PreTrainedModel:
    model = apply_plan(make_pico(family, **changes), uneven_plan())
    set_dropout(model, dropout)
    return model


def trainer(
    model: PreTrainedModel,
    lists: Dataset,
    tokenizer: BertTokenizerFast,
    folder: Path,
    options: dict[str, Any],
    trainer_class: type[RankingTrainer] = RankingDistillationTrainer,
    **settings: Any,
) -> RankingTrainer:
    fixed = {
        "per_device_train_batch_size": 4, "max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant", "save_strategy": "no",
    }  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(folder), remove_unused_columns=False, report_to=[], disable_tqdm=True, use_cpu=True,
        **{**fixed, **settings},
    )  # fmt: skip
    return trainer_class(
        model=model, args=arguments, train_dataset=lists, data_collator=RankingCollator(tokenizer, 32), **options
    )


def gradient(made: RankingTrainer) -> dict[str, Tensor]:
    """Of one optimizer step, by a step of plain descent at rate 1."""
    before = copy.deepcopy(made.model.state_dict())
    made.train()
    return {name: before[name] - tensor for name, tensor in made.model.state_dict().items()}


def differ(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return any((first[name] - second[name]).abs().gt(1e-4).any() for name in first)


# Adversarial training


@pytest.mark.parametrize("family", FAMILIES)
def test_the_second_pass_is_at_a_step_up_the_loss_of_each_pair(family: str) -> None:
    model, inputs, seen = student(family=family), random_inputs(3, 9), []
    before = copy.deepcopy(model.state_dict())
    embeddings = model.get_input_embeddings()

    def step() -> Tensor:
        hook = embeddings.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
        scores = model(**inputs).logits[:, 0]
        hook.remove()
        loss = scores.square().mean()
        loss.backward()
        gradients.append({name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None})
        losses.append(scores.detach().square())
        return loss.detach()

    gradients: list[dict[str, Tensor]] = []
    losses: list[Tensor] = []
    returned = adversarial_step(embeddings, EPSILON, step)
    clean, moved = seen
    plain = embeddings(inputs["input_ids"])
    torch.testing.assert_close(clean, plain)
    torch.testing.assert_close((moved - plain).flatten(1).norm(dim=1), torch.full((3,), EPSILON))
    assert ((moved - plain)[~inputs["attention_mask"].bool()].abs() < 1e-6).all()
    assert returned == losses[0].mean() and losses[1].mean() > losses[0].mean()
    # Weights are as they were, and no hook is left; the second gradient came on top of the first.
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not embeddings._forward_hooks
    assert differ(gradients[0], gradients[1])
    model.zero_grad()
    hook = embeddings.register_forward_hook(lambda _module, _inputs, output: output + (moved - plain).detach())
    model(**inputs).logits[:, 0].square().mean().backward()
    hook.remove()
    for name, part in model.named_parameters():
        if part.grad is not None:
            total = gradients[0][name] + part.grad
            torch.testing.assert_close(gradients[1][name], total, atol=1e-4, rtol=1e-3)


def test_no_hook_is_left_where_a_step_fails() -> None:
    model = make_pico()

    def step() -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adversarial_step(model.get_input_embeddings(), EPSILON, step)
    assert not model.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("trainer_class", [RankingTrainer, RankingDistillationTrainer])
def test_adversarial_training_changes_the_gradient_and_accumulates_exactly(
    trainer_class: type[RankingTrainer], lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    def of(batch: int, parts: int, epsilon: float) -> dict[str, Tensor]:
        made = trainer(
            student(), lists.select(range(4)), tokenizer, tmp_path, {"adversarial": epsilon}, trainer_class,
            per_device_train_batch_size=batch, gradient_accumulation_steps=parts,
        )  # fmt: skip
        return gradient(made)

    plain, whole, parts = of(4, 1, 0.0), of(4, 1, EPSILON), of(2, 2, EPSILON)
    assert differ(whole, {name: 2 * tensor for name, tensor in plain.items()})
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=2e-6, rtol=1e-4)


def test_adversarial_training_of_frozen_embeddings(
    lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model = student()
    freeze(model, 1)
    changes = gradient(trainer(model, lists, tokenizer, tmp_path, {"adversarial": EPSILON}))
    assert not any(tensor.any() for name, tensor in changes.items() if "embeddings" in name)
    assert changes["classifier.weight"].any()


# R-Drop


def test_symmetric_kl() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 3, 4, generator=generator).double()
    mask = torch.arange(4) < torch.tensor([4, 2, 1])[:, None]
    losses = symmetric_kl(first, second, mask)
    torch.testing.assert_close(losses, symmetric_kl(second, first, mask))
    torch.testing.assert_close(losses, (listwise_kl(first, second, mask) + listwise_kl(second, first, mask)) / 2)
    assert losses[0] > 0 and losses[2] == 0 and not symmetric_kl(first, first, mask).any()
    inputs = [scores.clone().requires_grad_() for scores in (first, second)]
    assert torch.autograd.gradcheck(lambda *scores: symmetric_kl(*scores, mask), inputs)


def test_r_drop_adds_nothing_where_both_passes_are_the_same(
    lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    batch = RankingCollator(tokenizer, 32)([lists[index] for index in range(3)])
    made = trainer(student(0.1), lists, tokenizer, tmp_path, {"r_drop": 5.0})
    plain = trainer(student(), lists, tokenizer, tmp_path, {})
    torch.testing.assert_close(
        made.compute_loss(made.model.eval(), dict(batch)), plain.compute_loss(plain.model.train(), dict(batch))
    )
    different = made.compute_loss(made.model.train(), dict(batch))
    assert abs(different - plain.compute_loss(plain.model, dict(batch))) > 1e-3
    set_dropout(made.model, 0.0)
    torch.testing.assert_close(
        made.compute_loss(made.model.train(), dict(batch)), plain.compute_loss(plain.model, dict(batch))
    )


def test_r_drop_is_the_mean_loss_and_the_weighted_divergence(
    lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    batch, scores = RankingCollator(tokenizer, 32)([lists[index] for index in range(3)]), []
    made = trainer(student(0.2), lists, tokenizer, tmp_path, {"r_drop": 2.0})
    inner = made.list_losses

    def spy(each: Tensor, targets: dict[str, Tensor]) -> Tensor:
        scores.append(each)
        return inner(each, targets)

    made.list_losses = spy  # type: ignore[method-assign]
    loss = made.compute_loss(made.model.train(), dict(batch))
    first, second = scores
    assert not torch.equal(first, second)
    losses = (inner(first, batch) + inner(second, batch)) / 2 + 2 * symmetric_kl(first, second, batch["list_mask"])
    torch.testing.assert_close(loss, losses.mean())


def test_all_at_once(word_data: RankingData, lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    options = Optimization(
        learning_rate=2e-3, queries_per_batch=8, accumulation=2, dropout=0.1, r_drop=1.0, adversarial=EPSILON,
        precision="bf16",
    )  # fmt: skip
    figures = fit(
        RankingDistillationTrainer, student(), tokenizer, lists=lists, data=word_data, settings=options,
        folder=tmp_path, seed=0, progress=False, feature_loss=FeatureLoss(hidden=1.0), teacher=make_pico(seed=3),
    )  # fmt: skip
    assert figures["steps"] == 5 and figures["best_dev_ndcg@10"] > 0


# Refusals


def test_r_drop_without_dropout(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"differ in dropout.*set_dropout"):
        trainer(student(), lists, tokenizer, tmp_path, {"r_drop": 1.0})
    with pytest.raises(ValidationError, match="set dropout above 0"):
        Optimization(r_drop=1.0)
    assert Optimization(r_drop=1.0, dropout=0.1).r_drop == 1


def test_adversarial_training_of_a_compiled_model(lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adversarial needs hooks.*torch_compile=True"):
        trainer(student(), lists, tokenizer, tmp_path, {"adversarial": 1.0}, torch_compile=True)
