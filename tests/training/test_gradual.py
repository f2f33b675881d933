"""Gradual pruning: the schedule, gates that end as surgery begins, and an optimizer of live parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FAMILIES, FFN, HEADS, LAYERS, make_pico, random_inputs, stock_plan, uneven_plan
from datasets import Dataset
from script_inputs import labelled_pairs, pico_cross_encoder
from sentence_transformers import cross_encoder
from torch import Tensor
from transformers import BertTokenizerFast, PreTrainedModel, Trainer, TrainerControl, TrainerState, TrainingArguments

import hfcompress
from hfcompress import GradualPruningCallback
from hfcompress.data.lists import RankingCollator, training_lists, with_scores
from hfcompress.data.ranking import RankingData
from hfcompress.errors import PlanError
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.pruning.importance.scores import magnitude
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.training.callbacks import transformer_of
from hfcompress.training.trainer import RankingDistillationTrainer

PLANS = {"uneven": uneven_plan(), "stock": stock_plan()}


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    fixed = {"save_strategy": "no", "per_device_train_batch_size": 8, "learning_rate": 1e-3}
    return TrainingArguments(
        output_dir=str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **{**fixed, **settings}
    )


def plain_trainer(
    model: PreTrainedModel, pairs: Dataset, folder: Path, callback: GradualPruningCallback, **settings: Any
) -> Trainer:
    return Trainer(model=model, args=arguments(folder, **settings), train_dataset=pairs, callbacks=[callback])


def begun(model: PreTrainedModel, plan: PruningPlan, folder: Path, **settings: Any) -> GradualPruningCallback:
    callback = GradualPruningCallback(plan, **settings)
    callback.on_train_begin(arguments(folder), TrainerState(), TrainerControl(), model=model)
    return callback


def scores(model: PreTrainedModel) -> Tensor:
    with torch.inference_mode():
        return model.eval()(**random_inputs(4, 12)).logits


def test_the_schedule_is_cubic() -> None:
    callback = GradualPruningCallback(stock_plan(), begin=0.2, end=0.7)
    shares = [callback.share(step, 100) for step in range(101)]
    assert shares[:21] == [0.0] * 21 and shares[70:] == [1.0] * 31
    assert shares == sorted(shares)
    assert shares[45] == pytest.approx(1 - 0.5**3)
    assert shares[30] - shares[20] > shares[70] - shares[60]  # quick at first, slow at the end


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_end_of_the_schedule_gates_score_as_surgery_will(family: str, plan: PruningPlan, tmp_path: Path) -> None:
    model = make_pico(family)
    dense = scores(model)
    callback = begun(model, plan, tmp_path)
    callback.close(0.0)
    torch.testing.assert_close(scores(model), dense)
    callback.close(1.0)
    expected = scores(apply_plan(make_pico(family), plan))
    assert not torch.allclose(expected, dense, atol=1e-4)
    torch.testing.assert_close(scores(model), expected, rtol=1e-4, atol=1e-5)
    callback.close(0.3)
    assert not torch.allclose(scores(model), dense, atol=1e-6)
    assert not torch.allclose(scores(model), expected, atol=1e-6)
    callback.on_train_end(arguments(tmp_path), TrainerState(), TrainerControl(), model=model)
    assert current_plan(model) == plan
    torch.testing.assert_close(scores(model), expected, rtol=1e-4, atol=1e-5)


def test_the_least_important_is_closed_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, full = make_pico(), PruningPlan.full(LAYERS, HEADS, FFN)
    nothing = begun(model, full, tmp_path)
    nothing.close(1.0)
    assert nothing.remaining_plan(model) == nothing.alive(model) == full
    assert "use remaining_plan" in caplog.text
    nothing.on_train_end(arguments(tmp_path), TrainerState(), TrainerControl(), model=model)
    importance = magnitude(model)
    width = FFN // 2
    heads = tuple(range(HEADS))
    sizes = (width, FFN, FFN, width)
    layers = (LayerPlan(number, heads, tuple(range(size))) for number, size in enumerate(sizes))
    plan = PruningPlan(LAYERS, HEADS, FFN, tuple(layers))
    importance.ffn[0][width:] = torch.arange(width, 0, -1.0)  # of the first layer, the last neuron is the least
    importance.ffn[3][width:] = 100 + torch.arange(width)
    callback = begun(model, plan, tmp_path, importance=importance)
    for closed in range(2 * width + 1):
        callback.close(closed / (2 * width))
        remaining = callback.remaining_plan(model)
        assert all(layer.heads == heads for layer in remaining.layers)
        first, second, third, fourth = (layer.ffn for layer in remaining.layers)
        assert first == tuple(range(FFN - min(closed, width)))  # before any neuron of the last layer
        assert second == third == tuple(range(FFN)) and len(fourth) == FFN - max(closed - width, 0)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_in_a_plain_trainer(pairs: Dataset, plan: PruningPlan, tmp_path: Path) -> None:
    model = make_pico(problem_type="regression")
    trainer = plain_trainer(model, pairs, tmp_path, GradualPruningCallback(plan), num_train_epochs=1)
    trainer.train()
    assert current_plan(model) == plan
    alive = {id(parameter) for parameter in model.parameters()}
    held = [id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len(set(held)) and set(held) == alive
    first = {id(parameter) for parameter in trainer.optimizer.param_groups[0]["params"]}
    decayed = {name for name, parameter in model.named_parameters() if id(parameter) in first}
    assert decayed and all(name.endswith("weight") and "LayerNorm" not in name for name in decayed)
    trainer.save_model(str(tmp_path / "saved"))
    reloaded = hfcompress.load_model(str(tmp_path / "saved"))
    assert torch.equal(scores(reloaded), scores(model))


def test_with_distillation(word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    teacher = TorchRanker(make_pico(seed=3), tokenizer)
    lists = with_scores(training_lists(word_data, 4, 1, seed=0), teacher, progress=False)
    model = make_pico(seed=3)
    trainer = RankingDistillationTrainer(
        model=model,
        args=arguments(tmp_path, remove_unused_columns=False, num_train_epochs=4, logging_steps=1),
        train_dataset=lists,
        data_collator=RankingCollator(tokenizer, 32),
        callbacks=[GradualPruningCallback(uneven_plan())],
    )
    trainer.train()
    assert current_plan(model) == uneven_plan()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 20 and all(0 < loss < 1 for loss in losses)


def test_in_the_trainer_of_sentence_transformers(
    word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model = pico_cross_encoder(tmp_path / "model", tokenizer)
    settings = {"output_dir": str(tmp_path / "out"), "report_to": [], "use_cpu": True, "disable_tqdm": True}
    trainer = cross_encoder.CrossEncoderTrainer(
        model=model,
        args=cross_encoder.CrossEncoderTrainingArguments(save_strategy="no", num_train_epochs=1, **settings),
        train_dataset=labelled_pairs(word_data),
        loss=cross_encoder.losses.BinaryCrossEntropyLoss(model),
        callbacks=[GradualPruningCallback(uneven_plan())],
    )
    trainer.train()
    assert current_plan(transformer_of(model)) == uneven_plan()
    model.save_pretrained(str(tmp_path / "saved"))
    again = cross_encoder.CrossEncoder(str(tmp_path / "saved"), device="cpu", trust_remote_code=True)
    texts = [("ba de", "sun ba"), ("gu lan", "pe pi")]
    assert again.predict(texts).tolist() == pytest.approx(model.predict(texts).tolist(), abs=1e-6)


@pytest.mark.parametrize(("begin", "end"), [(0.5, 0.5), (-0.1, 0.5), (0.0, 1.1), (0.6, 0.5)])
def test_schedules_that_are_none(begin: float, end: float) -> None:
    with pytest.raises(PlanError, match="no schedule"):
        GradualPruningCallback(stock_plan(), begin=begin, end=end)


def test_the_importance_of_another_model(tmp_path: Path) -> None:
    other = magnitude(make_pico(num_hidden_layers=2))
    with pytest.raises(PlanError, match=r"not that of this model's heads.*\[4, 4\].*\[4, 4, 4, 4\]"):
        begun(make_pico(), uneven_plan(), tmp_path, importance=other)


def test_a_plan_for_what_is_gone(tmp_path: Path) -> None:
    model = apply_plan(make_pico(), uneven_plan())
    with pytest.raises(PlanError):
        begun(model, stock_plan(), tmp_path)
