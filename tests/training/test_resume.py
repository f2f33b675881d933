"""Every callback and every option of the trainers: a training resumed in the middle equals the uninterrupted one."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import pkgutil
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_pico, uneven_plan
from datasets import Dataset
from script_inputs import labelled_pairs, pico_cross_encoder
from sentence_transformers import cross_encoder
from transformers import (
    BertTokenizerFast,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

import hfcompress.training
from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData
from hfcompress.errors import PlanError, RecipeError
from hfcompress.models.layout import CALLBACK_MARKER
from hfcompress.models.load import load_model
from hfcompress.models.sparsity import sparse_modules
from hfcompress.models.surgery import current_plan
from hfcompress.pruning.importance.scores import magnitude
from hfcompress.quantization.config import WeightQuantizationConfig
from hfcompress.recipe import FeatureLoss, Optimization
from hfcompress.training.arguments import RankingTrainingArguments
from hfcompress.training.callbacks import RankingEvalCallback, transformer_of
from hfcompress.training.fit import fit
from hfcompress.training.gradual import GradualPruningCallback
from hfcompress.training.progress import TrainingBarCallback
from hfcompress.training.quantization_aware import QuantizationAwareCallback
from hfcompress.training.report import CompressionReportCallback
from hfcompress.training.stateful import EarlyStopping, StatefulCallback
from hfcompress.training.trainer import RankingDistillationTrainer, RankingTrainer
from hfcompress.training.weight_pruning import WeightPruningCallback

BASES = {"LoggingCallback", "StatefulCallback"}
EVALUATING = {"eval_strategy": "steps", "eval_steps": 2}
BEST = {**EVALUATING, "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True}

# Of each class, the callbacks of a training and its settings. Schedules begin before step 4 of 12 and end after it.
CALLBACKS: dict[str, list[tuple[Callable[[RankingData, BertTokenizerFast], list[TrainerCallback]], dict[str, Any]]]] = {
    "GradualPruningCallback": [
        (lambda *_: [GradualPruningCallback(uneven_plan(), end=0.8)], {}),
        (lambda *_: [GradualPruningCallback(uneven_plan(), magnitude(make_pico(seed=9)), 0.1, 0.9)], {}),
    ],
    "WeightPruningCallback": [
        (lambda *_: [WeightPruningCallback(0.6, end=0.8)], {}),
        (lambda *_: [WeightPruningCallback(0.5, "2:4", end=0.9)], {}),
        (lambda *_: [WeightPruningCallback(0.6, end=0.0)], {}),
    ],
    "QuantizationAwareCallback": [
        (lambda *_: [QuantizationAwareCallback(0.2)], {}),
        (lambda *_: [QuantizationAwareCallback(0.2, "static", reduce_range=True)], {}),
        (lambda *_: [QuantizationAwareCallback(0.2, weights=WeightQuantizationConfig(bits=4, scope="all"))], {}),
    ],
    "EarlyStopping": [
        (lambda *_: [EarlyStopping(4)], {**BEST, "metric_for_best_model": "eval_loss", "learning_rate": 0.3})
    ],
    "RankingEvalCallback": [
        (lambda data, tokenizer: [RankingEvalCallback(data, tokenizer)], {**BEST, "metric_for_best_model": "eval_map"})
    ],
    "CompressionReportCallback": [
        (lambda *_: [gradual := GradualPruningCallback(uneven_plan()), CompressionReportCallback(gradual)], EVALUATING)
    ],
    "TrainingBarCallback": [(lambda *_: [TrainingBarCallback()], {})],
}
CASES = [
    pytest.param(*case, id=f"{name}-{number}") for name, cases in CALLBACKS.items() for number, case in enumerate(cases)
]
STATEFUL: list[Callable[[], StatefulCallback]] = [
    lambda: GradualPruningCallback(uneven_plan()),
    WeightPruningCallback,
    lambda: QuantizationAwareCallback(0.2, "static"),
]


def discovered() -> dict[str, type[TrainerCallback]]:
    """The callbacks in all modules of `hfcompress.training`."""
    names = [module.name for module in pkgutil.iter_modules(hfcompress.training.__path__, "hfcompress.training.")]
    members = [inspect.getmembers(importlib.import_module(name), inspect.isclass) for name in names]
    return {
        name: found
        for each in members
        for name, found in each
        if issubclass(found, TrainerCallback) and found.__module__ in names and name not in BASES
    }


def trainer_of(
    model: PreTrainedModel, pairs: Dataset, folder: Path, callbacks: list[TrainerCallback], **settings: Any
) -> Trainer:
    fixed = {"save_strategy": "steps", "save_steps": 4, "max_steps": 12, "learning_rate": 1e-2}
    arguments = TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        per_device_train_batch_size=8,
        **{**fixed, **settings},
    )
    return Trainer(
        model=model, args=arguments, train_dataset=pairs, eval_dataset=pairs.select(range(8)), callbacks=callbacks
    )


def moved(folder: Path, step: int = 4) -> str:
    """A checkpoint somewhere else than where it was written."""
    return str(shutil.copytree(folder / f"checkpoint-{step}", folder.parent / "moved" / f"checkpoint-{step}"))


def assert_equal(found: torch.nn.Module, wanted: torch.nn.Module) -> None:
    state = found.state_dict()
    assert set(state) == set(wanted.state_dict())
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(state[name], tensor), name


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What transformers' trainer logs too: its logger propagates where the variable CI is set, and only there."""
    logger = logging.getLogger("transformers")
    caplog.set_level(logging.WARNING, logger=logger.name)  # the command line, run by other tests, silences it
    monkeypatch.setattr(logger, "propagate", True)
    return caplog


def test_every_callback_is_resumed_here() -> None:
    found = discovered()
    assert set(found) == set(CALLBACKS)
    assert {"GradualPruningCallback", "WeightPruningCallback", "QuantizationAwareCallback"} <= set(found)
    stateful = {name for name, each in found.items() if issubclass(each, StatefulCallback)}
    assert stateful == {type(make()).__name__ for make in STATEFUL}


@pytest.mark.parametrize(
    "restore", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["", "restoring-callbacks"]
)
@pytest.mark.parametrize(("callbacks", "settings"), CASES)
def test_a_training_resumes_bit_equal(
    callbacks: Callable[..., list[TrainerCallback]],
    settings: dict[str, Any],
    restore: bool,
    pairs: Dataset,
    word_data: RankingData,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
    warnings: pytest.LogCaptureFixture,
) -> None:
    whole, again = make_pico(problem_type="regression"), make_pico(seed=7, problem_type="regression")
    first = trainer_of(whole, pairs, tmp_path / "a", callbacks(word_data, tokenizer), **settings)
    first.train()
    if "EarlyStopping" in [type(each).__name__ for each in first.callback_handler.callbacks]:
        assert 4 < first.state.global_step < 12
    second = trainer_of(
        again,
        pairs,
        tmp_path / "b",
        callbacks(word_data, tokenizer),
        restore_callback_states_from_checkpoint=restore,
        **settings,
    )
    if restore and "CompressionReportCallback" in [type(each).__name__ for each in second.callback_handler.callbacks]:
        with pytest.raises(RecipeError, match="leave out restore_callback_states"):
            second.train(resume_from_checkpoint=moved(tmp_path / "a"))
        return
    second.train(resume_from_checkpoint=moved(tmp_path / "a"))
    assert second.state.global_step == first.state.global_step
    assert_equal(again, whole)
    assert not [
        record for record in warnings.records if CALLBACK_MARKER in record.message or "no state" in record.message
    ]
    assert not any(CALLBACK_MARKER in name for name in again.state_dict())


@pytest.mark.parametrize(
    "options",
    [{}, {"r_drop": 0.5}, {"adversarial": 0.5}, {"feature_loss": FeatureLoss(hidden=1.0, decay=0.9)}],
    ids=["plain", "r-drop", "adversarial", "features"],
)
def test_the_trainers_resume_bit_equal_within_an_epoch(
    options: dict[str, Any], lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    def train(seed: int, folder: Path, checkpoint: str | None) -> PreTrainedModel:
        model = make_pico(seed=seed)
        teacher = {"teacher": make_pico(seed=3)} if "feature_loss" in options else {}
        trainer = RankingDistillationTrainer(
            model=model,
            args=RankingTrainingArguments(
                output_dir=str(folder),
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                num_train_epochs=2,
                bf16=False,
                save_strategy="steps",
                save_steps=7,
                learning_rate=1e-3,
                per_device_train_batch_size=8,
            ),
            train_dataset=lists,
            data_collator=RankingCollator(tokenizer, 32),
            callbacks=[GradualPruningCallback(uneven_plan(), end=0.9), QuantizationAwareCallback(0.2, "static")],
            **options,
            **teacher,
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        return model

    whole = train(0, tmp_path / "a", None)
    assert_equal(train(7, tmp_path / "b", moved(tmp_path / "a", 7)), whole)


def test_the_trainer_of_sentence_transformers_resumes_bit_equal(
    word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    def train(name: str, checkpoint: str | None) -> cross_encoder.CrossEncoder:
        model = pico_cross_encoder(tmp_path / f"model-{name}", tokenizer)
        arguments = cross_encoder.CrossEncoderTrainingArguments(
            output_dir=str(tmp_path / name), report_to=[], use_cpu=True, disable_tqdm=True, max_steps=12,
            save_strategy="steps", save_steps=4, learning_rate=1e-2,
        )  # fmt: skip
        cross_encoder.CrossEncoderTrainer(
            model=model,
            args=arguments,
            train_dataset=labelled_pairs(word_data),
            loss=cross_encoder.losses.BinaryCrossEntropyLoss(model),
            callbacks=[GradualPruningCallback(uneven_plan(), end=0.8)],
        ).train(resume_from_checkpoint=checkpoint)
        return model

    whole = train("a", None)
    again = train("b", moved(tmp_path / "a"))
    assert current_plan(transformer_of(again)) == uneven_plan()
    assert_equal(again, whole)


@pytest.mark.parametrize("make", STATEFUL)
def test_a_resume_without_the_callback(
    make: Callable[[], StatefulCallback],
    pairs: Dataset,
    lists: Dataset,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
    warnings: pytest.LogCaptureFixture,
) -> None:
    name = type(make()).__name__
    trainer_of(make_pico(problem_type="regression"), pairs, tmp_path / "a", [make()], max_steps=5).train()
    checkpoint = str(tmp_path / "a" / "checkpoint-4")
    # A plain Trainer, to which nothing of this package belongs then.
    trainer_of(make_pico(problem_type="regression"), pairs, tmp_path / "b", [], max_steps=5).train(
        resume_from_checkpoint=checkpoint
    )
    (found,) = [record for record in warnings.records if CALLBACK_MARKER in record.message]
    assert found.levelno == logging.WARNING and f"{CALLBACK_MARKER}{name}" in found.message
    # The trainers of this package.
    for last in (checkpoint, True):
        trainer = RankingTrainer(
            model=make_pico(),
            args=RankingTrainingArguments(output_dir=str(tmp_path / "a"), report_to=[], use_cpu=True),
            train_dataset=lists,
            data_collator=RankingCollator(tokenizer, 32),
        )
        with pytest.raises(RecipeError, match=f"also {name}, without which the model would not be compressed"):
            trainer.train(resume_from_checkpoint=last)
    # Whoever opens the checkpoint itself.
    warnings.clear()
    load_model(checkpoint)
    assert f"in the middle of a training with {name}" in warnings.text


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (GradualPruningCallback(uneven_plan(), end=0.4), GradualPruningCallback(uneven_plan()), r"end=0\.5.*end=0\.4"),
        (WeightPruningCallback(0.5), WeightPruningCallback(0.6), r"sparsity=0\.6.*sparsity=0\.5"),
        (QuantizationAwareCallback(reduce_range=True), QuantizationAwareCallback(reduce_range=False), "reduce_range"),
        (QuantizationAwareCallback(), QuantizationAwareCallback(weights=WeightQuantizationConfig()), "weights"),
    ],
)
def test_a_checkpoint_of_other_settings(
    ours: StatefulCallback, theirs: StatefulCallback, message: str, tmp_path: Path
) -> None:
    model, control = make_pico(), TrainerControl()
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    state = TrainerState(global_step=4, max_steps=12, stateful_callbacks=[ours])
    state.save_to_json(str(tmp_path / "state.json"))
    resumed = TrainerState.load_from_json(str(tmp_path / "state.json"))
    with pytest.raises(RecipeError, match=f"other settings of {type(ours).__name__}.*{message}"):
        theirs.on_train_begin(arguments, resumed, control, model=model)
    assert not any(module._forward_pre_hooks or "forward" in vars(module) for module in model.modules())
    assert not any(CALLBACK_MARKER in name for name in model.state_dict())


def test_a_checkpoint_of_another_model_or_without_a_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    callback = GradualPruningCallback(uneven_plan())
    state = TrainerState(global_step=4, max_steps=12, stateful_callbacks=[callback])
    state.stateful_callbacks["GradualPruningCallback"]["progress"]["orders"] = ["0:1", "0:3"]
    with pytest.raises(PlanError, match="prunes other heads"):
        callback.on_train_begin(arguments, state, TrainerControl(), model=make_pico())
    empty = TrainerState(global_step=4, max_steps=12)
    callback.on_train_begin(arguments, empty, TrainerControl(), model=make_pico())
    assert "step 4 has no state of GradualPruningCallback" in caplog.text
    assert "GradualPruningCallback" in empty.stateful_callbacks  # the trainer can save it
    twice = TrainerState(stateful_callbacks=[callback, callback])
    with pytest.raises(RecipeError, match="several callbacks"):
        callback.on_train_begin(arguments, twice, TrainerControl(), model=make_pico())


def test_masks_are_told_from_other_zeros(tmp_path: Path) -> None:
    model = make_pico()
    for module in sparse_modules(model).values():
        module.weight.data[: len(module.weight) // 2] = 0  # more zeros than the half that is pruned so far
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    first, second = WeightPruningCallback(0.5), WeightPruningCallback(0.5)
    state = TrainerState(max_steps=12)
    first.on_train_begin(arguments, state, TrainerControl(), model=model)
    state.global_step = 2
    first.on_step_begin(arguments, state, TrainerControl(), model=model)
    next(iter(sparse_modules(model).values())).weight.data[0, :5] = 1.0
    first.on_step_end(arguments, state, TrainerControl(), model=model)
    resumed = TrainerState(global_step=2, max_steps=12, stateful_callbacks=[first])
    resumed.stateful_callbacks = json.loads(json.dumps(resumed.stateful_callbacks))
    second.on_train_begin(arguments, resumed, TrainerControl(), model=model)
    second.on_step_begin(arguments, resumed, TrainerControl(), model=model)
    assert first._masks and set(second._masks) == set(first._masks)
    assert all(torch.equal(second._masks[name], mask) for name, mask in first._masks.items())


def test_a_training_of_a_run_counts_on_after_an_interruption(
    lists: Dataset, word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    settings = Optimization(epochs=2, learning_rate=1e-7, patience=3, queries_per_batch=8, evaluations=5)

    class Stop(TrainerCallback):
        def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
            if state.global_step == self.step:
                raise KeyboardInterrupt

        step = 0

    def train(folder: Path, step: int = 0) -> tuple[PreTrainedModel, dict[str, float]]:
        model, stop = make_pico(), Stop()
        stop.step = step
        figures = fit(
            RankingDistillationTrainer, model, tokenizer, lists=lists, data=word_data, settings=settings,
            folder=folder, seed=0, progress=False, callbacks=[WeightPruningCallback(0.1), stop],
        )  # fmt: skip
        return model, figures

    whole, figures = train(tmp_path / "whole")
    for step in (2, 4):  # in the middle, and after the last evaluation
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / f"again-{step}", step)
        again, resumed = train(tmp_path / f"again-{step}")
        assert resumed["best_dev_ndcg@10"] == figures["best_dev_ndcg@10"]
        assert resumed["steps"] <= figures["steps"] + 1
        assert_equal(again, whole)
