"""What to deploy, and how far to prune: decisions on what was measured on dev."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hfcompress.compress.goal import Goal
from hfcompress.compress.measured import load_artifacts, save_artifacts
from hfcompress.compress.work import CALIBRATION_PAIRS, Work, first_stage_quality, quality
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.report import Artifact
from hfcompress.models import load_model, load_tokenizer
from hfcompress.quantization.config import config_from_recipe
from hfcompress.quantization.quantizer import write_quantized
from hfcompress.rankers.load import activation_name
from hfcompress.recipe import ArtifactStep
from hfcompress.run_data import calibration_pairs, ranking_pairs
from hfcompress.verdicts import weak_ranking

FAMILY = (1.5, 2.0, 3.0, 4.0, 6.0)  # speed-ups by pruning that are tried where no target is given
RESERVE = 1.08  # a little more is asked for than the target: predictions, and figures of dev queries, are off by some %
UNPRUNED = "unpruned"


@dataclass(frozen=True)
class Base:
    """How models are deployed.

    Attributes:
        step: The int8 artefact in the words of a recipe; None for PyTorch in fp32.
        artifact: What was measured of the unpruned model in this form, on dev.
        loss: What it loses against the teacher on dev.
        folder: Where the unpruned model lies with its graphs.
    """

    step: ArtifactStep | None
    artifact: Artifact
    loss: float
    folder: Path

    @property
    def label(self) -> str:
        """Runtime and precision."""
        return f"{self.artifact.runtime} {self.artifact.precision}"

    def candidate(self, name: str, folder: Path) -> Candidate:
        """A model in this form, to be measured."""
        if self.step is None:
            return replace(Candidate.student(folder), name=name)
        return replace(Candidate.graph(folder, config_from_recipe(self.step), ""), name=name, made_from=None)


def measure_unpruned(work: Work) -> tuple[Artifact, list[Base]]:
    """Measure the teacher, and the unpruned model in each form that may be deployed."""
    steps = work.recipe.quantize.artifacts

    def do(folder: Path, partial: Path) -> None:
        candidates = [Candidate.teacher(work.teacher, "teacher")]
        if steps:
            model, tokenizer = load_model(work.teacher, dtype="float32"), load_tokenizer(work.teacher, work.max_length)
            configs = [config_from_recipe(step) for step in steps]
            write_quantized(
                folder / "model",
                model,
                tokenizer,
                activation_name(model.config),
                configs,
                calibration_pairs(work.data, CALIBRATION_PAIRS),
                work.workspace.say,
                work.progress,
                ranking_pairs=ranking_pairs(work.data),
            )
            candidates += [Candidate.graph(folder / "model", config, "teacher") for config in configs]
        save_artifacts(folder, work.measure(candidates))

    inputs = [*work.identity(), [step.model_dump(mode="json") for step in steps]]
    folder, _ = work.workspace.step(UNPRUNED, inputs, do, "export and quantize the model as it is, and measure on dev")
    teacher, *others = load_artifacts(folder)
    seconds = work.workspace.steps[-1].seconds / max(1, len(others))
    work.note("teacher", "teacher", 1.0, quality(teacher), quality(teacher), 0.0, teacher)
    if warning := weak_ranking(work.data.first_stage, first_stage_quality(work.data, "dev"), quality(teacher)):
        work.workspace.say(f"teacher: {warning}")
    if not steps:
        return teacher, [Base(None, teacher, 0.0, folder)]
    bases = [
        Base(step, artifact, quality(teacher) - quality(artifact), folder / "model")
        for step, artifact in zip(steps, others, strict=True)
    ]
    for base in bases:
        work.note(
            f"unpruned, {base.label}", "int8", 1.0, quality(base.artifact), quality(teacher), seconds, base.artifact
        )
    return teacher, bases


def choose_base(work: Work, bases: Sequence[Base]) -> Base:
    """The fastest form within the loss; if there is none, the one that loses least."""
    within = [base for base in bases if base.loss <= work.goal.max_loss]
    chosen = max(within, key=lambda base: _speed(work.goal, base)) if within else min(bases, key=lambda base: base.loss)
    if chosen.step is None:
        return chosen
    for base in bases:
        found = f"{base.artifact.speedup:.2f}x at a loss of {base.loss:+.4f} on dev"
        if base is chosen:
            verdict = "the form in which pruned models are tried too"
        elif base.loss > work.goal.max_loss:
            verdict = f"loses more than {work.goal.max_loss:g}"
        else:
            verdict = f"slower than {chosen.label}"
        work.decide(f"unpruned, {base.label}", f"{found}: {verdict}")
    return chosen


def ratios(goal: Goal, base: Base) -> tuple[float, ...]:
    """Speed-ups by pruning that are worth a search; none where the unpruned model is fast enough with some reserve."""
    if goal.target_speedup is not None:
        missing = RESERVE * goal.target_speedup / base.artifact.speedup
    elif goal.target_latency_ms is not None:
        missing = RESERVE * base.artifact.latency.p50_ms / goal.target_latency_ms
    else:
        return FAMILY
    return (round(missing, 3),) if missing > 1 else ()


def _speed(goal: Goal, base: Base) -> float:
    return base.artifact.speedup if goal.speed == "throughput" else 1 / base.artifact.latency.p50_ms
