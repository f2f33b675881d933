"""Pruned checkpoints with Trainer, data parallelism, shards, stock classes, and damaged records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import FAMILIES, FFN, HEADS, LAYERS, families, front_plan, make_pico, random_inputs, uneven_plan
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

import hfcompress
from hfcompress.errors import ModelError, PlanError
from hfcompress.models.architectures import ARCHITECTURES
from hfcompress.models.load import load_encoder, model_fingerprint
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(**random_inputs(4, 17)).logits


def remote(folder: Path) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)


class StopAt(TrainerCallback):
    """Stops training after some steps, as an interruption would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        control.should_training_stop = state.global_step >= self.step
        return control


def trainer(model: PreTrainedModel, folder: Path, callbacks: list[TrainerCallback] | None = None) -> Trainer:
    rows = [
        {**{name: tensor[0] for name, tensor in random_inputs(1, 9, seed).items()}, "labels": float(seed % 3)}
        for seed in range(16)
    ]
    arguments = TrainingArguments(
        str(folder), max_steps=4, save_steps=2, per_device_train_batch_size=4, learning_rate=1e-3, report_to=[],
        use_cpu=True, disable_tqdm=True, logging_strategy="no", seed=1,
    )  # fmt: skip
    return Trainer(model, arguments, train_dataset=rows, callbacks=callbacks)


@pytest.mark.parametrize("family", families("bert", "deberta-v2", "modernbert"))
def test_trainer_resumes_from_a_pruned_checkpoint(family: str, tmp_path: Path) -> None:
    whole = apply_plan(make_pico(family), uneven_plan())
    trainer(whole, tmp_path / "whole").train()
    start = apply_plan(make_pico(family), uneven_plan())
    trainer(start, tmp_path / "halves", [StopAt(2)]).train()
    checkpoint = tmp_path / "halves" / "checkpoint-2"
    assert not (tmp_path / "halves" / "checkpoint-4").exists()
    for model in (hfcompress.load_model(str(checkpoint)), remote(checkpoint)):
        assert not torch.equal(logits(model), logits(whole))
        trainer(model, tmp_path / "halves").train(resume_from_checkpoint=str(checkpoint))
        for name, tensor in whole.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name


@pytest.fixture
def one_process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process_group")
@pytest.mark.parametrize("plan", [uneven_plan(), front_plan()], ids=["uneven", "another-layer-in-front"])
@pytest.mark.parametrize("family", FAMILIES)
def test_data_parallelism_is_removed_and_can_be_applied_again(family: str, plan: PruningPlan, tmp_path: Path) -> None:
    wrapped = DistributedDataParallel(make_pico(family))
    model = apply_plan(wrapped, plan)  # type: ignore[type-var]
    assert torch.equal(logits(model), logits(apply_plan(make_pico(family), plan)))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(hfcompress.load_model(str(tmp_path))), logits(model))
    again = DistributedDataParallel(model.train())
    optimizer = torch.optim.AdamW(again.parameters(), lr=1e-3)
    before = logits(model)
    for _ in range(2):  # the second step stops where a parameter had no part in the first
        again.train()(**random_inputs(4, 9)).logits.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.equal(logits(model), before)


@pytest.mark.usefixtures("one_process_group")
def test_wrappers_are_removed_in_any_order() -> None:
    expected = logits(apply_plan(make_pico(), uneven_plan()))
    inner = DistributedDataParallel(torch.compile(make_pico(), backend="eager"))
    outer = torch.compile(DistributedDataParallel(make_pico()), backend="eager")
    for wrapped in (inner, outer):
        assert torch.equal(logits(apply_plan(wrapped, uneven_plan())), expected)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mpnet"])  # does not support it
def test_gradient_checkpointing_stays_enabled(family: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make_pico(family).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        model = apply_plan(model, uneven_plan())
        assert model.is_activation_checkpointing is checkpointing
        torch.manual_seed(0)
        model(**random_inputs(4, 9)).logits.sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_shards(family: str, tmp_path: Path) -> None:
    model = apply_plan(make_pico(family), uneven_plan())
    model.save_pretrained(tmp_path / "0", max_shard_size="20KB")
    assert len(list((tmp_path / "0").glob("*.safetensors"))) > 1
    assert torch.equal(logits(hfcompress.load_model(str(tmp_path / "0"))), logits(model))
    assert torch.equal(logits(remote(tmp_path / "0")), logits(model))
    apply_plan(make_pico(family, seed=1), uneven_plan()).save_pretrained(tmp_path / "1", max_shard_size="20KB")
    first, second = (model_fingerprint(str(tmp_path / name)) for name in ("0", "1"))
    assert first != second and first == model_fingerprint(str(tmp_path / "0"))


def whole_sublayers_plan() -> PruningPlan:
    """The rest has stock sizes; one layer has no heads and one no FFN."""
    heads, ffn = tuple(range(HEADS)), tuple(range(FFN))
    layers = (LayerPlan(0, heads, ffn), LayerPlan(1, (), ffn), LayerPlan(2, heads, ()), LayerPlan(3, heads, ffn))
    return PruningPlan(LAYERS, HEADS, FFN, layers)


@pytest.mark.parametrize("plan", [uneven_plan(), whole_sublayers_plan()], ids=["uneven", "whole-sublayers"])
@pytest.mark.parametrize("family", FAMILIES)
def test_stock_classes_refuse_a_pruned_checkpoint(family: str, plan: PruningPlan, tmp_path: Path) -> None:
    apply_plan(make_pico(family), plan).save_pretrained(tmp_path)
    stock = getattr(transformers, ARCHITECTURES[family].model_class)
    for open_it in (stock.from_pretrained, AutoModelForSequenceClassification.from_pretrained):
        with pytest.raises(RuntimeError, match="mismatched_sizes"):
            open_it(tmp_path)


def test_a_pruned_checkpoint_can_be_trained_with_a_new_head(tmp_path: Path) -> None:
    model = apply_plan(make_pico(), uneven_plan())
    model.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert current_plan(encoder) == uneven_plan()
    assert torch.equal(logits(encoder), logits(model))


Edit = Callable[[dict[str, Any]], Any]


def damaged(tmp_path: Path, edit: Edit) -> str:
    apply_plan(make_pico(), uneven_plan()).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda config: config["hfcompress"].update(format=2), "another format. Got: 2. Expected: format 1"),
        (lambda config: config["hfcompress"]["plan"].update(format=2), "another format. Got: 2. Expected: format 1"),
        (lambda config: config.update(hfcompress="pruned"), "pruning record in config.json cannot be read"),
        (lambda config: config["hfcompress"].pop("plan"), "pruning record in config.json cannot be read"),
        (lambda config: config["hfcompress"]["plan"].pop("layers_of"), "plan cannot be read"),
        (lambda config: config["hfcompress"]["plan"].update(layers=3), "plan cannot be read"),
        (lambda config: config["hfcompress"]["plan"]["layers"][0].update(heads="1-x"), "plan cannot be read"),
        (lambda config: config["hfcompress"]["plan"]["layers"][0].update(heads=[1, 3]), "plan cannot be read"),
        (
            lambda config: config["hfcompress"]["plan"]["layers"][0].update(heads="3,1"),
            "heads of layer 0 are not valid",
        ),
        (lambda config: config["hfcompress"]["plan"]["layers"].pop(), "3 layers.*Expected: 2 layers"),
        (lambda config: config.update(num_attention_heads=8), "8 heads.*Expected: .*4 heads"),
    ],
)
def test_damaged_records_are_named(edit: Edit, message: str, tmp_path: Path) -> None:
    folder = damaged(tmp_path, edit)
    for load in (hfcompress.load_model, load_encoder):
        with pytest.raises(PlanError, match=message):
            load(folder)


def test_a_plan_that_does_not_fit_the_weights_is_named(tmp_path: Path) -> None:
    folder = damaged(tmp_path, lambda config: config["hfcompress"]["plan"]["layers"][0].update(heads="1-3"))
    with pytest.raises(ModelError, match=r"layer\.0\.attention.*\[32, 16\].*\[32, 24\].*same save"):
        hfcompress.load_model(folder)


def test_weights_that_are_cut_short_are_named(tmp_path: Path) -> None:
    apply_plan(make_pico(), uneven_plan()).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"cannot be read.*restore them"):
        hfcompress.load_model(str(tmp_path))


def test_names_of_modules_come_from_the_table_and_not_from_the_checkpoint(tmp_path: Path) -> None:
    folder = damaged(tmp_path, lambda config: config["hfcompress"]["architecture"].update(ffn_out="attention.self"))
    assert torch.equal(logits(hfcompress.load_model(folder)), logits(apply_plan(make_pico(), uneven_plan())))
