"""compress(model, data, out, goal): all decisions, from top to bottom.

Choices are made on dev; the test split is for the final verdict. Measurements and decisions are kept as steps of the
workspace, so that an interrupted call resumes. The deployed model comes from an ordinary recipe, which is written
beside it.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import set_seed

from hfcompress import pipeline
from hfcompress.card import write_card
from hfcompress.compress.alternative import find_alternative, offer
from hfcompress.compress.choose import DeploymentForm, choose_form, measure_unpruned, pruning_speedups
from hfcompress.compress.context import CALIBRATION_PAIRS, CompressContext, quality
from hfcompress.compress.final import confirmed, final_recipe, keep_plan
from hfcompress.compress.goal import Goal
from hfcompress.compress.long_documents import advise
from hfcompress.compress.prepare import prepare, set_margin
from hfcompress.compress.rounds import Choice, search
from hfcompress.compress.trials import Stage, Trial, save, trials_figure
from hfcompress.data.score_text import score_text_of
from hfcompress.errors import PlanError
from hfcompress.models.layout import FORMER_TRIALS_FILES, RECIPE_FILE, TRIALS_FIGURE, TRIALS_FILE
from hfcompress.models.load import load_config, resolve
from hfcompress.rankers.load import ranking_tokenizer
from hfcompress.recipe import (
    TRUNCATED,
    DataStep,
    EvaluateStep,
    LongDocuments,
    PublishStep,
    QuantizeStep,
    Recipe,
    TeacherStep,
)
from hfcompress.report.delta import Delta
from hfcompress.report.report import Artifact, RunReport
from hfcompress.steps.workspace import Workspace
from hfcompress.utils.files import write_bytes, write_text
from hfcompress.utils.machine import limited_torch_threads
from hfcompress.utils.text import duration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Result of `compress`.

    Attributes:
        goal: The goal.
        report: Report of the final run.
        chosen: The artifact to deploy, from that report.
        trials: All trials, in order.
        alternative: Folder with the model of `report.would_pass`; None if there is none, or it has to be made first.
    """

    goal: Goal
    report: RunReport
    chosen: Artifact
    trials: list[Trial]
    alternative: Path | None = None

    @property
    def delta(self) -> Delta:
        """Difference to the teacher on the test split, with its verdict."""
        assert self.chosen.delta is not None
        return self.chosen.delta

    @property
    def fast_enough(self) -> bool:
        """Whether the measured speed meets the target."""
        if self.goal.target_speedup is not None:
            return self.chosen.speedup >= self.goal.target_speedup
        if self.goal.target_latency_ms is not None:
            return self.chosen.latency.p50_ms <= self.goal.target_latency_ms
        return True

    @property
    def small_enough(self) -> bool:
        """Whether the artifact is at most as large as asked for."""
        return self.goal.fits(self.chosen.size_bytes)

    @property
    def reached(self) -> bool:
        """Whether the goal was reached: fast enough, small enough, and non-inferior to the teacher."""
        return self.fast_enough and self.small_enough and self.delta.decision == "non-inferior"

    def to_json(self) -> str:
        """The outcome with all trials and the report, as JSON."""
        trials = [each.model_dump(mode="json") for each in self.trials]
        outcome = {
            "reached": self.reached,
            "fast_enough": self.fast_enough,
            "small_enough": self.small_enough,
            "chosen": self.chosen.name,
            "would_pass": self.report.would_pass.model_dump(mode="json") if self.report.would_pass else None,
            "alternative": self.alternative.name if self.alternative else None,
            "trials": trials,
            "tried": trials,  # deprecated name
            "report": self.report.model_dump(mode="json"),
        }
        return json.dumps(outcome, indent=2)


@limited_torch_threads()
def compress(
    model: str,
    sets: Sequence[str],
    out: Path,
    goal: Goal,
    max_length: int | None = None,
    candidates: int = 20,
    threads: int = 0,
    license: str = "",
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    zero_shot: Sequence[str] = (),
    device: str = "auto",
    long_documents: LongDocuments | None = None,
    calibrate: bool = True,
) -> Outcome:
    """Compress a cross-encoder as far as the goal asks, or as far as its ranking quality allows, within a time budget.

    Args:
        model: A cross-encoder: a folder or a Hub id.
        sets: Data sets, as in a recipe.
        out: Output folder, for what a run writes and for `recipe.yaml`, `trials.json` and `figures/trials.png`.
        goal: The goal.
        max_length: Longest input in tokens; by default the model's.
        candidates: Documents to rank for a query.
        threads: Threads of every runtime; 0 uses all cores.
        license: Licence of the compressed model; by default that of the model's card.
        seed: Seed of everything random.
        resume: Continue an earlier call.
        progress: Show progress bars.
        zero_shot: Data sets that are neither trained on nor chosen by, as in a recipe: the result is evaluated there,
            too.
        device: Device of everything that runs PyTorch, as in a recipe.
        long_documents: How documents are read that do not fit into one input, as in a recipe; truncated by default.
        calibrate: Bring the scores of the result to the model's scale, as in a recipe.

    Raises:
        HfCompressError: A fault that the user can mend.
    """
    workspace, config = Workspace(out, resume), load_config(model)
    length = int(ranking_tokenizer(model, config, max_length).model_max_length)
    shared = Recipe(
        name=recipe_name(model),
        seed=seed,
        device=device,
        data=DataStep(sets=list(sets), candidates=candidates, score_text=score_text_of(config)),
        teacher=TeacherStep(model=model, max_length=length),
        quantize=QuantizeStep(artifacts=goal.artifacts(), calibration_pairs=CALIBRATION_PAIRS),
        calibrate=calibrate,
        evaluate=EvaluateStep(margin=goal.max_loss, threads=threads, long_documents=long_documents or TRUNCATED),
        publish=PublishStep(license=license),
    )
    context = prepare(shared, workspace, goal, progress, zero_shot)
    set_margin(context)
    advise(context)
    logger.info(_intention(context))
    set_seed(seed)
    teacher, forms = measure_unpruned(context)
    form = choose_form(context, forms)
    choice = _choice(context, pruning_speedups(goal, form), teacher, form)
    if choice is None and form.step is None and not goal.cuts_vocabulary(form.artifact.size_bytes):
        latency = form.artifact.latency
        raise PlanError(
            "There is nothing to do",
            value=f"{latency.p50_ms:.1f} ms a query, {latency.docs_per_second:.0f} documents/s",
            expected="a target that the model in fp32 PyTorch is too slow for",
            remedy="ask for more, or allow int8 with another --runtime",
        )
    recipe = final_recipe(context, form, choice)
    if choice:
        keep_plan(context, recipe, choice)
        choice = confirmed(context, form, choice, recipe)
        recipe = recipe if choice else final_recipe(context, form, None)
    report = _run(context, out, recipe)
    chosen = _deployed(report, form)
    _record_verdict(context, choice, report, chosen)
    report, alternative = _with_alternative(context, out, form, choice, report, chosen)
    report.save(out)
    write_card(out, report)
    save(context.trials, out / TRIALS_FILE)
    for former in FORMER_TRIALS_FILES:
        (out / former).unlink(missing_ok=True)
    write_bytes(out / TRIALS_FIGURE, trials_figure(context.trials, context.goal.max_loss))
    logger.info(f"time: {duration(time.perf_counter() - context.began)} of {duration(goal.seconds)}")
    return Outcome(context.goal, report, chosen, context.trials, alternative)


def recipe_name(model: str) -> str:
    """Name of the recipe that compresses a model."""
    path = Path(resolve(model))
    name = (path.resolve() if path.is_dir() else path).name
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-._') or 'model'}-compressed"


def _choice(
    context: CompressContext, speedups: tuple[float, ...], teacher: Artifact, form: DeploymentForm
) -> Choice | None:
    """How far to prune; None if the unpruned model is fast enough."""
    if not speedups:
        return None
    try:
        return search(context, speedups, teacher, form)
    except PlanError as error:
        if context.goal.has_target or form.step is None:
            raise
        logger.info(f"prune: left out. {error}")
        return None


def _intention(context: CompressContext) -> str:
    """The plan as one line of the log."""
    goal = context.goal
    aim = "as fast as the ranking allows"
    if goal.target_speedup is not None:
        aim = f"{goal.target_speedup:g}x the speed of the teacher"
    if goal.target_latency_ms is not None:
        aim = f"{goal.target_latency_ms:g} ms a query"
    if goal.max_size_mb is not None:
        aim += f", in at most {goal.max_size_mb:g} MB"
    if goal.vocabulary == "corpus":
        aim += ", with the vocabulary of the corpus"
    sizes = ", ".join(f"{len(split)} {name}" for name, split in context.data.splits.items())
    return (
        f"plan: {aim}, at most {goal.max_loss:g} nDCG@10 lost, in {goal.seconds / 60:.0f} minutes, with {sizes} "
        "queries: evaluate int8 without pruning; if that is too slow, search plans, recover the promising ones, and "
        "give the remaining time to one of them; the verdict is on test queries, everything before it on dev"
    )


def _run(context: CompressContext, out: Path, recipe: Recipe) -> RunReport:
    """Run a recipe in the output folder, where finished steps are kept."""
    write_text(out / RECIPE_FILE, recipe.to_yaml())
    made = {step.name for step in context.workspace.steps if not step.reused}  # by this call, for the same recipe
    report = pipeline.run(recipe, out, True, context.progress)
    context.workspace = Workspace(out, True)
    steps = [step.model_copy(update={"reused": step.reused and step.name not in made}) for step in report.steps]
    return report.model_copy(update={"steps": steps})


def _with_alternative(
    context: CompressContext,
    out: Path,
    form: DeploymentForm,
    choice: Choice | None,
    report: RunReport,
    chosen: Artifact,
) -> tuple[RunReport, Path | None]:
    """The report with what would pass if the deployed model did not, and the folder of that model if there is one."""
    assert chosen.delta is not None
    alternative = None
    if chosen.delta.decision != "non-inferior":
        pruning_speedup = choice.pruning_speedup if choice else None
        alternative = find_alternative(context.trials, context.goal, chosen, form.unpruned_name, pruning_speedup)
    folder = offer(out, alternative, context.candidates.get(alternative.name) if alternative else None)
    return report.model_copy(update={"would_pass": alternative}), folder


def _deployed(report: RunReport, form: DeploymentForm) -> Artifact:
    """The artifact of the chosen form."""
    wanted = form.artifact.runtime, form.artifact.precision
    return next(each for each in report.artifacts if (each.runtime, each.precision) == wanted)


def _record_verdict(context: CompressContext, choice: Choice | None, report: RunReport, chosen: Artifact) -> None:
    assert chosen.delta is not None
    name = f"pruned {choice.pruning_speedup:g}x, on test" if choice else "unpruned, on test"
    seconds = sum(step.seconds for step in report.steps if not step.reused)
    pruning_speedup = choice.pruning_speedup if choice else 1.0
    stage: Stage = "int8" if choice is None else "full recovery" if choice.recovery.lists else "one-shot"
    context.record(
        name, stage, pruning_speedup, quality(chosen), quality(report.teacher), seconds, chosen, on_test=True
    )
    delta = chosen.delta
    context.record_decision(
        name,
        f"{delta.decision} at {delta.margin:g} ({delta.mean:+.4f} [{delta.ci_low:+.4f}, {delta.ci_high:+.4f}]), "
        f"{chosen.speedup:.2f}x",
    )
