"""Pruning plans for one model and several targets: importance, costs and search, without any training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.data.also import AlsoTexts
from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData
from hfcompress.models.macs import encoder_macs
from hfcompress.models.plan import PruningPlan
from hfcompress.models.surgery import current_plan, needs_custom_code
from hfcompress.models.wrappers import unwrapped
from hfcompress.pruning.calibration import Calibration
from hfcompress.pruning.costs.latency import Deployment, measure_costs
from hfcompress.pruning.costs.table import CostTable, macs_table, parameter_table
from hfcompress.pruning.importance.importance import Importance
from hfcompress.pruning.importance.margins import MarginGradients, margin_gradients
from hfcompress.pruning.importance.obs import obs
from hfcompress.pruning.importance.scores import fisher, magnitude
from hfcompress.pruning.importance.sequential import sequential_update
from hfcompress.pruning.search.calibration_loss import CalibrationLoss
from hfcompress.pruning.search.explicit import plan_for_shares
from hfcompress.pruning.search.free import SearchResult, search_free
from hfcompress.pruning.search.levels import least_cost
from hfcompress.pruning.search.stock import search_stock
from hfcompress.quantization.config import (
    DynamicQuantizationConfig,
    OpenVINOQuantizationConfig,
    config_from_recipe,
)
from hfcompress.rankers.base import Pair, RankerOptions
from hfcompress.rankers.load import Runtime
from hfcompress.recipe import ArtifactStep, HalfPrecision, PackedWeights, PruneStep, Target
from hfcompress.utils.device import CPU
from hfcompress.utils.log import timed

logger = logging.getLogger(__name__)

LATENCY_PAIRS = 512
ESTIMATE_EVERY = 2  # losses of single cuts are measured on every second held-out query; every third was too few
TIME_TARGETS = ("target_speedup", "target_latency_ms")
DEFAULT_INT8 = {"onnxruntime": DynamicQuantizationConfig(), "openvino": OpenVINOQuantizationConfig()}


@dataclass(frozen=True)
class FoundPlan:
    """The plan found for one target, with its weights and what it is expected to cost and lose.

    Attributes:
        target: The target; None for explicit shares.
        plan: What is kept, in the numbering of the original model.
        weights: Weights after the least-squares update, by their names in the pruned model.
        loss: Divergence of the ranking from the dense model's, on held-out calibration queries.
        macs_kept: Share of the encoder's MACs per token that remains.
        seconds: Predicted seconds per document; None where the target is not a time.
        dense_seconds: The same for the model before pruning.
        sequential: Whether the weights come from the sequential update.
    """

    target: Target | None
    plan: PruningPlan
    weights: dict[str, Tensor]
    loss: float
    macs_kept: float
    seconds: float | None = None
    dense_seconds: float | None = None
    sequential: bool = False

    @property
    def speedup(self) -> float | None:
        """Predicted speed-up over the model before pruning."""
        return self.dense_seconds / self.seconds if self.seconds and self.dense_seconds else None


@dataclass(frozen=True)
class FoundPlans:
    """The result of one search over several targets.

    Attributes:
        importance: Importance of the heads and FFN neurons of the model.
        plans: One plan for each target.
    """

    importance: Importance
    plans: list[FoundPlan]


def find_plans(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: RankingData,
    step: PruneStep,
    targets: Sequence[Target],
    *,
    deployment: Deployment,
    max_length: int,
    seed: int,
    progress: bool = True,
    reachable_only: bool = False,
    also: AlsoTexts | None = None,
) -> FoundPlans:
    """Find a plan and weights for each target. The model is not changed.

    Args:
        model: The dense model, or a model that is pruned already.
        tokenizer: Its tokenizer.
        data: Data with a train split.
        step: How to prune.
        targets: Targets of one kind; none for the explicit shares of `step`. Without targets and shares, as when only
            the vocabulary is pruned, the plan keeps everything and no calibration data is read.
        deployment: Where and how the pruned models will run; used only for targets of time.
        max_length: Longest input in tokens.
        seed: Random seed.
        progress: Show progress bars.
        reachable_only: If some targets are reachable, skip those that are not, and log them.
        also: Additional texts, on which importance and search are computed too.

    Raises:
        DataError: The calibration data cannot be used.
        PlanError: A target is not reachable.
    """
    model = unwrapped(model)
    current = current_plan(model)
    if not (targets or step.has_shares):
        return FoundPlans(magnitude(model), [FoundPlan(None, current, weights={}, loss=0.0, macs_kept=1.0)])
    calibration = Calibration(data, RankingCollator(tokenizer, max_length), step.calibration_queries, seed, also)
    with timed("importance", logger):
        gradients = margin_gradients(model, calibration.fitting, seed, progress) if step.importance == "obs" else None
        importance = measure_importance(step.importance, model, calibration, gradients, progress)
        token_weights = gradients.tokens if gradients else None
        del gradients  # the directions of all sublayers, which only importance needs
    for note in importance.notes:
        logger.info(f"prune: {note}")
    plan_loss = CalibrationLoss(model, calibration.held_out, importance.weights)
    found: list[tuple[Target | None, SearchResult]] = []
    if targets:
        pairs = latency_pairs(data, LATENCY_PAIRS)
        with timed("costs", logger):
            table = cost_table(model, tokenizer, pairs, targets, deployment, step.ffn_multiple, progress)
        dense_cost, documents = table.of_plan(current), deployment.documents_per_request or 1
        if reachable_only:
            targets = _reachable(targets, table, current, documents)
        budgets = [budget_of(target, dense_cost, documents) for target in targets]
        estimate = plan_loss.of_queries(every=ESTIMATE_EVERY)
        search: Callable[..., list[SearchResult]] = partial(search_free, estimate=estimate, seed=seed)
        if step.structure == "stock":
            search = partial(search_stock, is_stock=lambda plan: not needs_custom_code(model.config, plan))
        with timed("search", logger):
            results = search(
                importance,
                current,
                table,
                budgets,
                plan_loss,
                ffn_multiple=step.ffn_multiple,
                steps=step.search_steps,
                progress=progress,
            )
        found += zip(targets, results, strict=True)
    else:
        plan, dense_cost = plan_for_shares(importance, current, step), 0.0
        found.append((None, SearchResult(plan, cost=0.0, loss=plan_loss(plan), trials=1)))
    plans = []
    for target, result in found:
        is_time = target is not None and target[0] in TIME_TARGETS
        pruned = FoundPlan(
            target=target,
            plan=result.plan,
            weights=importance.weights(result.plan),
            loss=result.loss,
            macs_kept=encoder_macs(model.config, result.plan) / encoder_macs(model.config, current),
            seconds=result.cost if is_time else None,
            dense_seconds=dense_cost if is_time else None,
        )
        if step.sequential and token_weights:
            updated = sequential_update(
                model, pruned.plan, pruned.weights, calibration.fitting, token_weights, progress=progress
            )
            loss = plan_loss(pruned.plan, updated)
            if loss < pruned.loss:  # the queries are held out: not each update generalizes
                pruned = replace(pruned, weights=updated, loss=loss, sequential=True)
        plans.append(pruned)
    return FoundPlans(importance, plans)


def deployment_of(
    step: PruneStep,
    artifacts: Sequence[ArtifactStep],
    options: RankerOptions,
    documents: int,
    first_token: bool = True,
) -> Deployment:
    """The runtime, precision and request size in which time is measured.

    Args:
        step: Names the runtime, or `auto` for that of the artifacts.
        artifacts: Artifacts to be made of the model; the first graph for the runtime is used, or model in 16 bits.
        options: Threads, batch size, how long documents are read, and the device of a model in PyTorch.
        documents: Candidates per query.
        first_token: Whether exports compute the last layer for the first token only.
    """
    forms = [artifact for artifact in artifacts if not isinstance(artifact, PackedWeights)]  # packed ones run in fp32
    first = next((artifact for artifact in forms if step.runtime in ("auto", artifact.runtime)), None)
    per_request = documents if step.speed == "latency" or step.target_latency_ms is not None else None
    if isinstance(first, HalfPrecision):
        return Deployment("torch", None, options, per_request, first_token, first.dtype)
    quantization = config_from_recipe(first) if first else DEFAULT_INT8.get(step.runtime)
    if quantization is None:
        return Deployment("torch", None, options, per_request, first_token)
    options = replace(options, device=CPU)
    return Deployment(cast(Runtime, quantization.runtime), quantization, options, per_request, first_token)


def measure_importance(
    method: str,
    model: PreTrainedModel,
    calibration: Calibration,
    gradients: MarginGradients | None = None,
    progress: bool = True,
) -> Importance:
    """Importance of heads and FFN neurons by `magnitude`, `fisher` or `obs`; only `obs` uses `gradients`."""
    if method == "magnitude":
        return magnitude(model)
    if method == "fisher":
        return fisher(model, calibration.by_query, progress)
    return obs(model, calibration.fitting, gradients, progress=progress)


def cost_table(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    pairs: Sequence[Pair],
    targets: Sequence[Target],
    deployment: Deployment,
    ffn_multiple: int,
    progress: bool = True,
) -> CostTable:
    """Costs in the unit of the targets, which are all of one kind."""
    kinds = {name for name, _ in targets}
    if kinds == {"target_macs"}:
        return macs_table(model.config, current_plan(model))
    if kinds == {"target_parameters"}:
        return parameter_table(model)
    return measure_costs(model.config, tokenizer, pairs, deployment, ffn_multiple=ffn_multiple, progress=progress)


def budget_of(target: Target, dense_cost: float, documents: int) -> float:
    """The largest cost that meets a target.

    Args:
        target: The target.
        dense_cost: Cost of the model before pruning, in the unit of the cost table.
        documents: Candidates per query.
    """
    name, value = target
    if name == "target_speedup":
        return dense_cost / value
    if name == "target_latency_ms":
        return value / 1000 / documents
    return dense_cost * value


def latency_pairs(data: RankingData, limit: int) -> list[Pair]:
    """All candidates of train queries, query by query, until there are at least `limit` pairs."""
    pairs: list[Pair] = []
    for query, documents in data.split("train", labelled=False).candidates.items():
        pairs += data.pairs(query, documents)
        if len(pairs) >= limit:
            break
    return pairs


def describe(found: FoundPlan) -> str:
    """Sizes, calibration loss and predicted speed-up of a found plan, in one line."""
    plan = found.plan
    heads = sum(len(layer.heads) for layer in plan.layers)
    neurons = sum(len(layer.ffn) for layer in plan.layers)
    parts = [
        f"keeps {len(plan.layers)} of {plan.layers_of} layers, {heads} heads, {neurons} FFN neurons, "
        f"{found.macs_kept:.0%} of the encoder's MACs",
        f"calibration loss {found.loss:.3g}",
    ]
    if found.speedup:
        parts.append(f"predicted {found.speedup:.2f}x faster")
    return "; ".join(parts)


def _reachable(targets: Sequence[Target], table: CostTable, current: PruningPlan, documents: int) -> Sequence[Target]:
    """The targets that some plan meets; all of them if no plan meets any, so that the search raises the error."""
    _, least = least_cost([len(layer.heads) for layer in current.layers], table)
    dense_cost = table.of_plan(current)
    reachable = [target for target in targets if budget_of(target, dense_cost, documents) >= least]
    if reachable and len(reachable) < len(targets):
        skipped = ", ".join(f"{target[1]:g}" for target in targets if target not in reachable)
        logger.info(
            f"prune: out of reach and left out: {skipped} (at most {dense_cost / least:.2f} times less than now)"
        )
    return reachable or targets
