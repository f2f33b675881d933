"""From a model and data to plans: calibration, budgets, where time is measured, and the plans found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FFN, HEADS, LAYERS, WORDS, make_pico, stock_plan, uneven_plan
from torch import Tensor
from transformers import BertTokenizerFast

from hfcompress.data.also import load_also
from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData, Split
from hfcompress.errors import DataError, PlanError
from hfcompress.models.macs import encoder_macs
from hfcompress.models.surgery import apply_plan, current_plan
from hfcompress.pruning import find_plans as find_plans_module
from hfcompress.pruning.calibration import Calibration
from hfcompress.pruning.costs.latency import Deployment
from hfcompress.pruning.costs.table import CostTable
from hfcompress.pruning.find_plans import FoundPlans, budget_of, deployment_of, describe, find_plans, latency_pairs
from hfcompress.pruning.search.calibration_loss import CalibrationLoss
from hfcompress.pruning.search.free import search_free
from hfcompress.quantization.config import OpenVINOQuantizationConfig
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import DataStep, LongDocuments, OnnxRuntimeInt8, OpenVinoInt8, PruneStep, Target
from hfcompress.utils.log import lines_to

QUICK: dict[str, Any] = {"calibration_queries": 12, "search_steps": 3, "ffn_multiple": 8}
SECONDS = CostTable(
    "seconds per document", 1e-3, {0: 0.0, 4: 4e-3}, {0: 0.0, 64: 8e-3}, {0: 0.0, 4: 1e-3}, {0: 0.0, 64: 2e-3}
)


def run(
    data: RankingData,
    tokenizer: BertTokenizerFast,
    targets: list[Target],
    model: Any = None,
    deployment: Deployment | None = None,
    **settings: Any,
) -> FoundPlans:
    step = PruneStep.of({**QUICK, **settings, **dict(targets[:1])})
    model = model or make_pico()
    return find_plans(
        model,
        tokenizer,
        data,
        step,
        targets,
        deployment=deployment or Deployment(),
        max_length=32,
        seed=0,
        progress=False,
    )


@pytest.fixture(scope="module")
def found_plans(word_data: RankingData, tokenizer: BertTokenizerFast) -> FoundPlans:
    """Plans for 0.4 of the MACs, which several tests look at."""
    torch.set_num_threads(1)
    return run(word_data, tokenizer, [("target_macs", 0.4)])


# Calibration


def queries_of(batches: list[dict[str, Tensor]], tokenizer: BertTokenizerFast) -> list[str]:
    """The query of every list, in order."""
    found = []
    for batch in batches:
        start = 0
        for size in batch["list_mask"].sum(1).tolist():
            rows = batch["input_ids"][start : start + size].tolist()
            (query,) = {tokenizer.decode(row[1 : row.index(tokenizer.sep_token_id)]) for row in rows}
            found.append(query)
            start += size
    return found


def test_no_query_is_for_both_fitting_and_comparison(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    calibration = Calibration(word_data, RankingCollator(tokenizer, 32), 20, seed=0)
    fitting, held_out = (queries_of(batches, tokenizer) for batches in (calibration.fitting, calibration.held_out))
    assert len(set(fitting)) == len(fitting) and len(set(held_out)) == len(held_out)
    assert not set(fitting) & set(held_out)
    assert len(fitting) + len(held_out) == 20 and 4 <= len(held_out) <= 10
    assert {*fitting, *held_out} <= {word_data.queries[query] for query in word_data.splits["train"].candidates}
    assert queries_of(calibration.by_query, tokenizer) == fitting
    assert all(len(batch["list_mask"]) == 1 for batch in calibration.by_query)
    assert all(batch["list_mask"].shape[1] == 8 for batch in calibration.fitting)
    assert all(batch["list_mask"].shape[1] == 6 for batch in calibration.held_out)  # what the first stage found


def test_half_of_the_queries_are_of_additional_texts(
    word_data: RankingData, tokenizer: BertTokenizerFast, tmp_path: Path
) -> None:
    lines = [" ".join(WORDS[number : number + 5]) for number in range(40)]
    (tmp_path / "other.txt").write_text("\n".join(lines))
    also = load_also([str(tmp_path / "other.txt")], DataStep(sets=["words"], candidates=6), 20, 0, progress=False)
    collate = RankingCollator(tokenizer, 32)
    both = Calibration(word_data, collate, 20, 0, also)
    for batches in (both.fitting, both.held_out):
        queries = queries_of(batches, tokenizer)
        assert len(queries) == 10 and sum(query in lines for query in queries) == 5
    assert not any(query in lines for query in queries_of(both.by_query, tokenizer))  # Fisher information needs labels
    step, options = PruneStep(heads=0.5, calibration_queries=12), {"deployment": Deployment(), "max_length": 32}
    losses = [
        find_plans(make_pico(), tokenizer, word_data, step, [], **options, seed=0, progress=False, also=texts)
        for texts in (None, also)
    ]
    assert losses[0].plans[0].loss != losses[1].plans[0].loss


@pytest.mark.parametrize("queries", [2, 3])
def test_the_fewest_queries_still_do_both(word_data: RankingData, tokenizer: BertTokenizerFast, queries: int) -> None:
    calibration = Calibration(word_data, RankingCollator(tokenizer, 32), queries, seed=0)
    assert len(queries_of(calibration.fitting, tokenizer)) == queries - 1
    assert len(queries_of(calibration.held_out, tokenizer)) == 1


def with_train(data: RankingData, split: Split | None) -> RankingData:
    others = {name: other for name, other in data.splits.items() if name != "train"}
    return replace(data, splits={**others, **({"train": split} if split else {})})


def test_too_few_calibration_queries(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    train = word_data.splits["train"]
    one = with_train(word_data, Split({"q0": train.qrels["q0"]}, {"q0": train.candidates["q0"]}))
    unjudged = with_train(word_data, Split({"q0": train.qrels["q0"]}, train.candidates))
    for data in (one, unjudged):
        with pytest.raises(DataError, match=r"too few calibration queries\. Got: 1\. Expected: at least 2"):
            run(data, tokenizer, [("target_macs", 0.5)])
    with pytest.raises(DataError, match="'train'"):
        run(with_train(word_data, None), tokenizer, [("target_macs", 0.5)])
    with pytest.raises(DataError, match="too few calibration pairs"):
        run(word_data, tokenizer, [("target_macs", 0.5)], calibration_queries=2, model=make_pico(intermediate_size=512))


# Budgets and where they are measured


@pytest.mark.parametrize(
    ("target", "budget"),
    [
        (("target_speedup", 2.5), 0.4),
        (("target_latency_ms", 50.0), 0.0025),
        (("target_macs", 0.25), 0.25),
        (("target_parameters", 0.7), 0.7),
    ],
)
def test_budgets(target: Target, budget: float) -> None:
    assert budget_of(target, dense_cost=1.0, documents=20) == pytest.approx(budget)


STATIC, OPENVINO = OnnxRuntimeInt8(mode="static"), OpenVinoInt8(smooth_quant_alpha=-1)


@pytest.mark.parametrize(
    ("runtime", "artifacts", "expected"),
    [
        ("auto", [STATIC, OPENVINO], ("onnxruntime", "int8-static")),
        ("auto", [OPENVINO, STATIC], ("openvino", "int8-static")),
        ("auto", [], ("torch", None)),
        ("openvino", [STATIC, OPENVINO], ("openvino", "int8-static")),
        ("onnxruntime", [OPENVINO, STATIC], ("onnxruntime", "int8-static")),
        ("onnxruntime", [OPENVINO], ("onnxruntime", "int8-dynamic")),
        ("openvino", [], ("openvino", "int8-static")),
        ("torch", [STATIC, OPENVINO], ("torch", None)),
    ],
)
def test_time_is_measured_where_the_model_will_run(
    runtime: str, artifacts: list[Any], expected: tuple[str, str | None]
) -> None:
    step = PruneStep.of({"target_speedup": 2, "runtime": runtime})
    options = RankerOptions(1, 512, long_documents=LongDocuments(mode="chunk"))
    deployment = deployment_of(step, artifacts, options, 20)
    quantization = deployment.quantization
    assert (deployment.runtime, quantization and quantization.precision) == expected
    assert deployment.options == options and deployment.documents_per_request is None
    if runtime == "openvino" and OPENVINO in artifacts:
        assert isinstance(quantization, OpenVINOQuantizationConfig) and quantization.smooth_quant_alpha == -1


def test_a_latency_is_that_of_a_query_with_its_documents() -> None:
    for settings in ({"target_latency_ms": 20}, {"target_speedup": 2, "speed": "latency"}):
        assert deployment_of(PruneStep.of(settings), [], RankerOptions(), 50).documents_per_request == 50


def test_latency_is_measured_on_whole_queries_of_train(word_data: RankingData) -> None:
    train = word_data.splits["train"].candidates
    pairs = latency_pairs(word_data, 10)
    (first, documents), (second, more), *_ = train.items()
    expected = [(first, document) for document in documents] + [(second, document) for document in more]
    assert pairs == [(word_data.queries[query], word_data.corpus[document].content) for query, document in expected]
    assert len(latency_pairs(word_data, 10**6)) == sum(map(len, train.values()))


# Plans


def test_plans_meet_their_targets_and_the_model_stays(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model = make_pico()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lines: list[str] = []
    targets: list[Target] = [("target_macs", 0.3), ("target_macs", 0.6)]
    with lines_to(lines.append):
        result = run(word_data, tokenizer, targets, model)
    assert [found.target for found in result.plans] == targets
    for found, (_, share) in zip(result.plans, targets, strict=True):
        assert found.macs_kept <= share
        assert found.macs_kept == encoder_macs(model.config, found.plan) / encoder_macs(
            model.config, current_plan(model)
        )
        assert (found.seconds, found.dense_seconds, found.speedup) == (None, None, None)
        pruned = apply_plan(make_pico(), found.plan, found.weights)
        assert current_plan(pruned) == found.plan
        assert f"{len(found.plan.layers)} of 4 layers" in describe(found) and "faster" not in describe(found)
    assert result.plans[0].macs_kept < result.plans[1].macs_kept
    assert result.importance.method == "obs"
    assert all(": done in " in line for line in lines)
    assert current_plan(model).is_full
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_loss_is_that_of_the_weights_on_held_out_queries(
    word_data: RankingData, tokenizer: BertTokenizerFast, found_plans: FoundPlans
) -> None:
    (found,) = found_plans.plans
    calibration = Calibration(word_data, RankingCollator(tokenizer, 32), 12, seed=0)
    plan_loss = CalibrationLoss(make_pico(), calibration.held_out, found_plans.importance.weights)
    assert plan_loss(found.plan, found.weights) == pytest.approx(found.loss, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("importance", ["fisher", "magnitude"])
def test_other_importances_update_no_weights(
    word_data: RankingData, tokenizer: BertTokenizerFast, importance: str
) -> None:
    result = run(word_data, tokenizer, [("target_macs", 0.5)], importance=importance)
    (found,) = result.plans
    assert result.importance.method == importance
    assert found.weights == {} and not found.sequential and found.macs_kept <= 0.5


def test_the_sequential_update_is_kept_only_if_the_loss_is_lower(
    word_data: RankingData,
    tokenizer: BertTokenizerFast,
    found_plans: FoundPlans,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target: list[Target] = [("target_macs", 0.4)]
    (once,) = run(word_data, tokenizer, target, sequential=False).plans
    assert not once.sequential
    (updated,) = found_plans.plans
    assert updated.plan == once.plan and updated.loss <= once.loss
    assert updated.sequential is (updated.loss < once.loss)

    def worse(_model: Any, _plan: Any, weights: dict[str, Tensor], *_: Any, **__: Any) -> dict[str, Tensor]:
        return {name: -5 * tensor for name, tensor in weights.items()}

    monkeypatch.setattr(find_plans_module, "sequential_update", worse)
    (kept,) = run(word_data, tokenizer, target).plans
    assert not kept.sequential and kept.loss == once.loss
    assert all(torch.equal(tensor, once.weights[name]) for name, tensor in kept.weights.items())


def test_explicit_shares_are_not_searched(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    lines: list[str] = []
    with lines_to(lines.append):
        (found,) = run(word_data, tokenizer, [], heads=0.5, ffn=0.25, spread="uniform").plans
    assert [line.split(":")[0] for line in lines] == ["importance"]
    assert found.target is None and found.speedup is None
    assert [(len(layer.heads), len(layer.ffn)) for layer in found.plan.layers] == [(HEADS // 2, FFN // 4)] * LAYERS
    assert found.loss > 0 and found.weights


def test_targets_of_time_are_predicted_from_the_table(
    word_data: RankingData, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def measured(config: Any, _tokenizer: Any, pairs: Any, deployment: Deployment, **settings: Any) -> CostTable:
        asked.append((config.model_type, len(pairs), deployment.runtime, settings["ffn_multiple"]))
        return SECONDS

    monkeypatch.setattr(find_plans_module, "measure_costs", measured)
    dense = SECONDS.of_plan(current_plan(make_pico()))
    targets: list[Target] = [("target_speedup", 2.0), ("target_speedup", 4.0)]
    for found, (_, speedup) in zip(run(word_data, tokenizer, targets).plans, targets, strict=True):
        assert found.speedup is not None and found.speedup >= speedup * (1 - 1e-9)
        assert found.seconds == SECONDS.of_plan(found.plan) and found.dense_seconds == dense
        assert f"predicted {found.speedup:.2f}x faster" in describe(found)
    deployment = Deployment(documents_per_request=6)
    (found,) = run(word_data, tokenizer, [("target_latency_ms", 120.0)], deployment=deployment).plans
    assert found.seconds is not None and 0.7 * 0.02 < found.seconds <= 0.02  # a sixth of 120 ms
    assert asked == [("bert", 240, "torch", 8)] * 2


def test_single_cuts_are_measured_on_every_second_held_out_query(
    word_data: RankingData, tokenizer: BertTokenizerFast, found_plans: FoundPlans, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def search(*inputs: Any, estimate: CalibrationLoss, **settings: Any) -> list[Any]:
        asked.append((len(inputs[-1].mask), len(estimate.mask)))
        return search_free(*inputs, estimate=estimate, **settings)

    monkeypatch.setattr(find_plans_module, "search_free", search)
    (found,) = run(word_data, tokenizer, [("target_macs", 0.4)]).plans
    assert asked == [(6, 3)] and found.plan == found_plans.plans[0].plan


def test_parameters_are_those_of_the_pruned_model(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    (found,) = run(word_data, tokenizer, [("target_parameters", 0.55)]).plans
    dense, pruned = make_pico(), apply_plan(make_pico(), found.plan, found.weights)
    share = pruned.num_parameters() / dense.num_parameters()
    assert 0.5 < share <= 0.55


def test_stock_structure(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    targets: list[Target] = [("target_macs", 0.3), ("target_macs", 0.6)]
    result = run(word_data, tokenizer, targets, structure="stock")
    for found, (_, share) in zip(result.plans, targets, strict=True):
        assert found.plan.is_stock and found.macs_kept <= share
    uneven = apply_plan(make_pico(), uneven_plan())
    with pytest.raises(PlanError, match="uneven layers already"):
        run(word_data, tokenizer, targets[:1], uneven, structure="stock")


def test_pruned_models_are_pruned_further(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    for first, settings in ((uneven_plan(), {}), (stock_plan(), {"structure": "stock"})):
        model = apply_plan(make_pico(), first)
        (found,) = run(word_data, tokenizer, [("target_macs", 0.6)], model, **settings).plans
        found.plan.local(first)  # all of it is still there
        assert 0 < found.macs_kept <= 0.6
        assert current_plan(apply_plan(model, found.plan, found.weights)) == found.plan


def test_notes_about_damping_are_logged(
    word_data: RankingData, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = find_plans_module.measure_importance
    monkeypatch.setattr(
        find_plans_module, "measure_importance", lambda *given: replace(original(*given), notes=("H was raised",))
    )
    lines: list[str] = []
    with lines_to(lines.append):
        run(word_data, tokenizer, [("target_macs", 0.5)])
    assert [line for line in lines if ": done in " not in line] == ["prune: H was raised"]


def test_a_target_out_of_reach(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    with pytest.raises(PlanError, match=r"beyond reach.*1000\.00 times less than now.*32\.00 times less"):
        run(word_data, tokenizer, [("target_macs", 0.001)])


def test_the_seed_decides(word_data: RankingData, tokenizer: BertTokenizerFast, found_plans: FoundPlans) -> None:
    (first,), (second,) = found_plans.plans, run(word_data, tokenizer, [("target_macs", 0.4)]).plans
    assert (first.plan, first.loss) == (second.plan, second.loss)
    assert all(torch.equal(tensor, second.weights[name]) for name, tensor in first.weights.items())
