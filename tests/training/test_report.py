"""The compression report in a plain `Trainer`, in ours and in that of sentence-transformers: what it says, and that
training does not notice it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FAMILIES, FFN, HEADS, LAYERS, make_pico, uneven_plan
from datasets import Dataset
from script_inputs import labelled_pairs, pico_cross_encoder
from sentence_transformers import cross_encoder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import BertTokenizerFast, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfcompress import CompressionReportCallback, GradualPruningCallback
from hfcompress.data.lists import RankingCollator, training_lists
from hfcompress.data.ranking import RankingData
from hfcompress.errors import DataError
from hfcompress.models.macs import encoder_macs
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import apply_plan
from hfcompress.training.trainer import RankingTrainer

NAMES = {f"compression/{name}" for name in ("parameters", "sparsity", "encoder_macs", "heads", "ffn")}
TEXTS = [("ba de", "sun ba de"), ("gu lan", "pe pi pu")] * 4


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    fixed = {
        "output_dir": str(folder), "save_strategy": "no", "per_device_train_batch_size": 8, "max_steps": 8,
        "eval_strategy": "steps", "eval_steps": 2, "report_to": [], "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    return fixed | changes


def plain(model: Any, pairs: Dataset, folder: Path, callbacks: list[TrainerCallback], **changes: Any) -> Trainer:
    arguments = TrainingArguments(**settings(folder, **changes))
    return Trainer(model, arguments, train_dataset=pairs, eval_dataset=pairs.select(range(4)), callbacks=callbacks)


def entries(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "compression/heads" in entry]


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check_course(reported: list[dict[str, float]], model: Any) -> None:
    """From the whole model to what surgery leaves, with less and less alive while gates close."""
    full, cut = make_pico(), apply_plan(make_pico(), uneven_plan())
    whole = PruningPlan.full(LAYERS, HEADS, FFN)
    assert [entry["step"] for entry in reported] == [0, 2, 4, 6, 8, 8]  # the start, four evaluations, the end
    first, *others, last = reported
    assert first["compression/parameters"] == size(full) and first["compression/sparsity"] == 0
    assert first["compression/encoder_macs"] == 1
    assert (first["compression/heads"], first["compression/ffn"]) == (LAYERS * HEADS, LAYERS * FFN)
    for entry in (others[-1], last):  # all gates closed; cut
        assert entry["compression/parameters"] == size(cut)
        assert entry["compression/sparsity"] == pytest.approx(1 - size(cut) / size(full))
        share = encoder_macs(full.config, uneven_plan()) / encoder_macs(full.config, whole)
        assert entry["compression/encoder_macs"] == pytest.approx(share)
        assert entry["compression/heads"] == sum(len(layer.heads) for layer in uneven_plan().layers)
        assert entry["compression/ffn"] == sum(len(layer.ffn) for layer in uneven_plan().layers)
    assert size(model) == size(cut)
    for name in NAMES - {"compression/sparsity"}:
        values = [entry[name] for entry in reported]
        assert values == sorted(values, reverse=True) and values[0] > values[1] > values[3], name


def test_in_a_plain_trainer(pairs: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    model = make_pico(problem_type="regression")
    gradual = GradualPruningCallback(uneven_plan(), end=0.75)
    report = CompressionReportCallback(gradual, TEXTS, tokenizer, rounds=1)
    trainer = plain(model, pairs, tmp_path, [gradual, report], report_to="tensorboard")
    trainer.train()
    check_course(entries(trainer), model)
    assert all(entry["compression/docs_per_second"] > 0 for entry in entries(trainer))
    (folder,) = tmp_path.glob("runs/*/compression")  # a run within that of transformers' callback
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == NAMES | {"compression/docs_per_second"}
    assert [event.value for event in events.Scalars("compression/heads")] == [
        entry["compression/heads"] for entry in entries(trainer)
    ]
    images = events.Images("compression/structure")
    assert len(images) > 2 and images[0].encoded_image_string.startswith(b"\x89PNG") and images[0].width > 500


def test_in_our_trainer_the_loggers_hear_of_it(
    word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    heard: list[dict[str, float]] = []

    class Logger(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            heard.append(dict(logs))

    model, lists = make_pico(), training_lists(word_data, 4, 1, seed=0)
    gradual = GradualPruningCallback(uneven_plan(), end=0.75)
    trainer = RankingTrainer(
        model=model,
        args=TrainingArguments(remove_unused_columns=False, **settings(tmp_path, report_to="tensorboard")),
        train_dataset=lists,
        eval_dataset=lists.select(range(2)),
        data_collator=RankingCollator(tokenizer, 32),
        callbacks=[Logger(), gradual, CompressionReportCallback(gradual)],
    )
    trainer.train()
    check_course(entries(trainer), model)
    assert len([logs for logs in heard if logs.keys() >= NAMES]) == 6
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    assert {f"train/{name}" for name in NAMES} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("train/compression/ffn")) == 6
    assert len(events.Images("compression/structure")) > 2


def test_in_the_trainer_of_sentence_transformers(
    word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    class Writer:
        def __init__(self) -> None:
            self.scalars: list[str] = []
            self.images: list[Any] = []

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.scalars.append(name)

        def add_image(self, name: str, image: Any, step: int, dataformats: str) -> None:
            self.images.append(image)

        def flush(self) -> None:
            pass

    model, writer = pico_cross_encoder(tmp_path / "model", tokenizer), Writer()
    examples = labelled_pairs(word_data).select(range(64))
    gradual = GradualPruningCallback(uneven_plan(), end=0.75)
    trainer = cross_encoder.CrossEncoderTrainer(
        model=model,
        args=cross_encoder.CrossEncoderTrainingArguments(**settings(tmp_path / "out")),
        train_dataset=examples,
        eval_dataset=examples.select(range(4)),
        loss=cross_encoder.losses.BinaryCrossEntropyLoss(model),
        callbacks=[gradual, CompressionReportCallback(gradual, writer=writer)],
    )
    trainer.train()
    check_course(entries(trainer), model)
    assert set(writer.scalars) == NAMES and len(writer.scalars) == 6 * len(NAMES)
    assert {image.ndim for image in writer.images} == {3}


def test_training_does_not_notice(pairs: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    weights = []
    for number in range(2):
        model = make_pico(problem_type="regression")  # with dropout
        gradual = GradualPruningCallback(uneven_plan(), end=0.75)
        report = CompressionReportCallback(gradual, TEXTS, tokenizer, rounds=1)
        plain(model, pairs, tmp_path, [gradual, report] if number else [gradual], max_steps=4).train()
        weights.append(model.state_dict())
    assert all(torch.equal(weights[1][name], tensor) for name, tensor in weights[0].items())


@pytest.mark.parametrize("family", FAMILIES)
def test_modes_and_random_numbers_are_left_alone(family: str, tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    model = make_pico(family).train()
    model.base_model.embeddings.eval()
    before = [module.training for module in model.modules()]
    states = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    arguments, state = TrainingArguments(**settings(tmp_path)), TrainerState()
    state.is_world_process_zero = True
    gradual = GradualPruningCallback(uneven_plan())
    gradual.on_train_begin(arguments, state, TrainerControl(), model=model)
    gradual.close(1.0)
    texts = TEXTS if family == "bert" else None  # of whose tokens the tokenizer is
    report = CompressionReportCallback(gradual, texts, tokenizer if texts else None, rounds=1)
    report.on_evaluate(arguments, state, TrainerControl(), model=model)
    assert [module.training for module in model.modules()] == before and True in before and False in before
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    gradual.on_train_end(arguments, state, TrainerControl(), model=model)
    assert state.log_history[0]["compression/parameters"] == size(model)


def test_only_the_first_process_reports(tmp_path: Path) -> None:
    state = TrainerState()
    state.is_world_process_zero = False
    CompressionReportCallback().on_evaluate(TrainingArguments(**settings(tmp_path)), state, None, model=make_pico())
    assert state.log_history == []


@pytest.mark.parametrize("pairs", [None, [], TEXTS])
def test_speed_needs_pairs_and_a_tokenizer(pairs: Any, tokenizer: BertTokenizerFast) -> None:
    with pytest.raises(DataError, match="Speed cannot be measured"):
        CompressionReportCallback(pairs=pairs, tokenizer=None if pairs else tokenizer)
