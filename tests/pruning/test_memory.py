"""The estimate of pruning's memory, against the tensors that pruning holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import make_pico
from ranking_batches import batches_for
from torch import Tensor
from transformers import BertTokenizerFast

from hfcompress.data.ranking import RankingData
from hfcompress.models.size import ModelSize
from hfcompress.pruning.importance.margins import margin_gradients
from hfcompress.pruning.importance.obs import obs
from hfcompress.pruning.memory import pruning_memory


def test_second_moments_are_counted_exactly(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model, batches = make_pico(), batches_for("bert", word_data, tokenizer)
    gradients = margin_gradients(model, batches, progress=False)
    weights: Any = obs(model, batches, gradients, progress=False).weights
    held = [problem for row in weights.__self__.problems for problem in row]
    assert all(problem.metric is None for problem in held)
    size = ModelSize.of(model.config)
    estimate = pruning_memory(size, "obs", 32, 8)
    assert estimate.least == size.weights + sum(each.weight.nbytes + each.hessian.nbytes for each in held)
    assert estimate.peak > estimate.least


def test_gradients_of_a_batch_are_within_a_factor_of_two(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model, (batch, *_) = make_pico(), batches_for("bert", word_data, tokenizer)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        margin_gradients(model, [batch], progress=False)
    measured = sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in own)
    pairs, length = batch["input_ids"].shape
    estimate = ModelSize.of(model.config).activations(pairs, length)
    assert estimate / 2 < measured < estimate


@pytest.mark.parametrize("importance", ["obs", "fisher", "magnitude"])
def test_what_the_estimate_depends_on(importance: str) -> None:
    size = ModelSize.of(make_pico().config)
    usual = pruning_memory(size, importance, 128, 64)
    assert size.weights <= usual.least < usual.peak
    assert pruning_memory(size, importance, 512, 64).peak > usual.peak
    assert pruning_memory(replace(size, parameters=size.parameters + 10**6), importance, 128, 64).peak == (
        usual.peak + 4 * 10**6
    )
    assert ("importance to magnitude" in usual.remedy) == (importance == "obs")
