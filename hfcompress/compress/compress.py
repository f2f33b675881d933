"""compress(model, data, out, goal): a reader follows the decisions from top to bottom here.

Everything is chosen on dev; the test split is for the verdict at the end. What was measured and decided is kept step by
step, so that an interrupted run goes on where it was, and what is deployed comes from an ordinary recipe, which is
written beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import set_seed

from hfcompress import pipeline
from hfcompress.compress.choose import Base, choose_base, measure_unpruned, ratios
from hfcompress.compress.family import Choice, pruning, recovery, search
from hfcompress.compress.front_figure import front_figure
from hfcompress.compress.goal import Goal
from hfcompress.compress.measured import load_artifacts, save_artifacts
from hfcompress.compress.tried import Stage, Tried, save
from hfcompress.compress.work import Work, prepare, quality
from hfcompress.errors import PlanError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.report import Artifact, Delta, RunReport
from hfcompress.files import write_bytes, write_text
from hfcompress.layout import FRONT_FILE, RECIPE_FILE, TRIED_FILE
from hfcompress.recipe import QuantizeStep, Recipe
from hfcompress.workspace import Workspace


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        goal: What was asked for.
        report: Report of the recipe that was run in the end.
        chosen: The artefact of it that is meant to be deployed.
        tried: Everything tried, in order.
    """

    goal: Goal
    report: RunReport
    chosen: Artifact
    tried: list[Tried]

    @property
    def delta(self) -> Delta:
        """The difference to the teacher on the test split, with its verdict."""
        assert self.chosen.delta is not None
        return self.chosen.delta

    @property
    def fast_enough(self) -> bool:
        """Whether the speed asked for was measured."""
        if self.goal.target_speedup is not None:
            return self.chosen.speedup >= self.goal.target_speedup
        if self.goal.target_latency_ms is not None:
            return self.chosen.latency.p50_ms <= self.goal.target_latency_ms
        return True

    @property
    def reached(self) -> bool:
        """Whether the goal was reached: fast enough, and shown to rank as well as the teacher."""
        return self.fast_enough and self.delta.decision == "non-inferior"

    def to_json(self) -> str:
        """What was reached and by what, everything tried, and the report, as JSON."""
        found = {
            "reached": self.reached,
            "fast_enough": self.fast_enough,
            "chosen": self.chosen.name,
            "tried": [each.model_dump(mode="json") for each in self.tried],
            "report": self.report.model_dump(mode="json"),
        }
        return json.dumps(found, indent=2)


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
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> Outcome:
    """Compress a cross-encoder as far as the goal asks, or as far as the ranking allows, within the time given.

    Args:
        model: A cross-encoder: a folder or a Hub id.
        sets: Data sets, as in a recipe.
        out: Folder to write: what a run writes, `recipe.yaml`, `tried.json` and `figures/front.png`.
        goal: What is to be reached.
        max_length: Longest input in tokens; by default the model's.
        candidates: Documents to rank for a query.
        threads: Threads of every runtime; 0 uses all cores.
        license: Licence of the compressed model; by default that of the model's card.
        seed: Seed of everything random.
        resume: Go on with what an earlier call began.
        say: Called with a line for the user.
        progress: Show progress bars.

    Raises:
        HfCompressError: Something that the user can mend.
    """
    workspace = Workspace(out, resume, say)
    work = prepare(model, sets, workspace, goal, max_length, candidates, threads, license, seed, progress)
    say(_intention(work))
    set_seed(seed)
    teacher, bases = measure_unpruned(work)
    base = choose_base(work, bases)
    wanted = ratios(goal, base)
    choice = _choice(work, wanted, teacher, base)
    if choice is None and base.step is None:
        latency = base.artifact.latency
        raise PlanError(
            "There is nothing to do",
            value=f"{latency.p50_ms:.1f} ms a query, {latency.docs_per_second:.0f} documents/s",
            expected="a target that the model in fp32 PyTorch is too slow for",
            remedy="ask for more, or allow int8 with another --runtime",
        )
    report = _run(work, out, _recipe(work, base, choice))
    chosen = _deployed(report, base)
    _note_verdict(work, choice, report, chosen)
    if choice and _is_better_unpruned(work, out, base, chosen):
        report = _run(work, out, _recipe(work, base, None))
        chosen = _deployed(report, base)
        _note_verdict(work, None, report, chosen)
    save(work.tried, out / TRIED_FILE)
    write_bytes(out / FRONT_FILE, front_figure(work.tried, goal.max_loss))
    return Outcome(goal, report, chosen, work.tried)


def _choice(work: Work, wanted: tuple[float, ...], teacher: Artifact, base: Base) -> Choice | None:
    """How far to prune; not at all where nothing was asked for that the unpruned model is too slow for."""
    if not wanted:
        return None
    try:
        return search(work, wanted, teacher, base)
    except PlanError as error:
        if work.goal.target_speedup is not None or work.goal.target_latency_ms is not None or base.step is None:
            raise
        work.workspace.say(f"prune: left out. {error}")
        return None


def _intention(work: Work) -> str:
    """The plan before the work, in a line."""
    goal = work.goal
    aim = "as fast as the ranking allows"
    if goal.target_speedup is not None:
        aim = f"{goal.target_speedup:g}x the speed of the teacher"
    if goal.target_latency_ms is not None:
        aim = f"{goal.target_latency_ms:g} ms a query"
    sizes = ", ".join(f"{len(split)} {name}" for name, split in work.data.splits.items())
    return (
        f"plan: {aim}, at most {goal.max_loss:g} nDCG@10 lost, in {goal.seconds / 60:.0f} minutes, with {sizes} "
        "queries: measure int8 without pruning; where more is wanted, search plans, recover the promising ones, and "
        "give the time that is left to one of them; the verdict is on test queries, everything before it on dev"
    )


def _recipe(work: Work, base: Base, choice: Choice | None) -> Recipe:
    """What is run in the end, as a recipe of its own."""
    recipe = work.recipe
    if choice and choice.training.lists:
        recipe = recovery(work, choice.training.lists, choice.training.epochs)
    settings = recipe.model_copy(
        update={
            "prune": pruning(work.goal, choice.ratio, base, choice.vocabulary, choice.stages) if choice else None,
            "quantize": QuantizeStep(
                artifacts=[base.step] if base.step else [], calibration_pairs=recipe.quantize.calibration_pairs
            ),
        }
    )
    return Recipe.model_validate(settings.model_dump())


def _run(work: Work, out: Path, recipe: Recipe) -> RunReport:
    """Run a recipe in the output folder, where the steps that are done already are kept."""
    write_text(out / RECIPE_FILE, recipe.to_yaml())
    report = pipeline.run(recipe, out, True, work.progress, work.workspace.say)
    work.workspace = Workspace(out, True, work.workspace.say)
    return report


def _deployed(report: RunReport, base: Base) -> Artifact:
    """The artefact in the form that was chosen."""
    wanted = base.artifact.runtime, base.artifact.precision
    return next(each for each in report.artifacts if (each.runtime, each.precision) == wanted)


def _is_better_unpruned(work: Work, out: Path, base: Base, chosen: Artifact) -> bool:
    """Whether the unpruned model is shown to rank as well where the pruned one is not.

    Two artefacts are then held against the margin, each with a one-sided error of 2.5% at the usual confidence of 95%:
    together at most 5%. Where a speed was asked for, a slower model is no answer.
    """
    assert chosen.delta is not None
    asked = work.goal.target_speedup is not None or work.goal.target_latency_ms is not None
    if chosen.delta.decision == "non-inferior" or asked or base.step is None or base.loss > work.goal.max_loss:
        return False

    def do(folder: Path, partial: Path) -> None:
        candidates = [Candidate.teacher(work.teacher, "teacher"), base.candidate("unpruned", base.folder)]
        save_artifacts(folder, work.measure(candidates, "test"))

    folder, _ = work.workspace.step(
        "fallback", [*work.identity(), base.step.model_dump(mode="json")], do, "the unpruned model on test"
    )
    delta = load_artifacts(folder)[1].delta
    assert delta is not None
    return delta.decision == "non-inferior"


def _note_verdict(work: Work, choice: Choice | None, report: RunReport, chosen: Artifact) -> None:
    assert chosen.delta is not None
    name = f"pruned {choice.ratio:g}x, on test" if choice else "unpruned, on test"
    seconds = sum(step.seconds for step in report.steps if not step.reused)
    ratio = choice.ratio if choice else 1.0
    stage: Stage = "int8" if choice is None else "full recovery" if choice.training.lists else "one-shot"
    work.note(name, stage, ratio, quality(chosen), quality(report.teacher), seconds, chosen)
    delta = chosen.delta
    work.decide(
        name,
        f"{delta.decision} at {delta.margin:g} ({delta.mean:+.4f} [{delta.ci_low:+.4f}, {delta.ci_high:+.4f}]), "
        f"{chosen.speedup:.2f}x",
    )
