"""Unstructured and 2:4 sparsity: how many weights are zero, and which."""

from __future__ import annotations

import pytest
import torch
from conftest import FAMILIES, make_pico, uneven_plan

from hfcompress.models.sparsity import kept_weights, sparse_modules, sparsify, zero_share
from hfcompress.models.surgery import apply_plan, pruned_copy


def matrix(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_smallest_are_pruned(sparsity: float, share: float) -> None:
    weight = matrix(12, 20)
    kept = kept_weights(weight, "unstructured", sparsity, share)
    assert int((~kept).sum()) == round(share * sparsity * 240)
    if int((~kept).sum()) > 0:
        assert weight[~kept].abs().max() < weight[kept].abs().min()


@pytest.mark.parametrize("inputs", [1, 2, 3, 4, 8, 21, 22, 23])
def test_two_of_four(inputs: int) -> None:
    weight = matrix(6, inputs)
    kept = kept_weights(weight, "2:4", 0.5)
    for start in range(0, inputs, 4):
        part, mask = weight[:, start : start + 4].abs(), kept[:, start : start + 4]
        assert mask.sum(1).tolist() == [min(2, part.shape[1])] * 6
        least = part.masked_fill(~mask, torch.inf).amin(1)
        assert (part.masked_fill(mask, 0).amax(1) < least).all()


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_zero_weights_are_pruned_first_and_stay_pruned(pattern: str) -> None:
    weight, pruned = matrix(8, 16), torch.zeros(8, 16, dtype=torch.bool)
    for share in (0.25, 0.5, 0.75, 1.0):
        kept = kept_weights(weight, pattern, 0.5, share)
        assert int((~kept).sum()) == round(share * 64) and not (kept & pruned).any()
        assert torch.equal(kept, kept_weights(weight * kept, pattern, 0.5, share))  # so a checkpoint can be resumed
        weight, pruned = weight * kept * 1.5, ~kept
    even = torch.ones(8, 16)
    assert int(kept_weights(even, pattern, 0.5).sum()) == 64


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_models(family: str, pattern: str) -> None:
    model = make_pico(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    masks = sparsify(model, pattern, 0.5)
    assert masks.keys() == sparse_modules(model).keys() and zero_share(model) == pytest.approx(0.5, abs=1e-3)
    for name, tensor in model.state_dict().items():
        mask = masks.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        assert torch.equal(tensor, before[name] if mask is None else before[name] * mask), name
    assert not any("classifier" in name or "embeddings" in name for name in masks)


def test_a_copy_that_shares_memory_keeps_its_weights() -> None:
    model = make_pico()
    copy = pruned_copy(model, uneven_plan())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sparsify(copy, "2:4", 0.5)
    assert zero_share(copy) > 0.4 and all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert zero_share(apply_plan(model, uneven_plan())) == 0
