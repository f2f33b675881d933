"""Sizes of models by their configs, and the activations that a backward pass keeps."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import FAMILIES, FAMILIES_AND_VARIANTS, HIDDEN, make_pico, random_inputs, uneven_plan
from torch import Tensor
from transformers import PreTrainedModel

from hfcompress.models.architectures import encoder_layers, input_embedding
from hfcompress.models.size import ModelSize
from hfcompress.models.surgery import apply_plan
from hfcompress.training.fit import set_dropout

PAIRS, LENGTH = 8, 40


@pytest.mark.parametrize(("family", "changes"), FAMILIES_AND_VARIANTS)
def test_sizes_by_a_config_are_those_of_the_model(family: str, changes: dict[str, object]) -> None:
    model = make_pico(family, **changes)
    for each in (model, apply_plan(make_pico(family, **changes), uneven_plan())):
        config = copy.deepcopy(each.config.to_dict())
        size = ModelSize.of(each.config)
        assert size.parameters == each.num_parameters()
        assert size.embedding == input_embedding(each).weight.numel()
        assert size.layers == tuple(
            sum(parameter.numel() for parameter in layer.parameters()) for layer in encoder_layers(each)
        )
        assert each.config.to_dict() == config
    assert (HIDDEN, 64) in ModelSize.of(model.config).columns
    assert any(0 in layer for layer in size.columns)  # a sublayer of the pruned one has no inputs


def test_the_size_of_a_student() -> None:
    size = ModelSize.of(make_pico().config)
    same, half = size.pruned(1.0, True), size.pruned(0.5, False)
    assert same == size and size.weights == 4 * size.parameters
    assert half.parameters == size.parameters - size.embedding - size.encoder // 2
    assert half.columns == ((HIDDEN // 2, 32),) * 4 and half.embedding == 0
    assert half.activations(PAIRS, LENGTH) < size.activations(PAIRS, LENGTH)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_those_that_a_backward_pass_keeps(family: str, dropout: float) -> None:
    model = make_pico(family, attention_probs_dropout_prob=dropout, attention_dropout=dropout).train()
    set_dropout(model, dropout)
    kept = kept_bytes(model, random_inputs(PAIRS, LENGTH))
    assert 0.7 < kept / ModelSize.of(model.config).activations(PAIRS, LENGTH, dropout > 0) < 1.3


def kept_bytes(model: PreTrainedModel, inputs: dict[str, Tensor]) -> int:
    """Bytes of all tensors that autograd keeps for the backward pass of a model, without its weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = model(**inputs).logits
    assert scores.requires_grad
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in own)
