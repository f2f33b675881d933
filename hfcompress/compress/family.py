"""The family of pruned models of `compress`: one search, and short recoveries that halve what is left of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk

from hfcompress import pipeline
from hfcompress.compress import halving, spending
from hfcompress.compress.allotment import ROUNDS, Allotment
from hfcompress.compress.choose import Base
from hfcompress.compress.goal import Goal
from hfcompress.compress.measured import RESULT, load_artifacts, save_artifacts
from hfcompress.compress.spending import Training
from hfcompress.compress.work import CALIBRATION_PAIRS, Work, quality
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.report import Artifact
from hfcompress.evaluation.structure import PruningSummary
from hfcompress.files import write_text
from hfcompress.models import load_model, load_tokenizer
from hfcompress.oneshot import write_pruned
from hfcompress.pruning import deployment_of, describe, prune_family
from hfcompress.quantization.config import config_from_recipe
from hfcompress.quantization.quantizer import write_quantized
from hfcompress.rankers.load import activation_name
from hfcompress.recipe import Optimization, PruneStep, Recipe, RecoverStep, VocabularyStep
from hfcompress.run_data import calibration_pairs
from hfcompress.training.fit import fit
from hfcompress.training.trainer import RankingDistillationTrainer

ENOUGH = 0.5  # of the largest loss allowed: a student that loses so little this early will do
CHANGED = 0.005  # share of held-out pairs that a smaller vocabulary may cut into other tokens
LEARNING_RATE = 2e-4
NEAR = 0.02  # calibration loss; plain int8 of unpruned models has about as much


@dataclass(frozen=True)
class Member:
    """A pruned model.

    Attributes:
        ratio: Speed-up by pruning that was asked for.
        folder: Its checkpoint.
        artifact: What was measured of it before any training, in the form in which it is deployed.
        flops_kept: Share of the encoder's multiply-adds that is left.
        calibration_loss: How far its ranking is from the teacher's, on held-out calibration queries.
    """

    ratio: float
    folder: Path
    artifact: Artifact
    flops_kept: float
    calibration_loss: float

    @property
    def label(self) -> str:
        """How it is called in tables."""
        return f"pruned {self.ratio:g}x"


@dataclass(frozen=True)
class Family:
    """Pruned models of one search.

    Attributes:
        members: Each by its speed-up.
        vocabulary: Whether their vocabulary was cut too.
        made_of: What distinguishes them from those of another search.
    """

    members: dict[float, Member]
    vocabulary: bool
    made_of: str


@dataclass(frozen=True)
class Choice:
    """How far to prune and how to recover.

    Attributes:
        ratio: Speed-up by pruning.
        training: The recovery; no lists for none.
        vocabulary: Whether the vocabulary is cut too.
        stages: Rounds of pruning and recovery on the way.
    """

    ratio: float
    training: Training
    vocabulary: bool
    stages: int = 1


def search(work: Work, wanted: tuple[float, ...], teacher: Artifact, base: Base) -> Choice:
    """Search a family, recover its members shortly in rounds, and choose one to be recovered fully."""
    family = _family(work, wanted, teacher, base)
    members = family.members
    _warn_of_few_queries(work, [member.artifact for member in members.values()])
    losses = {ratio: quality(teacher) - quality(member.artifact) for ratio, member in members.items()}
    rates = {ratio: spending.pair_seconds(work.rate, member.flops_kept) for ratio, member in members.items()}
    if len(wanted) == 1 and (ratio := _near(members, losses, work.goal.max_loss)):
        loss = members[ratio].calibration_loss
        work.decide(members[ratio].label, f"chosen as it is: as near to the teacher as int8 is (loss {loss:.3f})")
        return Choice(ratio, Training(0, 0), family.vocabulary)
    allotment = Allotment(work, family.made_of)
    lists = allotment.lists(rates)
    if not lists:
        ratio = halving.choice(losses, work.goal.max_loss)
        work.decide(members[ratio].label, "chosen as it is: no time is left for a recovery")
        return Choice(ratio, Training(0, 0), family.vocabulary)
    scored, scored_of = pipeline.score(work_run(work, recovery(work, lists, 1)), work.teacher, *_teacher_of(work))
    for number in range(ROUNDS):
        short = 0 if len(losses) == 1 else allotment.short(number, [rates[ratio] for ratio in losses], lists)
        if not short:
            break
        for ratio in losses:
            found = _recovered(work, family, members[ratio], scored, scored_of, short)
            losses[ratio], rates[ratio] = quality(teacher) - found["ndcg"], found["seconds"] / found["pairs"]
            name = f"{members[ratio].label}, {short} lists"
            work.note(name, "short recovery", ratio, found["ndcg"], quality(teacher), found["seconds"])
        kept = halving.survivors(losses, ENOUGH * work.goal.max_loss)
        for ratio in losses:
            fate = "goes on" if ratio in kept else "given up: another one promises more"
            work.decide(f"{members[ratio].label}, {short} lists", f"loss {losses[ratio]:+.4f} on dev: {fate}")
        losses = {ratio: losses[ratio] for ratio in kept}
    ratio = halving.choice(losses, work.goal.max_loss)
    stages, epochs = allotment.stages(ratio, members[ratio].flops_kept, rates[ratio], lists)
    if not epochs:
        work.decide(members[ratio].label, "chosen as it is: no time is left for a recovery")
        return Choice(ratio, Training(0, 0), family.vocabulary)
    return Choice(ratio, Training(lists, epochs), family.vocabulary, stages)


def _near(members: Mapping[float, Member], losses: Mapping[float, float], max_loss: float) -> float | None:
    """The fastest member that needs no recovery, if there is one.

    Training moves a model away from its teacher, too. Where hardly anything was lost it has little to bring back, and
    makes the difference to the teacher, query by query, larger and harder to tell from the margin.
    """
    near = [ratio for ratio, loss in losses.items() if loss <= max_loss and members[ratio].calibration_loss <= NEAR]
    return max(near, default=None)


def recovery(work: Work, lists: int, epochs: int) -> Recipe:
    """The recipe's data and teacher, with a recovery; made to be run with a pruning step."""
    step = work.supervision.model_copy(
        update={
            "documents": spending.DOCUMENTS,
            "queries": lists,
            "optimization": Optimization(epochs=epochs, learning_rate=LEARNING_RATE, evaluations=2),
        }
    )
    return work.recipe.model_copy(update={"recover": step})


def pruning(goal: Goal, ratio: float, base: Base, vocabulary: bool, stages: int = 1) -> PruneStep:
    """The pruning step of a member."""
    return PruneStep(
        target_speedup=ratio,
        speed=goal.speed,
        stages=stages,
        runtime=base.artifact.runtime,
        vocabulary=VocabularyStep() if vocabulary else None,
    )


def work_run(work: Work, recipe: Recipe) -> pipeline.Run:
    """The state in which the steps of an ordinary run begin."""
    return pipeline.Run(recipe, work.data, work.workspace, work.progress)


def _teacher_of(work: Work) -> tuple[str]:
    return (pipeline.train_teacher(work_run(work, work.recipe))[1],)


def _family(work: Work, wanted: tuple[float, ...], teacher: Artifact, base: Base) -> Family:
    """Prune once for each ratio without training, export, and measure beside the teacher."""

    def do(folder: Path, partial: Path) -> None:
        model, tokenizer = load_model(work.teacher, dtype="float32"), load_tokenizer(work.teacher, work.max_length)
        step = pruning(work.goal, wanted[0], base, vocabulary=False)
        deployment = deployment_of(step, [base.step] if base.step else [], work.options, work.recipe.data.candidates)
        family = prune_family(
            model,
            tokenizer,
            work.data,
            step,
            [("target_speedup", ratio) for ratio in wanted],
            deployment,
            work.max_length,
            work.recipe.seed + 1,  # as a run of the recipe does, which then finds the same plan
            work.workspace.say,
            work.progress,
            reachable_only=True,
        )
        vocabulary: VocabularyStep | None = VocabularyStep()
        candidates, found = [Candidate.teacher(work.teacher, "teacher")], []
        for pruned in family.members:
            assert pruned.target
            ratio = pruned.target[1]
            work.workspace.say(f"pruned {ratio:g}x: {describe(pruned)}")
            place = folder / f"{ratio:g}"

            def write(vocabulary: VocabularyStep | None, pruned: Any = pruned, place: Path = place) -> PruningSummary:
                return write_pruned(
                    place, model, tokenizer, family.importance, pruned, vocabulary, work.data, work.max_length,
                    work.progress,
                )[0]  # fmt: skip

            summary = write(vocabulary)
            if summary.vocabulary and summary.vocabulary.changed_share > CHANGED:
                work.workspace.say(
                    f"vocabulary: stays whole, since {summary.vocabulary.changed_share:.1%} of held-out pairs would be "
                    "cut into other tokens"
                )
                vocabulary = None
                write(vocabulary)
            if base.step:
                student = load_model(str(place), dtype="float32")
                write_quantized(
                    place,
                    student,
                    load_tokenizer(str(place), work.max_length),
                    activation_name(student.config),
                    [config_from_recipe(base.step)],
                    calibration_pairs(work.data, CALIBRATION_PAIRS),
                    lambda line: None,
                    work.progress,
                )
            candidates.append(base.candidate(f"pruned {ratio:g}x", place))
            figures = {"flops_kept": pruned.flops_kept, "calibration_loss": pruned.loss}
            found.append({"ratio": ratio, **figures, "vocabulary": vocabulary is not None})
        save_artifacts(folder, work.measure(candidates))
        write_text(folder / "members.json", json.dumps(found))

    sizes = ", ".join(f"{ratio:g}x" for ratio in wanted)
    deployed = base.step.model_dump(mode="json") if base.step else None
    inputs = [*work.identity(), list(wanted), work.goal.speed, deployed]
    folder, made_of = work.workspace.step("family", inputs, do, f"search, prune and measure on dev: {sizes}")
    found = json.loads((folder / "members.json").read_text(encoding="utf-8"))
    artifacts = load_artifacts(folder)[1:]
    seconds = work.workspace.steps[-1].seconds / len(found)
    members = {}
    for each, artifact in zip(found, artifacts, strict=True):
        place = folder / f"{each['ratio']:g}"
        member = Member(each["ratio"], place, artifact, each["flops_kept"], each["calibration_loss"])
        members[member.ratio] = member
        work.note(member.label, "one-shot", member.ratio, quality(artifact), quality(teacher), seconds, artifact)
    return Family(members, found[0]["vocabulary"], made_of)


def _warn_of_few_queries(work: Work, artifacts: list[Artifact]) -> None:
    """Say so where the test queries will hardly show non-inferiority, by how far scores differ on dev."""
    needed = min(each.delta.queries_needed or 0 for each in artifacts if each.delta)
    if (queries := len(work.data.split("test"))) < needed:
        work.workspace.say(
            f"verdict: {queries} test queries, where it takes some {needed:,} to show with a power of 80% that no more "
            f"than {work.goal.max_loss:g} is lost, if nothing is; it may end inconclusive"
        )


def _recovered(
    work: Work, family: Family, member: Member, scored: Path, scored_of: str, lists: int
) -> dict[str, float]:
    """Train a member on the first lists, once."""

    def do(folder: Path, partial: Path) -> None:
        start = time.perf_counter()
        rows = Dataset.from_list(load_from_disk(str(scored)).select(range(lists)).to_list())
        figures = fit(
            RankingDistillationTrainer,
            load_model(str(member.folder), dtype="float32"),
            load_tokenizer(str(member.folder), work.max_length),
            rows,
            work.data,
            Optimization(learning_rate=LEARNING_RATE),
            partial,
            work.recipe.seed,
            work.progress,
            distillation_loss=RecoverStep().loss,
        )
        pairs = sum(len(row) for row in rows["documents"])
        result = {"ndcg": figures["best_dev_ndcg@10"], "seconds": time.perf_counter() - start, "pairs": pairs}
        write_text(folder / RESULT, json.dumps(result))

    inputs = [family.made_of, scored_of, lists, member.ratio]
    folder, _ = work.workspace.step(
        f"recovered{member.ratio:g}on{lists}", inputs, do, f"train {member.label} on {lists} lists"
    )
    result: dict[str, float] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return result
