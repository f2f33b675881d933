"""Compiled and wrapped models, in whole or in part, and layers that share modules, wherever a model enters."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FAMILIES, IDENTITY, LAYERS, make_pico, random_inputs, uneven_plan
from datasets import Dataset
from safetensors.torch import load_file
from torch import nn
from transformers import BertTokenizerFast, PreTrainedModel, Trainer, TrainingArguments

from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData
from hfcompress.errors import ModelError
from hfcompress.models.architectures import encoder_layers
from hfcompress.models.checkpoint import save_checkpoint
from hfcompress.models.load import load_model
from hfcompress.models.surgery import apply_plan, current_plan, prune_embedding, pruned_copy
from hfcompress.models.wrappers import has_wrappers, shared_modules, shared_weights, untie_, unwrap_, unwrapped
from hfcompress.pruning.calibration import Calibration
from hfcompress.pruning.find_plans import measure_importance
from hfcompress.pruning.importance.margins import margin_gradients
from hfcompress.quantization.config import WeightQuantizationConfig
from hfcompress.quantization.onnxruntime import export_onnx
from hfcompress.quantization.weights import save_packed
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import FeatureLoss, Optimization
from hfcompress.training.arguments import RankingTrainingArguments
from hfcompress.training.fit import fit
from hfcompress.training.gradual import GradualPruningCallback
from hfcompress.training.quantization_aware import QuantizationAwareCallback
from hfcompress.training.trainer import RankingDistillationTrainer, RankingTrainer
from hfcompress.training.weight_pruning import WeightPruningCallback

PAIRS = [("ba de", "sun ba"), ("gu lan", "pe pi mo")]


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


def compiled_layer(model: PreTrainedModel) -> PreTrainedModel:
    layers = encoder_layers(model)
    layers[1] = compiled(layers[1])
    return model


def compiled_deep_inside(model: PreTrainedModel) -> PreTrainedModel:
    layer = encoder_layers(model)[0]
    layer.output.dense = compiled(nn.DataParallel(layer.output.dense))
    return compiled_layer(model)


def compiled_in_place(model: PreTrainedModel) -> PreTrainedModel:
    model.bert.encoder.layer[2].compile(backend="eager")
    model.compile(backend="eager")
    return model


WRAPPERS: dict[str, Callable[[PreTrainedModel], Any]] = {
    "compiled": compiled,
    "data-parallel": nn.DataParallel,
    "compiled-data-parallel": lambda model: compiled(nn.DataParallel(model)),
    "data-parallel-compiled": lambda model: nn.DataParallel(compiled(model)),
    "compiled-layer": compiled_layer,
    "compiled-encoder": lambda model: (setattr(model.bert, "encoder", compiled(model.bert.encoder)), model)[1],
    "compiled-deep-inside": compiled_deep_inside,
    "compiled-in-place": compiled_in_place,
    "all-at-once": lambda model: nn.DataParallel(compiled(compiled_deep_inside(model))),
}


SEVERAL = ("compiled", "compiled-in-place", "all-at-once")
MOST_SLOWLY = [
    pytest.param(wrap, id=name, marks=[] if name in SEVERAL else pytest.mark.soak) for name, wrap in WRAPPERS.items()
]


def one_layer(model: PreTrainedModel) -> PreTrainedModel:
    layers = encoder_layers(model)
    for index in range(1, LAYERS):
        layers[index] = layers[0]
    return model


def one_module(model: PreTrainedModel) -> PreTrainedModel:
    layers = encoder_layers(model)
    layers[3].attention.output = layers[2].attention.output
    return model


def one_weight(model: PreTrainedModel) -> PreTrainedModel:
    layers = encoder_layers(model)
    layers[1].output.dense.weight = layers[0].output.dense.weight
    model.bert.pooler.dense.weight = layers[0].attention.output.dense.weight
    return model


SHARED = {"layers": one_layer, "a-module": one_module, "weights": one_weight}


def plain_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A stock model with the weights of one whose parts are shared."""
    plain = make_pico(model.config.model_type)
    plain.load_state_dict(model.state_dict())
    return plain


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(**random_inputs(3, 8)).logits


def arguments(folder: Path, **settings: Any) -> RankingTrainingArguments:
    return RankingTrainingArguments(
        output_dir=str(folder),
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        max_steps=4,
        per_device_train_batch_size=8,
        **{"save_strategy": "steps", "save_steps": 2, **settings},
    )


def trained(
    model: Any,
    lists: Dataset,
    tokenizer: BertTokenizerFast,
    folder: Path,
    trainer_class: type[RankingTrainer] = RankingTrainer,
    **options: Any,
) -> RankingTrainer:
    trainer = trainer_class(
        model, args=arguments(folder), train_dataset=lists, data_collator=RankingCollator(tokenizer, 32), **options
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_unwrapping(wrap: Callable[[PreTrainedModel], Any]) -> None:
    plain = make_pico()
    model = wrap(make_pico())
    before = {name: id(module) for name, module in model.named_modules()}
    found = unwrapped(model)
    assert type(found) is type(plain) and not has_wrappers(found) and has_wrappers(model)
    assert set(found.state_dict()) == set(plain.state_dict())
    assert torch.equal(logits(found), logits(plain))
    assert {name: id(module) for name, module in model.named_modules()} == before  # the caller's object is as it was
    assert {id(each) for each in found.parameters()} == {id(each) for each in model.parameters()}
    assert unwrapped(found) is found
    inner = unwrap_(model)
    assert not has_wrappers(inner) and unwrap_(inner) is inner and torch.equal(logits(inner), logits(plain))


@pytest.mark.parametrize("family", FAMILIES)
def test_models_that_need_nothing_are_returned_themselves(family: str) -> None:
    model = make_pico(family)
    assert unwrapped(model) is model and unwrap_(model) is model
    assert not shared_modules(model) and not shared_weights(model) and not untie_(model)


@pytest.mark.parametrize("wrap", MOST_SLOWLY)
def test_everything_that_takes_a_model_takes_it_wrapped(
    wrap: Callable[[PreTrainedModel], Any], word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    plain, model = make_pico(), wrap(make_pico())
    expected = logits(plain)
    calibration = Calibration(word_data, RankingCollator(tokenizer, 32), 8, seed=0)
    if "compiled" in type(model).__name__.lower() or isinstance(model, PreTrainedModel):
        logits(model)  # compiled now, without the hooks that come later
    for method in ("magnitude", "fisher", "obs"):
        gradients = [margin_gradients(each, calibration.fitting, progress=False) for each in (plain, model)]
        ours, theirs = (
            measure_importance(method, each, calibration, found if method == "obs" else None, progress=False)
            for each, found in zip((plain, model), gradients, strict=True)
        )
        for kind in ("heads", "ffn"):
            assert all(map(torch.equal, getattr(ours, kind), getattr(theirs, kind)))
    assert current_plan(model) == current_plan(plain)
    assert TorchRanker(model, tokenizer).score(PAIRS) == pytest.approx(TorchRanker(plain, tokenizer).score(PAIRS))
    assert torch.equal(logits(pruned_copy(model, uneven_plan())), logits(pruned_copy(plain, uneven_plan())))
    save_checkpoint(tmp_path, model, tokenizer, IDENTITY, 32)
    assert torch.equal(logits(load_model(str(tmp_path))), expected)
    save_packed(model, WeightQuantizationConfig(bits=4, scope="all"), tmp_path)
    assert torch.isfinite(logits(load_model(str(tmp_path), file="packed/model_int4.safetensors"))).all()
    assert has_wrappers(model)  # only what edits a model in place takes it out of its wrappers
    smaller = prune_embedding(model, range(50))
    assert smaller.config.vocab_size == 50 and not has_wrappers(smaller)
    assert current_plan(apply_plan(wrap(make_pico()), uneven_plan())) == uneven_plan()


@pytest.mark.soak
def test_exporting_a_wrapped_model(tokenizer: BertTokenizerFast) -> None:
    names = {value.name for value in export_onnx(make_pico(), tokenizer).graph.initializers.values()}
    model = compiled(compiled_deep_inside(make_pico()))
    assert {value.name for value in export_onnx(model, tokenizer).graph.initializers.values()} == names


@pytest.mark.parametrize("wrap", MOST_SLOWLY)
def test_training_a_wrapped_model(
    wrap: Callable[[PreTrainedModel], Any],
    lists: Dataset,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options: dict[str, Any] = {
        "trainer_class": RankingDistillationTrainer, "feature_loss": FeatureLoss(hidden=1.0), "adversarial": 0.1,
    }  # fmt: skip
    plain, wrapped = make_pico(), wrap(make_pico())
    trained(plain, lists, tokenizer, tmp_path / "a", teacher=make_pico(seed=3), **options)
    assert "set torch_compile" not in caplog.text
    callbacks = [QuantizationAwareCallback(0.9)]
    trainer = trained(
        wrapped, lists, tokenizer, tmp_path / "b", teacher=wrap(make_pico(seed=3)), callbacks=callbacks, **options
    )
    assert "set torch_compile in the arguments" in caplog.text
    trainer.save_model(str(tmp_path / "saved"))
    for folder in ("b/checkpoint-2", "saved"):
        assert set(load_file(tmp_path / folder / "model.safetensors")) >= set(plain.state_dict())
        load_model(str(tmp_path / folder))
    reference = load_file(tmp_path / "a" / "checkpoint-2" / "model.safetensors")
    found = load_file(tmp_path / "b" / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in reference.items())


@pytest.mark.parametrize("share", SHARED.values(), ids=SHARED)
def test_training_with_shared_weights(
    share: Callable[[PreTrainedModel], PreTrainedModel],
    lists: Dataset,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = share(make_pico())
    plain = plain_copy(model)
    expected = logits(model)
    gradual = GradualPruningCallback(uneven_plan())
    trainer = trained(model, lists, tokenizer, tmp_path / "a", callbacks=[gradual])
    assert "each place has its own from here on" in caplog.text
    assert trainer.model is model and current_plan(model) == uneven_plan()
    trained(plain, lists, tokenizer, tmp_path / "b", callbacks=[GradualPruningCallback(uneven_plan())])
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in model.state_dict().items())
    trainer.save_model(str(tmp_path / "saved"))
    assert torch.equal(logits(load_model(str(tmp_path / "saved")).eval()), logits(model.eval()))
    assert not torch.equal(logits(model), expected)


@pytest.mark.parametrize("share", SHARED.values(), ids=SHARED)
def test_measuring_and_saving_shared_weights(
    share: Callable[[PreTrainedModel], PreTrainedModel],
    word_data: RankingData,
    tokenizer: BertTokenizerFast,
    tmp_path: Path,
) -> None:
    model = share(make_pico())
    plain, again = plain_copy(model), shared_weights(model)
    calibration = Calibration(word_data, RankingCollator(tokenizer, 32), 8, seed=0)
    for method in ("fisher", "obs"):
        ours, theirs = (measure_importance(method, each, calibration, progress=False) for each in (plain, model))
        assert all(map(torch.equal, [*ours.heads, *ours.ffn], [*theirs.heads, *theirs.ffn]))
    save_checkpoint(tmp_path, model, tokenizer, IDENTITY, 32)
    assert torch.equal(logits(load_model(str(tmp_path))), logits(model))
    save_packed(model, WeightQuantizationConfig(bits=4, scope="all"), tmp_path)
    assert shared_weights(model) == again and again


def test_a_recovery_of_a_wrapped_model_with_shared_layers(
    lists: Dataset, word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model = one_layer(make_pico())
    settings = Optimization(epochs=1, learning_rate=1e-3, queries_per_batch=8, freeze_layers=1, precision="fp32")
    fit(
        RankingDistillationTrainer, compiled(model), tokenizer, lists=lists, data=word_data, settings=settings,
        folder=tmp_path / "fit", seed=0, progress=False,
    )  # fmt: skip
    first, second = (layer.output.dense.weight for layer in encoder_layers(model)[:2])
    assert torch.equal(first, encoder_layers(make_pico())[0].output.dense.weight)  # frozen, and only this one
    assert not torch.equal(first, second)
    save_checkpoint(tmp_path / "saved", model, tokenizer, IDENTITY, 32)
    assert torch.equal(logits(load_model(str(tmp_path / "saved"))), logits(model.eval()))


def test_an_optimizer_of_shared_weights_is_refused(
    lists: Dataset, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    model = one_layer(make_pico())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ModelError, match="before you make the optimizer"):
        trained(model, lists, tokenizer, tmp_path, optimizers=(optimizer, None))


@pytest.mark.parametrize("change", [*WRAPPERS.values(), *SHARED.values()], ids=[*WRAPPERS, *SHARED])
@pytest.mark.parametrize("late", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["", "added-later"])
def test_callbacks_in_other_trainers_refuse_before_training(
    change: Callable[[PreTrainedModel], Any], late: bool, pairs: Dataset, tmp_path: Path
) -> None:
    for callback in (GradualPruningCallback(uneven_plan()), WeightPruningCallback(), QuantizationAwareCallback()):
        model = change(make_pico(problem_type="regression"))
        before = [weight.detach().clone() for weight in model.parameters()]
        settings = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True, save_strategy="no")
        given = [] if late else [callback]
        with pytest.raises(ModelError, match=r"wrappers\.(unwrap_|untie_)\(model\)"):
            trainer = Trainer(model=model, args=settings, train_dataset=pairs, callbacks=given)
            trainer.add_callback(callback)
            trainer.train()
        assert all(map(torch.equal, model.parameters(), before))


def test_weights_that_a_class_ties_stay_tied(caplog: pytest.LogCaptureFixture) -> None:
    model = make_pico()
    model.bert.pooler.dense.weight = encoder_layers(model)[0].attention.output.dense.weight
    tied = {"bert.pooler.dense.weight": "bert.encoder.layer.0.attention.output.dense.weight"}
    model.all_tied_weights_keys = tied
    assert not shared_weights(model) and not untie_(model)
    model.all_tied_weights_keys = {}
    assert untie_(model) == list(tied)
    caplog.set_level(logging.INFO, logger="hfcompress")  # which the command line, run by other tests, changes
    apply_plan(one_layer(make_pico()), uneven_plan())
    assert "are pruned separately" in caplog.text
