"""Importance, search and surgery: from a trained reranker to a family of pruned ones, without any training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hfcompress.calibration import Calibration
from hfcompress.costs import CostTable, flops_table, parameter_table
from hfcompress.data.lists import RankingCollator
from hfcompress.data.ranking import RankingData
from hfcompress.importance.importance import Importance
from hfcompress.importance.margins import MarginGradients, margin_gradients
from hfcompress.importance.obs import obs
from hfcompress.importance.scores import fisher, magnitude
from hfcompress.importance.sequential import resettled
from hfcompress.latency import Deployment, measure_costs
from hfcompress.plan import PruningPlan
from hfcompress.progress import timed
from hfcompress.quantization.config import (
    DynamicQuantizationConfig,
    OpenVINOQuantizationConfig,
    config_from_recipe,
)
from hfcompress.rankers.base import Pair, RankerOptions
from hfcompress.rankers.load import Runtime
from hfcompress.recipe import ArtifactStep, PackedWeights, PruneStep, Target
from hfcompress.search.calibration import CalibrationLoss
from hfcompress.search.explicit import plan_for_budget
from hfcompress.search.family import Found, search_family
from hfcompress.search.levels import least_cost
from hfcompress.search.stock import search_stock
from hfcompress.surgery import current_plan, encoder_flops, needs_custom_code

LATENCY_PAIRS = 512
DEFAULT_INT8 = {"onnxruntime": DynamicQuantizationConfig(), "openvino": OpenVINOQuantizationConfig()}


@dataclass(frozen=True)
class Pruned:
    """A plan with all that goes with it.

    Attributes:
        target: What was asked for; None for explicit shares.
        plan: What is kept, in the numbering of the first teacher.
        weights: Settled weights, by their names in the pruned model.
        loss: Divergence of the ranking from the dense model's, on held-out calibration queries.
        flops_kept: Share of the encoder's multiply-adds a token.
        seconds: Predicted seconds a document; None where time was no target.
        dense_seconds: The same of the model before pruning.
        sequential: Whether the weights were settled layer by layer.
    """

    target: Target | None
    plan: PruningPlan
    weights: dict[str, Tensor]
    loss: float
    flops_kept: float
    seconds: float | None
    dense_seconds: float | None
    sequential: bool

    @property
    def speedup(self) -> float | None:
        """Predicted speed-up."""
        return self.dense_seconds / self.seconds if self.seconds and self.dense_seconds else None


@dataclass(frozen=True)
class Family:
    """What one search found.

    Attributes:
        importance: Importance of what the model had.
        members: One for each target.
    """

    importance: Importance
    members: list[Pruned]


def prune_family(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: RankingData,
    step: PruneStep,
    targets: Sequence[Target],
    deployment: Deployment,
    max_length: int,
    seed: int,
    say: Callable[[str], None],
    progress: bool = True,
    reachable_only: bool = False,
) -> Family:
    """Find plans and weights for one model and several targets; the model stays as it is.

    Args:
        model: The dense model, or one that has been pruned before.
        tokenizer: Its tokenizer.
        data: Data with a train split.
        step: How to prune.
        targets: What to reach; none for the explicit shares of `step`. Where there are no shares either, as for a
            vocabulary alone, the plan keeps everything and no pair is looked at.
        deployment: Where and how the pruned models will run; counts only for targets of time.
        max_length: Longest input in tokens.
        seed: Seed of everything random.
        say: Called with a line for the user.
        progress: Show progress bars.
        reachable_only: Leave out targets that are out of reach, saying so, if any is in reach.

    Raises:
        DataError: The calibration data cannot be used.
        PlanError: A target is out of reach.
    """
    current = current_plan(model)
    if not (targets or step.has_shares):
        return Family(magnitude(model), [Pruned(None, current, {}, 0.0, 1.0, None, None, sequential=False)])
    collate = RankingCollator(tokenizer, max_length)
    calibration = Calibration(data, collate, step.calibration_queries, seed)
    with timed("importance", say):
        gradients = margin_gradients(model, calibration.fitting, seed, progress) if step.importance == "obs" else None
        importance = measure_importance(step.importance, model, calibration, gradients, progress)
    for note in importance.notes:
        say(f"prune: {note}")
    loss_of = CalibrationLoss(model, calibration.judging, importance.weights)
    table = None
    if targets:
        pairs = latency_pairs(data, LATENCY_PAIRS)
        with timed("costs", say):
            table = cost_table(model, tokenizer, pairs, targets, deployment, step.ffn_multiple, progress)
        if reachable_only:
            targets = _within_reach(targets, table, current, deployment, say)
        with timed("search", say):
            found = _search(importance, current, table, targets, deployment, loss_of, step, seed, progress)
    else:
        plan = plan_for_budget(importance, current, step)
        found = [Found(plan, 0.0, loss_of(plan), 1)]
    members = []
    for number, result in enumerate(found):
        pruned = Pruned(
            targets[number] if targets else None,
            result.plan,
            importance.weights(result.plan),
            result.loss,
            encoder_flops(model.config, result.plan) / encoder_flops(model.config, current),
            result.cost if table and _is_time(targets[number]) else None,
            table.of_plan(current) if table and _is_time(targets[number]) else None,
            sequential=False,
        )
        if step.sequential and step.importance == "obs":
            pruned = _settled(model, pruned, calibration, gradients, loss_of, progress)
        members.append(pruned)
    return Family(importance, members)


def deployment_of(
    step: PruneStep,
    artifacts: Sequence[ArtifactStep],
    options: RankerOptions,
    documents: int,
    first_token: bool = True,
) -> Deployment:
    """Where the pruned model will run.

    Args:
        step: Names the runtime, or leaves it to the artefacts.
        artifacts: What will be made of the model; the first graph for the runtime counts.
        options: Threads and batch size.
        documents: Candidates of a query.
        first_token: Whether exports compute the last layer for the first token only.
    """
    graphs = [artifact for artifact in artifacts if not isinstance(artifact, PackedWeights)]  # which run in fp32
    fitting = [artifact for artifact in graphs if step.runtime in ("auto", artifact.runtime)]
    quantization = config_from_recipe(fitting[0]) if fitting else DEFAULT_INT8.get(step.runtime)
    runtime = cast(Runtime, quantization.runtime if quantization else "torch")
    timed = documents if step.speed == "latency" or step.target_latency_ms is not None else None
    return Deployment(runtime, quantization, options, timed, first_token)


def measure_importance(
    method: str,
    model: PreTrainedModel,
    calibration: Calibration,
    gradients: MarginGradients | None = None,
    progress: bool = True,
) -> Importance:
    """Importance of what a model has, by one of the methods of a recipe."""
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
    """The table in whose unit the targets are; all targets of a family are of one kind."""
    kinds = {name for name, _ in targets}
    if kinds == {"target_flops"}:
        return flops_table(model.config, current_plan(model))
    if kinds == {"target_parameters"}:
        return parameter_table(model)
    return measure_costs(model.config, tokenizer, pairs, deployment, ffn_multiple=ffn_multiple, progress=progress)


def budget_of(target: Target, dense: float, documents: int) -> float:
    """Largest cost that meets a target.

    Args:
        target: The target.
        dense: Cost of the model before pruning.
        documents: Candidates of a query.
    """
    name, value = target
    if name == "target_speedup":
        return dense / value
    if name == "target_latency_ms":
        return value / 1000 / documents
    return dense * value


def latency_pairs(data: RankingData, limit: int) -> list[Pair]:
    """Pairs like those to be ranked: all candidates of train queries, one query after the other."""
    pairs: list[Pair] = []
    for query, documents in data.split("train", labelled=False).candidates.items():
        pairs += data.pairs(query, documents)
        if len(pairs) >= limit:
            break
    return pairs


def _search(
    importance: Importance,
    current: PruningPlan,
    table: CostTable,
    targets: Sequence[Target],
    deployment: Deployment,
    loss_of: CalibrationLoss,
    step: PruneStep,
    seed: int,
    progress: bool,
) -> list[Found]:
    documents = deployment.documents_per_request or 1
    budgets = [budget_of(target, table.of_plan(current), documents) for target in targets]
    if step.structure == "stock":
        return search_stock(
            importance,
            current,
            table,
            budgets,
            loss_of,
            lambda plan: not needs_custom_code(loss_of.model.config, plan),
            step.ffn_multiple,
            step.search_steps,
            progress,
        )
    return search_family(
        importance, current, table, budgets, loss_of, step.ffn_multiple, step.search_steps, seed, progress
    )


def _within_reach(
    targets: Sequence[Target],
    table: CostTable,
    current: PruningPlan,
    deployment: Deployment,
    say: Callable[[str], None],
) -> list[Target]:
    """The targets that some plan meets; all of them if none is met, for the search to say what is."""
    _, least = least_cost([len(layer.heads) for layer in current.layers], table)
    documents = deployment.documents_per_request or 1
    dense = table.of_plan(current)
    met = [target for target in targets if budget_of(target, dense, documents) >= least]
    if met and len(met) < len(targets):
        left_out = ", ".join(f"{value:g}" for name, value in targets if (name, value) not in met)
        say(f"prune: out of reach and left out: {left_out} (at most {dense / least:.2f} times less than now)")
    return met or list(targets)


def _settled(
    model: PreTrainedModel,
    pruned: Pruned,
    calibration: Calibration,
    gradients: MarginGradients | None,
    loss_of: CalibrationLoss,
    progress: bool,
) -> Pruned:
    """Settle layer by layer, and keep that if held-out queries agree."""
    tokens = gradients.tokens if gradients else None
    weights = resettled(model, pruned.plan, pruned.weights, calibration.fitting, tokens, progress=progress)
    loss = loss_of(pruned.plan, weights)
    return replace(pruned, weights=weights, loss=loss, sequential=True) if loss < pruned.loss else pruned


def _is_time(target: Target) -> bool:
    return target[0] in ("target_speedup", "target_latency_ms")


def describe(member: Pruned) -> str:
    """What a plan keeps, in a line."""
    plan = member.plan
    heads = sum(len(layer.heads) for layer in plan.layers)
    neurons = sum(len(layer.ffn) for layer in plan.layers)
    parts = [
        f"keeps {len(plan.layers)} of {plan.layers_of} layers, {heads} heads, {neurons} FFN neurons, "
        f"{member.flops_kept:.0%} of the encoder's multiply-adds",
        f"calibration loss {member.loss:.3g}",
    ]
    if member.speedup:
        parts.append(f"predicted {member.speedup:.2f}x faster")
    return "; ".join(parts)
