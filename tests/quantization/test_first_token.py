"""The last layer for the first token only: same scores in every family and runtime, less work, no lasting changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import (
    FAMILIES,
    FFN,
    HEADS,
    HIDDEN,
    LAYERS,
    make_pico,
    pico_config,
    random_inputs,
    stock_plan,
    uneven_plan,
)
from one_token_graphs import onnx_products_of_one_token, openvino_products_of_one_token, run_openvino
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertForTokenClassification, BertTokenizerFast, PreTrainedModel

from hfcompress.models.architectures import architecture_of, encoder_layers
from hfcompress.models.macs import encoder_macs
from hfcompress.models.plan import LayerPlan, PruningPlan
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.quantization import onnxruntime as onnx_backend
from hfcompress.quantization import openvino as openvino_backend
from hfcompress.quantization.first_token import first_token_only, reads_first_token_only

if TYPE_CHECKING:
    pass

SHAPES = [(1, 17), (7, 2), (7, 17), (2, 512)]  # one pair, several with padding, the shortest, the longest
TOLERANCE = 1e-5
needs_openvino = pytest.mark.skipif(not openvino_backend.is_available(), reason="the openvino extra is not installed")


def plan_that_ends_in(*layers: LayerPlan) -> PruningPlan:
    return PruningPlan(LAYERS, HEADS, FFN, layers)


PLANS = {
    "without FFN": uneven_plan(),
    "uneven heads": plan_that_ends_in(LayerPlan(0, (0,), (1, 2)), LayerPlan(2, (0, 2, 3), tuple(range(7)))),
    "without heads": plan_that_ends_in(LayerPlan(1, (1, 2), (3,)), LayerPlan(3, (), tuple(range(9)))),
    "empty": plan_that_ends_in(LayerPlan(1, (1, 2), (3,)), LayerPlan(2, (), ())),
    "one layer": plan_that_ends_in(LayerPlan(2, (0, 3), tuple(range(0, FFN, 3)))),
}


def logits(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return model(**inputs).logits


def assert_same_scores(model: PreTrainedModel) -> None:
    """Compare on all shapes, and see that the block does compute one token only."""
    for batch, length in SHAPES:
        inputs = random_inputs(batch, length)
        expected = logits(model, inputs)
        with first_token_only(model):
            torch.testing.assert_close(logits(model, inputs), expected, atol=TOLERANCE, rtol=TOLERANCE)
            with torch.inference_mode():
                assert model.base_model(**inputs)[0].shape == (batch, 1, HIDDEN)


def is_patched(model: PreTrainedModel) -> bool:
    return any("forward" in vars(module) for module in encoder_layers(model).modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_models_keep_their_scores(family: str) -> None:
    assert_same_scores(make_pico(family))


@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_models_keep_their_scores(family: str, kind: str) -> None:
    assert_same_scores(apply_plan(make_pico(family), PLANS[kind]))


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_masks_of_both_attention_kernels_are_understood(kernel: str) -> None:
    model = make_pico(attn_implementation=kernel)
    assert_same_scores(model)
    unmasked = {"input_ids": random_inputs(3, 17)["input_ids"]}
    expected = logits(model, unmasked)
    with first_token_only(model):
        torch.testing.assert_close(logits(model, unmasked), expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    "changes",
    [
        {"share_att_key": False},
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"], "share_att_key": False},
        {"position_buckets": -1},
        {"relative_attention": False},
        {"conv_kernel_size": 3, "num_hidden_layers": 1},  # the convolution comes after the first layer
    ],
    ids=str,
)
def test_every_kind_of_deberta_keeps_its_scores(changes: dict[str, object]) -> None:
    model = make_pico("deberta-v2", **changes)
    for batch, length in SHAPES:
        inputs = random_inputs(batch, length)
        expected = logits(model, inputs)
        with first_token_only(model):
            assert is_patched(model)
            torch.testing.assert_close(logits(model, inputs), expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(("layers", "kind"), [(3, "sliding_attention"), (4, "full_attention")])
def test_modernbert_may_end_in_a_layer_with_a_window_or_without(layers: int, kind: str) -> None:
    model = make_pico("modernbert", num_hidden_layers=layers)
    assert model.config.layer_types[-1] == kind
    assert_same_scores(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_saving_is_that_of_the_last_layer(family: str) -> None:
    model, inputs = make_pico(family), random_inputs(7, 17)
    full = counted_flops(model, inputs)
    with first_token_only(model):
        less = counted_flops(model, inputs)
    # All but keys and values of the last layer, and queries where they are fused with those, for all but one token.
    kept = (3 if family == "modernbert" else 2) * HIDDEN**2
    saved = 2 * 7 * (17 - 1) * (encoder_macs(model.config, current_plan(model)) // LAYERS - kept)
    if model.config._attn_implementation == "sdpa":  # whose products are not counted
        assert full - less == saved
    else:
        assert full - less > saved


def counted_flops(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:  # its hooks do not stand inference mode
        model(**inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_behind(family: str, pruned: bool) -> None:
    model = apply_plan(make_pico(family), uneven_plan()) if pruned else make_pico(family)
    inputs = random_inputs(4, 17)
    expected, before = logits(model, inputs), snapshot(model)
    with first_token_only(model) as inside:
        assert inside is model and is_patched(model)
        assert [name for name, _ in model.named_modules()] == [name for name, _ in before["modules"]]
        logits(model, inputs)
    assert snapshot(model) == before and torch.equal(logits(model, inputs), expected)
    with pytest.raises(RuntimeError, match="inside"), first_token_only(model):
        raise RuntimeError("inside")
    assert snapshot(model) == before and torch.equal(logits(model, inputs), expected)


def snapshot(model: PreTrainedModel) -> dict[str, object]:
    """Identity of all that a model holds."""
    return {
        "modules": list(model.named_modules()),
        "attributes": [set(vars(module)) for module in model.modules()],
        "tensors": [(name, id(tensor)) for name, tensor in model.state_dict(keep_vars=True).items()],
        "hooks": [[*module._forward_hooks, *module._forward_pre_hooks] for module in model.modules()],
    }


@pytest.mark.parametrize("plan", [None, *PLANS.values()], ids=["stock", *PLANS])
def test_blocks_may_be_nested(plan: PruningPlan | None) -> None:
    model = make_pico() if plan is None else apply_plan(make_pico(), plan)
    inputs = random_inputs(4, 17)
    expected = logits(model, inputs)
    with first_token_only(model):
        with first_token_only(model):
            torch.testing.assert_close(logits(model, inputs), expected, atol=TOLERANCE, rtol=TOLERANCE)
        assert is_patched(model)
        torch.testing.assert_close(logits(model, inputs), expected, atol=TOLERANCE, rtol=TOLERANCE)
    assert not is_patched(model)


def test_threads_may_share_the_model() -> None:
    model = make_pico()
    inputs = [random_inputs(3, 17, seed) for seed in (0, 1)]
    expected = [logits(model, batch) for batch in inputs]
    both_are_in_the_last_layer = threading.Barrier(2)
    attention = encoder_layers(model)[-1].get_submodule(architecture_of(model.config).attention)
    attention.register_forward_pre_hook(lambda *_: both_are_in_the_last_layer.wait(timeout=30) and None)
    with first_token_only(model), ThreadPoolExecutor(2) as pool:
        for scores, reference in zip(pool.map(lambda batch: logits(model, batch), inputs), expected, strict=True):
            torch.testing.assert_close(scores, reference, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_the_first_token(family: str) -> None:
    assert reads_first_token_only(pico_config(family))


def other_kernel() -> PreTrainedModel:
    model = make_pico()
    model.config._attn_implementation = "flex_attention"
    return model


def shared_layer() -> PreTrainedModel:
    model = make_pico()
    encoder_layers(model)[-1] = encoder_layers(model)[0]
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_pico("modernbert", classifier_pooling="mean"),
        lambda: BertForTokenClassification(pico_config("bert")).eval(),
        other_kernel,
        shared_layer,
    ],
    ids=["mean pooling", "a head on every token", "another kernel", "a layer used twice"],
)
def test_other_models_are_left_alone(make: Callable[[], PreTrainedModel]) -> None:
    model = make()
    before = snapshot(model)
    with first_token_only(model):
        assert snapshot(model) == before


def test_mean_pooling_reads_all_tokens() -> None:
    model = make_pico("modernbert", classifier_pooling="mean")
    assert not reads_first_token_only(model.config)
    inputs = random_inputs(7, 17)
    expected = logits(model, inputs)
    with first_token_only(model):
        assert torch.equal(logits(model, inputs), expected)


@pytest.fixture(scope="session")
def plain_tokenizer(tokenizer: BertTokenizerFast) -> BertTokenizerFast:
    """One that makes no segments, which most families do not take."""
    copy = BertTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    copy.model_input_names = ["input_ids", "attention_mask"]
    return copy


def two_layers(family: str = "bert") -> PreTrainedModel:
    """A model with two whole layers, since the time of an export grows with their number."""
    return apply_plan(make_pico(family), stock_plan())


def run_onnx(path: Path, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {node.name: inputs[node.name].numpy() for node in session.get_inputs()})[0]


def assert_equal_to_torch(run: Callable[[dict[str, torch.Tensor]], np.ndarray], model: PreTrainedModel) -> None:
    for batch, length in SHAPES:
        inputs = random_inputs(batch, length)
        np.testing.assert_allclose(run(inputs), logits(model, inputs).numpy(), atol=TOLERANCE, rtol=TOLERANCE)


def test_onnx_of_a_layer_without_heads(plain_tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    model = apply_plan(make_pico(), PLANS["without heads"])
    path = onnx_backend.save_onnx(onnx_backend.export_onnx(model, plain_tokenizer), tmp_path / "model.onnx")
    assert_equal_to_torch(lambda inputs: run_onnx(path, inputs), model)


def test_onnx_of_all_tokens(plain_tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    model = two_layers()
    graph = onnx_backend.export_onnx(model, plain_tokenizer, first_token=False)
    assert onnx_products_of_one_token(graph) == 0
    path = onnx_backend.save_onnx(graph, tmp_path / "model.onnx")
    assert_equal_to_torch(lambda inputs: run_onnx(path, inputs), model)


@needs_openvino
def test_openvino_of_all_tokens(plain_tokenizer: BertTokenizerFast) -> None:
    model = two_layers()
    graph = openvino_backend.export_openvino(model, plain_tokenizer, first_token=False)
    assert openvino_products_of_one_token(graph, random_inputs(7, 17)) == 0
    run = run_openvino(graph)
    assert_equal_to_torch(lambda inputs: run(inputs)[0], model)
