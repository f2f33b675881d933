"""Everything that prunes runs where the model is: a mixed operation raises on the pretend device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import EVERY_FAMILY, make_pico, uneven_plan
from pretend_device import pretend_device, reads
from transformers import BertTokenizerFast, PreTrainedModel

from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData
from hfcompress.models.surgery import current_plan, pruned_copy
from hfcompress.pruning.calibration import Calibration
from hfcompress.pruning.costs.latency import Deployment
from hfcompress.pruning.find_plans import find_plans
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.importance.margins import margin_gradients
from hfcompress.pruning.importance.obs import obs
from hfcompress.pruning.importance.scores import fisher, magnitude
from hfcompress.pruning.importance.sequential import sequential_update
from hfcompress.pruning.search.calibration_loss import CalibrationLoss
from hfcompress.quantization.export import ready_for_export
from hfcompress.recipe import PruneStep


@pytest.fixture
def calibration(word_data: RankingData, tokenizer: BertTokenizerFast) -> Calibration:
    return Calibration(word_data, RankingCollator(tokenizer, 32), queries=10, seed=0)


def by_obs(model: PreTrainedModel, calibration: Calibration) -> Importance:
    gradients = margin_gradients(model, calibration.fitting, progress=False)
    return obs(model, calibration.fitting, gradients, progress=False)


METHODS: dict[str, Callable[[PreTrainedModel, Calibration], Importance]] = {
    "magnitude": lambda model, _: magnitude(model),
    "fisher": lambda model, calibration: fisher(model, calibration.by_query, progress=False),
    "obs": by_obs,
}


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_importance_on_a_device_is_that_on_the_cpu(family: str, calibration: Calibration) -> None:
    require_same_importance(family, "obs", calibration)


@pytest.mark.parametrize("method", ["magnitude", "fisher"])
def test_other_importance_on_a_device_is_that_on_the_cpu(method: str, calibration: Calibration) -> None:
    require_same_importance("modernbert", method, calibration)


def require_same_importance(family: str, method: str, calibration: Calibration) -> None:
    wanted = METHODS[method](make_pico(family), calibration)
    with pretend_device() as device:
        model = make_pico(family).to(device)
        found = METHODS[method](model, calibration)
        weights = {name: tensor.cpu() for name, tensor in found.weights(uneven_plan()).items()}
    for one, other in zip([*found.heads, *found.ffn], [*wanted.heads, *wanted.ffn], strict=True):
        assert one.device.type == "cpu"  # the search asks for single values many times
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    for name, tensor in wanted.weights(uneven_plan()).items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_losses_and_the_sequential_update_on_a_device(family: str, calibration: Calibration) -> None:
    def figures(model: PreTrainedModel) -> tuple[list[float], dict[str, torch.Tensor]]:
        importance = by_obs(model, calibration)
        plan_loss = CalibrationLoss(model, calibration.held_out, importance.weights)
        plan_loss.cache_layers(current_plan(model))
        weights = sequential_update(
            model, uneven_plan(), importance.weights(uneven_plan()), calibration.fitting, progress=False
        )
        losses = [plan_loss(uneven_plan()), plan_loss(uneven_plan(), weights), plan_loss.of_queries(2)(uneven_plan())]
        pruned = pruned_copy(model, uneven_plan(), weights)
        assert pruned.device == model.device
        return losses, {name: tensor.cpu() for name, tensor in weights.items()}

    wanted, wanted_weights = figures(make_pico(family))
    with pretend_device() as device:
        found, weights = figures(make_pico(family).to(device))
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)
    for name, tensor in wanted_weights.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-3)


def test_a_whole_search_on_a_device_finds_the_plan_of_the_cpu(
    word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    step = PruneStep(target_macs=0.5, calibration_queries=8, search_steps=1, ffn_multiple=8)

    def search(model: PreTrainedModel) -> object:
        (found,) = find_plans(
            model,
            tokenizer,
            word_data,
            step,
            [("target_macs", 0.5)],
            deployment=Deployment(),
            max_length=32,
            seed=0,
            progress=False,
        ).plans
        return found.plan

    wanted = search(make_pico())
    with pretend_device() as device:
        assert search(make_pico().to(device)) == wanted
        evaluated = reads["copies"]
    assert 0 < evaluated < 2000


def test_an_export_leaves_the_model_where_it_is() -> None:
    with pretend_device() as device:
        model = make_pico().to(device)
        with ready_for_export(model, first_token=True) as ready:
            assert ready.device.type == "cpu"
        assert model.device == device
