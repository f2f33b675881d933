"""Magnitude pruning in a Trainer: the schedule, zeros that stay, and settings that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_pico
from datasets import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from hfcompress.errors import RecipeError
from hfcompress.models.sparsity import sparse_modules, zero_share
from hfcompress.training.weight_pruning import WeightPruningCallback


class Watch(TrainerCallback):
    """Notes the share of zeros after each step."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def on_step_end(self, *args: Any, model: PreTrainedModel, **kwargs: Any) -> None:
        self.shares.append(zero_share(model))


def trainer_of(model: PreTrainedModel, pairs: Dataset, folder: Path, *callbacks: Any, **settings: Any) -> Trainer:
    fixed = {"save_strategy": "no", "per_device_train_batch_size": 8, "learning_rate": 1e-3, "num_train_epochs": 1}
    arguments = TrainingArguments(
        output_dir=str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **{**fixed, **settings}
    )
    return Trainer(model=model, args=arguments, train_dataset=pairs, eval_dataset=pairs, callbacks=list(callbacks))


def test_the_schedule() -> None:
    callback = WeightPruningCallback(begin=0.25, end=0.75)
    shares = [callback.share(step, 100) for step in range(101)]
    assert shares[:26] == [0.0] * 26 and shares[75:] == [1.0] * 26 and shares == sorted(shares)
    assert shares[50] == pytest.approx(1 - 0.5**3, abs=1 / 64)
    assert WeightPruningCallback(end=0.0).share(0, 100) == 1.0


@pytest.mark.parametrize(("pattern", "sparsity"), [("unstructured", 0.8), ("2:4", 0.5)])
def test_zeros_grow_and_are_held(pairs: Dataset, pattern: str, sparsity: float, tmp_path: Path) -> None:
    model, watch = make_pico(problem_type="regression"), Watch()
    before = {name: module.weight.detach().clone() for name, module in sparse_modules(model).items()}
    trainer_of(model, pairs, tmp_path, WeightPruningCallback(sparsity, pattern, end=0.5), watch).train()
    assert watch.shares[0] == 0 and watch.shares == sorted(watch.shares)
    assert watch.shares[10:] == pytest.approx([sparsity] * 10, abs=1e-3)
    assert 0 < watch.shares[5] < sparsity and zero_share(model) == watch.shares[-1]
    for name, module in sparse_modules(model).items():
        alive = module.weight != 0
        assert (module.weight != before[name])[alive].float().mean() > 0.9  # the others have been trained
        if pattern == "2:4":
            assert int(alive.view(len(alive), -1, 4).sum(2).max()) <= 2


def test_zeros_from_the_start_are_those_of_the_model(pairs: Dataset, tmp_path: Path) -> None:
    model, watch = make_pico(problem_type="regression"), Watch()
    trainer_of(model, pairs, tmp_path, WeightPruningCallback(0.5, end=0.0), watch, max_steps=8).train()
    zeros = {name: module.weight == 0 for name, module in sparse_modules(model).items()}
    assert watch.shares == pytest.approx([0.5] * 8, abs=1e-3)
    trainer_of(model, pairs, tmp_path, WeightPruningCallback(0.5, end=0.0), max_steps=8).train()
    assert all(torch.equal(module.weight == 0, zeros[name]) for name, module in sparse_modules(model).items())


def test_a_best_checkpoint_from_before_the_end_gets_all_zeros(pairs: Dataset, tmp_path: Path) -> None:
    model = make_pico(problem_type="regression")
    every = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 5, "save_steps": 5}
    callback = WeightPruningCallback(0.95, end=1.0)
    trainer = trainer_of(
        model, pairs, tmp_path, callback, load_best_model_at_end=True, metric_for_best_model="eval_loss", **every
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint is not None and zero_share(model) == pytest.approx(0.95, abs=2e-3)


@pytest.mark.parametrize(
    "settings",
    [{"sparsity": 0.0}, {"sparsity": 1.0}, {"pattern": "1:2"}, {"pattern": "2:4", "sparsity": 0.6}, {"end": 1.5}],
)
def test_settings_that_are_none(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"correct (pattern|begin)"):
        WeightPruningCallback(**settings)
