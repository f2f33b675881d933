"""Rounds of short recoveries with successive halving, and the choice of a pruned model for the full recovery."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hfcompress import pipeline
from hfcompress.compress import budget
from hfcompress.compress.bm25_teacher import add_bm25_teacher
from hfcompress.compress.budget import RecoverySize, TimeBudget
from hfcompress.compress.choose import DeploymentForm, missing_speedup
from hfcompress.compress.context import CompressContext, quality
from hfcompress.compress.family import Family, FamilyMember, prune_family
from hfcompress.compress.general_text import add_general_text
from hfcompress.compress.halving import fastest_to_pass, survivors
from hfcompress.compress.recoveries import measured_rate, recovery, short_recovery
from hfcompress.errors import PlanError
from hfcompress.evaluation.power import POWER, deviation_of, expected_verdict, pass_probability
from hfcompress.report.delta import Delta
from hfcompress.report.report import Artifact
from hfcompress.steps.workspace import StepFolder

logger = logging.getLogger(__name__)

CORRECTION = 1.03  # of a speed that was measured too low
NEAR = 0.02  # calibration loss; about that of plain int8 of unpruned models


@dataclass(frozen=True)
class Choice:
    """How far to prune and how to recover.

    Attributes:
        member: The pruned model.
        recovery: Size of the recovery; no lists for none.
        stages: Stages of pruning and recovery.
    """

    member: FamilyMember
    recovery: RecoverySize
    stages: int = 1

    @property
    def pruning_speedup(self) -> float:
        """Target speed-up by pruning."""
        return self.member.pruning_speedup


def search(
    context: CompressContext, pruning_speedups: tuple[float, ...], teacher: Artifact, form: DeploymentForm
) -> Choice:
    """Search a family, give its models short recoveries in rounds, and choose one for the full recovery."""
    add_general_text(context)
    add_bm25_teacher(context)
    family = _fast_enough(context, prune_family(context, pruning_speedups, teacher, form), teacher, form)
    models, queries = family.models, context.test_queries
    deltas = {speedup: model.delta for speedup, model in models.items()}
    if form.step is None:  # else it was logged for int8 alone
        least = min(deltas.values(), key=deviation_of)
        logger.info(f"verdict: {expected_verdict(least, queries, 'a pruned model')}")

    def as_it_is(speedup: float, reason: str) -> Choice:
        context.record_decision(models[speedup].label, f"chosen as it is: {reason}")
        return Choice(models[speedup], RecoverySize(0, 0))

    rates = {speedup: budget.pair_seconds(context.rate, model.macs_kept) for speedup, model in models.items()}
    if len(pruning_speedups) == 1 and (speedup := _near(models, context.goal.max_loss)):
        return as_it_is(speedup, f"as near to the teacher as int8 is (loss {models[speedup].calibration_loss:.3f})")
    if len(models) == 1 and context.own_lists >= budget.FEWEST_LISTS:
        (only,) = models.values()
        rates = {only.pruning_speedup: measured_rate(context, family, only)}
    time_budget = TimeBudget(context, family.fingerprint)
    size = time_budget.size(rates)
    if not size.lists:
        return as_it_is(fastest_to_pass(deltas, queries), "no time is left for a recovery")
    scored = _scored_lists(context, size)
    for number in range(budget.ROUNDS):
        short = 0 if len(deltas) == 1 else time_budget.short(number, [rates[speedup] for speedup in deltas], size)
        if not short:
            break
        for speedup in deltas:
            result = short_recovery(context, family, models[speedup], teacher, scored, short, size.documents)
            deltas[speedup], rates[speedup] = result.delta, result.pair_seconds
            name = f"{models[speedup].label}, {short} lists"
            ndcg = quality(teacher) + result.delta.mean
            context.record(name, "short recovery", speedup, ndcg, quality(teacher), result.seconds, delta=result.delta)
        kept = survivors(deltas, queries)
        for speedup, delta in deltas.items():
            decision = "kept" if speedup in kept else "dropped: another model is more promising"
            context.record_decision(
                f"{models[speedup].label}, {short} lists", f"{_expected(delta, queries)}: {decision}"
            )
        deltas = {speedup: deltas[speedup] for speedup in kept}
    speedup = fastest_to_pass(deltas, queries)
    stages, epochs = time_budget.stages(speedup, models[speedup].macs_kept, rates[speedup], size)
    if not epochs:
        return as_it_is(speedup, "no time is left for a recovery")
    _log_choice(context, models[speedup], deltas[speedup])
    return Choice(models[speedup], replace(size, epochs=epochs), stages)


def _fast_enough(context: CompressContext, family: Family, teacher: Artifact, form: DeploymentForm) -> Family:
    """The family; where the model for a target is measured to be too slow, one that is pruned further instead."""
    if not context.goal.has_target or len(family.models) > 1:
        return family
    (model,) = family.models.values()
    missing = missing_speedup(context.goal, model.artifact)
    if missing <= 1:
        return family
    further = round(CORRECTION * missing * model.pruning_speedup, 3)
    context.record_decision(model.label, f"too slow by {missing - 1:.0%} on dev: pruned {further:g}x instead")
    try:
        return prune_family(context, (further,), teacher, form, "corrected-family")
    except PlanError as error:
        logger.info(f"prune: {model.label} stays. {error}")
        return family


def _log_choice(context: CompressContext, model: FamilyMember, delta: Delta) -> None:
    """Log the model that gets the full recovery, and how likely it is to pass as it is."""
    probability = pass_probability(delta, context.test_queries)
    reason = "the plan for the target"
    if not context.goal.has_target and probability >= POWER:
        reason = f"the fastest plan that is expected to pass with at least {POWER:.0%}"
    elif not context.goal.has_target:
        reason = f"none is expected to pass with at least {POWER:.0%} before its full recovery, and this one is nearest"
    logger.info(f"choice: {model.label}, {reason} ({_expected(delta, context.test_queries)})")


def _expected(delta: Delta, queries: int) -> str:
    return (
        f"difference {delta.mean:+.4f} [{delta.ci_low:+.4f}, {delta.ci_high:+.4f}] on dev, expected to pass with a "
        f"probability of {pass_probability(delta, queries):.0%}"
    )


def _near(models: Mapping[float, FamilyMember], max_loss: float) -> float | None:
    """Speed-up of the fastest model that needs no recovery; None if there is none.

    Training also moves a model away from its teacher. If hardly anything was lost, there is little to recover, and
    training makes the difference to the teacher on single queries larger and harder to tell from the margin.
    """
    near = [
        speedup for speedup, model in models.items() if -model.delta.mean <= max_loss and model.calibration_loss <= NEAR
    ]
    return max(near, default=None)


def _scored_lists(context: CompressContext, size: RecoverySize) -> StepFolder:
    """Training lists with the teacher's scores, as the final run will use them, too."""
    recipe = recovery(context, replace(size, epochs=1))
    run = pipeline.RunContext(recipe, context.data, context.workspace, context.progress, context.also)
    return pipeline.score(run, pipeline.obtain_teacher(run))
