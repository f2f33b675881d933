"""From a model and data to a family of plans: calibration, budgets, where time is measured, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import FFN, HEADS, LAYERS, make_pico, stock_plan, uneven_plan
from torch import Tensor
from transformers import BertTokenizerFast

from hfcompress import pruning
from hfcompress.calibration import Calibration
from hfcompress.costs import CostTable
from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData, Split
from hfcompress.errors import DataError, PlanError
from hfcompress.latency import Deployment
from hfcompress.pruning import Family, budget_of, deployment_of, describe, latency_pairs, prune_family
from hfcompress.quantization.config import OpenVINOQuantizationConfig
from hfcompress.rankers.base import RankerOptions
from hfcompress.recipe import OnnxRuntimeInt8, OpenVinoInt8, PruneStep, Target
from hfcompress.surgery import apply_plan, current_plan, encoder_flops

QUICK: dict[str, Any] = {"calibration_queries": 12, "search_steps": 3, "ffn_multiple": 8}
SECONDS = CostTable(
    "seconds a document", 1e-3, {0: 0.0, 4: 4e-3}, {0: 0.0, 64: 8e-3}, {0: 0.0, 4: 1e-3}, {0: 0.0, 64: 2e-3}
)


def run(
    data: RankingData,
    tokenizer: BertTokenizerFast,
    targets: list[Target],
    model: Any = None,
    deployment: Deployment | None = None,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> Family:
    step = PruneStep.of({**QUICK, **settings, **dict(targets[:1])})
    model = model or make_pico()
    return prune_family(model, tokenizer, data, step, targets, deployment or Deployment(), 32, 0, say, progress=False)


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


def test_no_query_both_settles_weights_and_judges_plans(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    calibration = Calibration(word_data, RankingCollator(tokenizer, 32), 20, seed=0)
    fitting, judging = (queries_of(batches, tokenizer) for batches in (calibration.fitting, calibration.judging))
    assert len(set(fitting)) == len(fitting) and len(set(judging)) == len(judging)
    assert not set(fitting) & set(judging)
    assert len(fitting) + len(judging) == 20 and 4 <= len(judging) <= 10
    assert {*fitting, *judging} <= {word_data.queries[query] for query in word_data.splits["train"].candidates}
    assert queries_of(calibration.by_query, tokenizer) == fitting
    assert all(len(batch["list_mask"]) == 1 for batch in calibration.by_query)
    assert all(batch["list_mask"].shape[1] == 8 for batch in calibration.fitting)
    assert all(batch["list_mask"].shape[1] == 6 for batch in calibration.judging)  # what the first stage found


@pytest.mark.parametrize("queries", [2, 3])
def test_the_fewest_queries_still_do_both(word_data: RankingData, tokenizer: BertTokenizerFast, queries: int) -> None:
    calibration = Calibration(word_data, RankingCollator(tokenizer, 32), queries, seed=0)
    assert len(queries_of(calibration.fitting, tokenizer)) == queries - 1
    assert len(queries_of(calibration.judging, tokenizer)) == 1


def with_train(data: RankingData, split: Split | None) -> RankingData:
    others = {name: other for name, other in data.splits.items() if name != "train"}
    return replace(data, splits={**others, **({"train": split} if split else {})})


def test_too_few_calibration_queries(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    train = word_data.splits["train"]
    one = with_train(word_data, Split({"q0": train.qrels["q0"]}, {"q0": train.candidates["q0"]}))
    unjudged = with_train(word_data, Split({"q0": train.qrels["q0"]}, train.candidates))
    for data in (one, unjudged):
        with pytest.raises(DataError, match=r"too few calibration queries\. Got: 1\. Expected: at least 2"):
            run(data, tokenizer, [("target_flops", 0.5)])
    with pytest.raises(DataError, match="'train'"):
        run(with_train(word_data, None), tokenizer, [("target_flops", 0.5)])
    with pytest.raises(DataError, match="too few calibration pairs"):
        run(
            word_data, tokenizer, [("target_flops", 0.5)], calibration_queries=2, model=make_pico(intermediate_size=512)
        )


# Budgets and where they are measured


@pytest.mark.parametrize(
    ("target", "budget"),
    [
        (("target_speedup", 2.5), 0.4),
        (("target_latency_ms", 50.0), 0.0025),
        (("target_flops", 0.25), 0.25),
        (("target_parameters", 0.7), 0.7),
    ],
)
def test_budgets(target: Target, budget: float) -> None:
    assert budget_of(target, dense=1.0, documents=20) == pytest.approx(budget)


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
    deployment = deployment_of(step, artifacts, RankerOptions(1, 512), 20)
    quantization = deployment.quantization
    assert (deployment.runtime, quantization and quantization.precision) == expected
    assert deployment.options == RankerOptions(1, 512) and deployment.documents_per_request is None
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


# Families


def test_a_family_meets_its_targets_and_the_model_stays(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    model = make_pico()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said: list[str] = []
    targets: list[Target] = [("target_flops", 0.3), ("target_flops", 0.6)]
    family = run(word_data, tokenizer, targets, model, say=said.append)
    assert [member.target for member in family.members] == targets
    for member, (_, share) in zip(family.members, targets, strict=True):
        assert member.flops_kept <= share
        assert member.flops_kept == encoder_flops(model.config, member.plan) / encoder_flops(
            model.config, current_plan(model)
        )
        assert (member.seconds, member.dense_seconds, member.speedup) == (None, None, None)
        pruned = apply_plan(make_pico(), member.plan, member.weights)
        assert current_plan(pruned) == member.plan
        assert f"{len(member.plan.layers)} of 4 layers" in describe(member) and "faster" not in describe(member)
    assert family.members[0].flops_kept < family.members[1].flops_kept
    assert family.importance.method == "obs"
    assert all(": done in " in line for line in said)
    assert current_plan(model).is_full
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_loss_is_that_of_the_weights_on_the_queries_that_judge(
    word_data: RankingData, tokenizer: BertTokenizerFast
) -> None:
    family = run(word_data, tokenizer, [("target_flops", 0.4)])
    (member,) = family.members
    calibration = Calibration(word_data, RankingCollator(tokenizer, 32), 12, seed=0)
    loss_of = pruning.CalibrationLoss(make_pico(), calibration.judging, family.importance.weights)
    assert loss_of(member.plan, member.weights) == pytest.approx(member.loss, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("importance", ["fisher", "magnitude"])
def test_other_importances_leave_the_survivors_as_they_are(
    word_data: RankingData, tokenizer: BertTokenizerFast, importance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "resettled", None)  # settling is not for them
    family = run(word_data, tokenizer, [("target_flops", 0.5)], importance=importance)
    (member,) = family.members
    assert family.importance.method == importance
    assert member.weights == {} and not member.sequential and member.flops_kept <= 0.5


def test_settling_layer_by_layer_is_kept_only_if_it_judges_better(
    word_data: RankingData, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    target: list[Target] = [("target_flops", 0.4)]
    (once,) = run(word_data, tokenizer, target, sequential=False).members
    assert not once.sequential
    (settled,) = run(word_data, tokenizer, target).members
    assert settled.plan == once.plan and settled.loss <= once.loss
    assert settled.sequential is (settled.loss < once.loss)

    def worse(_model: Any, _plan: Any, weights: dict[str, Tensor], *_: Any, **__: Any) -> dict[str, Tensor]:
        return {name: -5 * tensor for name, tensor in weights.items()}

    monkeypatch.setattr(pruning, "resettled", worse)
    (kept,) = run(word_data, tokenizer, target).members
    assert not kept.sequential and kept.loss == once.loss
    assert all(torch.equal(tensor, once.weights[name]) for name, tensor in kept.weights.items())


def test_explicit_shares_are_not_searched(
    word_data: RankingData, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "search_family", None)
    (member,) = run(word_data, tokenizer, [], heads=0.5, ffn=0.25, spread="uniform").members
    assert member.target is None and member.speedup is None
    assert [(len(layer.heads), len(layer.ffn)) for layer in member.plan.layers] == [(HEADS // 2, FFN // 4)] * LAYERS
    assert member.loss > 0 and member.weights


def test_targets_of_time_are_predicted_from_the_table(
    word_data: RankingData, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def measured(config: Any, _tokenizer: Any, pairs: Any, deployment: Deployment, **settings: Any) -> CostTable:
        asked.append((config.model_type, len(pairs), deployment.runtime, settings["ffn_multiple"]))
        return SECONDS

    monkeypatch.setattr(pruning, "measure_costs", measured)
    dense = SECONDS.of_plan(current_plan(make_pico()))
    targets: list[Target] = [("target_speedup", 2.0), ("target_speedup", 4.0)]
    for member, (_, speedup) in zip(run(word_data, tokenizer, targets).members, targets, strict=True):
        assert member.speedup is not None and member.speedup >= speedup * (1 - 1e-9)
        assert member.seconds == SECONDS.of_plan(member.plan) and member.dense_seconds == dense
        assert f"predicted {member.speedup:.2f}x faster" in describe(member)
    deployment = Deployment(documents_per_request=6)
    (member,) = run(word_data, tokenizer, [("target_latency_ms", 120.0)], deployment=deployment).members
    assert member.seconds is not None and 0.7 * 0.02 < member.seconds <= 0.02  # a sixth of 120 ms
    assert asked == [("bert", 240, "torch", 8)] * 2


def test_parameters_count_what_is_left_in_truth(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    (member,) = run(word_data, tokenizer, [("target_parameters", 0.55)]).members
    dense, pruned = make_pico(), apply_plan(make_pico(), member.plan, member.weights)
    share = pruned.num_parameters() / dense.num_parameters()
    assert 0.5 < share <= 0.55


def test_stock_structure(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    targets: list[Target] = [("target_flops", 0.3), ("target_flops", 0.6)]
    family = run(word_data, tokenizer, targets, structure="stock")
    for member, (_, share) in zip(family.members, targets, strict=True):
        assert member.plan.is_stock and member.flops_kept <= share
    uneven = apply_plan(make_pico(), uneven_plan())
    with pytest.raises(PlanError, match="uneven layers already"):
        run(word_data, tokenizer, targets[:1], uneven, structure="stock")


def test_pruned_models_are_pruned_further(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    for first, settings in ((uneven_plan(), {}), (stock_plan(), {"structure": "stock"})):
        model = apply_plan(make_pico(), first)
        (member,) = run(word_data, tokenizer, [("target_flops", 0.6)], model, **settings).members
        member.plan.local(first)  # all of it is still there
        assert 0 < member.flops_kept <= 0.6
        assert current_plan(apply_plan(model, member.plan, member.weights)) == member.plan


def test_what_damping_did_is_said(
    word_data: RankingData, tokenizer: BertTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = pruning.measure_importance
    monkeypatch.setattr(
        pruning, "measure_importance", lambda *given: replace(original(*given), notes=("H was raised",))
    )
    said: list[str] = []
    run(word_data, tokenizer, [("target_flops", 0.5)], say=said.append)
    assert [line for line in said if ": done in " not in line] == ["prune: H was raised"]


def test_a_target_out_of_reach(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    with pytest.raises(PlanError, match=r"beyond reach.*1000\.00 times less than now.*32\.00 times less"):
        run(word_data, tokenizer, [("target_flops", 0.001)])


def test_the_seed_decides(word_data: RankingData, tokenizer: BertTokenizerFast) -> None:
    first, second = (run(word_data, tokenizer, [("target_flops", 0.4)]).members[0] for _ in range(2))
    assert (first.plan, first.loss) == (second.plan, second.loss)
    assert all(torch.equal(tensor, second.weights[name]) for name, tensor in first.weights.items())
