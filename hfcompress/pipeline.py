"""run(recipe, out): a reader follows one run from top to bottom here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import PreTrainedTokenizerFast, set_seed

from hfcompress.card import write_card
from hfcompress.checkpoint import save_checkpoint
from hfcompress.checks import check, check_data, judges
from hfcompress.data.graded import graded_by_order, unjudged
from hfcompress.data.lists import training_lists
from hfcompress.data.pseudo import has_pseudo_queries
from hfcompress.data.ranking import RankingData
from hfcompress.data.teachers import with_teacher_scores
from hfcompress.evaluation.collapse import Suspect, refuse_collapse, suspects
from hfcompress.evaluation.explain import explain
from hfcompress.evaluation.explanation import Explanation
from hfcompress.evaluation.metrics import scores_of_split
from hfcompress.evaluation.report import PruningSummary, RunReport
from hfcompress.evaluation.results import Candidate, Measured, build_report, measure_candidates
from hfcompress.evaluation.saliency import Reader, with_saliency
from hfcompress.layout import PRUNING_FILE, WORK_FOLDER
from hfcompress.models import (
    load_encoder,
    load_model,
    load_tokenizer,
    model_fingerprint,
)
from hfcompress.oneshot import title_of, write_pruned
from hfcompress.pruning import deployment_of, describe, prune_family
from hfcompress.quantization.artifacts import graph_file
from hfcompress.quantization.config import QuantizationConfig, config_from_recipe
from hfcompress.quantization.openvino import is_available
from hfcompress.quantization.quantizer import write_quantized
from hfcompress.quantization.rounding import weight_steps
from hfcompress.quiet import quiet
from hfcompress.rankers.base import RankerOptions
from hfcompress.rankers.load import activation_name
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import OnnxRuntimeInt8, OpenVinoInt8, PruneStep, QuantizationAware, Recipe
from hfcompress.run_data import (
    calibration_pairs,
    load_run_data,
    ranking_pairs,
    recovery_teachers,
    source_fingerprint,
    with_pseudo_queries,
)
from hfcompress.training.fit import fit
from hfcompress.training.quantization_aware import QuantizationAwareCallback
from hfcompress.training.trainer import RankingDistillationTrainer, RankingTrainer
from hfcompress.workspace import Workspace

IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass
class Run:
    """What all steps of a run share."""

    recipe: Recipe
    data: RankingData
    workspace: Workspace
    progress: bool

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.recipe.teacher.max_length

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A new copy of the teacher's tokenizer."""
        return load_tokenizer(self.recipe.teacher.model, self.max_length)


def run(
    recipe: Recipe,
    out: Path,
    resume: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> RunReport:
    """Run a recipe and write the compressed checkpoint, its int8 files, the report and the card into `out`.

    Args:
        recipe: What to do.
        out: The output folder, new or empty, or that of an earlier run with `resume`.
        resume: Keep the finished steps of an earlier run whose inputs are the same.
        progress: Show progress bars.
        say: Called with a line for the user.

    Returns:
        The report, as written to `report.json`.

    Raises:
        HfCompressError: Something that the user can mend; found before long work starts where that is possible.
    """
    workspace = Workspace(out, resume, say)
    check(recipe)
    data = load_run_data(recipe, progress)
    check_data(recipe, data)
    workspace.begin()
    say(f"data: {', '.join(f'{len(split)} {name}' for name, split in data.splits.items())} queries of {data.name}")
    current = Run(recipe, data, workspace, progress)
    set_seed(recipe.seed)

    teacher, teacher_of = train_teacher(current)
    if judges(recipe, data):
        current = judge(current, teacher, teacher_of)
    student, pruning, made_of = teacher, None, teacher_of
    lists = None
    for stage in stages(recipe):
        student, pruning, made_of = prune(current, student, made_of, stage, pruning)
        if recipe.recover:
            lists = lists or score(current, teacher, teacher_of)
            student, made_of = recover(current, teacher, lists, student, made_of, stage)
    checkpoint, made_of = quantize(current, student, made_of)
    report = evaluate(current, teacher, checkpoint, pruning, made_of)
    publish_locally(out, checkpoint, report)
    say(f"card: {out / 'README.md'}")
    return report


def train_teacher(current: Run) -> tuple[str, str]:
    """Train the encoder as a cross-encoder, or take the cross-encoder given.

    Returns:
        Name of the teacher, as models are loaded, and a fingerprint.
    """
    step = current.recipe.teacher
    inputs = [
        step.model_dump(mode="json"),
        model_fingerprint(step.model),
        current.data.fingerprint(),
        current.recipe.seed,
    ]
    if step.train is None:
        return step.model, json.dumps(inputs)
    training = step.train

    def work(folder: Path, partial: Path) -> None:
        lists = training_lists(
            current.data,
            1 + training.hard_negatives + training.random_negatives,
            training.random_negatives,
            current.recipe.seed,
            queries=training.queries,
        )
        with quiet():
            model, tokenizer = load_encoder(step.model), current.tokenizer()
        figures = fit(
            RankingTrainer,
            model,
            tokenizer,
            lists,
            current.data,
            training.optimization,
            partial,
            current.recipe.seed,
            current.progress,
            label_loss=training.loss,
        )
        current.workspace.say(f"teacher: {_figures(figures)}")
        save_checkpoint(folder, model, tokenizer, IDENTITY, step.max_length)

    folder, fingerprint = current.workspace.step("teacher", inputs, work)
    return str(folder), fingerprint


def judge(current: Run, teacher: str, teacher_of: str) -> Run:
    """Grade dev and test by the teacher's own order, where the data has no judgements.

    Returns:
        The run, with data that is graded.
    """
    splits = unjudged(current.data)

    def work(folder: Path, partial: Path) -> None:
        ranker = TorchRanker(load_model(teacher, dtype="float32"), current.tokenizer(), lambda logits: logits)
        scores = {name: scores_of_split(ranker, current.data, name) for name in splits}
        (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")

    folder, _ = current.workspace.step("judge", [teacher_of, splits], work)
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return replace(current, data=graded_by_order(current.data, scores))


@dataclass(frozen=True)
class Stage:
    """A round of pruning and recovery.

    Attributes:
        step: How to prune.
        suffix: What the names of its steps end in.
    """

    step: PruneStep
    suffix: str


def prune(
    current: Run, name: str, made_of: str, stage: Stage, before: PruningSummary | None = None
) -> tuple[str, PruningSummary, str]:
    """Find what matters least and cut it.

    Args:
        current: The run.
        name: The model to prune: the teacher, or what an earlier stage left.
        made_of: Its fingerprint.
        stage: How to prune.
        before: What earlier stages have pruned.

    Returns:
        Folder of the pruned model, what was pruned of the teacher, and a fingerprint.
    """
    step = stage.step

    def work(folder: Path, partial: Path) -> None:
        model, tokenizer = load_model(name, dtype="float32"), current.tokenizer()
        options = RankerOptions(current.recipe.evaluate.threads, current.recipe.evaluate.batch_tokens)
        artifacts = [artifact for artifact in current.recipe.quantize.artifacts if _installed(artifact)]
        deployment = deployment_of(
            step, artifacts, options, current.recipe.data.candidates, current.recipe.quantize.first_token
        )
        targets = [step.target] if step.target else []
        family = prune_family(
            model,
            tokenizer,
            current.data,
            step,
            targets,
            deployment,
            current.max_length,
            current.recipe.seed + 1,
            current.workspace.say,
            current.progress,
        )
        member = family.members[0]
        current.workspace.say(f"prune: {describe(member)}")
        write_pruned(
            folder,
            model,
            tokenizer,
            family.importance,
            member,
            step.vocabulary,
            current.data,
            current.max_length,
            current.progress,
        )

    runtime = current.recipe.evaluate.model_dump(mode="json", include={"threads", "batch_tokens"})
    where = [current.recipe.quantize.model_dump(mode="json"), runtime] if step.target else []
    inputs = [step.model_dump(mode="json"), where, made_of]
    folder, fingerprint = current.workspace.step(f"prune{stage.suffix}", inputs, work)
    summary = PruningSummary.model_validate_json((folder / PRUNING_FILE).read_text(encoding="utf-8"))
    assert current.recipe.prune is not None
    if before:
        summary = _together(before, summary, title_of(current.recipe.prune.target))
    return str(folder), summary, fingerprint


def score(current: Run, teacher: str, teacher_of: str) -> tuple[Path, str]:
    """Draw the lists of the recovery, with the scores of its teachers.

    Returns:
        Folder of the lists, and a fingerprint.
    """
    step = current.recipe.recover
    assert step is not None

    def work(folder: Path, partial: Path) -> None:
        data = current.data
        if step.pseudo_queries and not has_pseudo_queries(data):
            data = with_pseudo_queries(current.recipe, data)
        lists = training_lists(
            data,
            step.documents,
            step.random_negatives,
            current.recipe.seed + 1,
            queries=step.queries,
            unlabelled=step.unlabelled,
        )
        teachers = recovery_teachers(current.recipe, current.data, teacher, teacher_of, current.tokenizer())
        with quiet():
            with_teacher_scores(lists, teachers, current.progress, partial).save_to_disk(str(folder))

    sources = [[source.model_dump(mode="json"), source_fingerprint(source)] for source in step.teachers]
    inputs: list[Any] = [step.documents, step.random_negatives, step.queries, teacher_of]
    return current.workspace.step("scores", [*inputs, sources, step.unlabelled, step.pseudo_queries], work)


def recover(
    current: Run, teacher: str, lists: tuple[Path, str], pruned: str, made_of: str, stage: Stage
) -> tuple[str, str]:
    """Train the pruned model on the teacher's scores, and where the recipe says so on its features.

    Args:
        current: The run.
        teacher: The teacher.
        lists: What `score` returned.
        pruned: Folder of the pruned model.
        made_of: Its fingerprint.
        stage: The round that this is of.

    Returns:
        Folder of the student, and a fingerprint.
    """
    step = current.recipe.recover
    assert step is not None
    scored, scored_of = lists

    def work(folder: Path, partial: Path) -> None:
        model, tokenizer = load_model(pruned, dtype="float32"), load_tokenizer(pruned, current.max_length)
        activation = activation_name(model.config)
        figures = fit(
            RankingDistillationTrainer,
            model,
            tokenizer,
            Dataset.from_list(load_from_disk(str(scored)).to_list()),
            current.data,
            step.optimization,
            partial,
            current.recipe.seed,
            current.progress,
            callbacks=[_rounding(step.quantization_aware)] if step.quantization_aware else [],
            distillation_loss=step.loss,
            feature_loss=step.features,
            teacher=load_model(teacher, dtype="float32") if step.features else None,
            teacher_tokenizer=current.tokenizer() if step.features else None,
        )
        current.workspace.say(f"recover: {_figures(figures)}")
        save_checkpoint(folder, model, tokenizer, activation, current.max_length)

    inputs = [step.model_dump(mode="json"), scored_of, made_of]
    folder, fingerprint = current.workspace.step(f"recover{stage.suffix}", inputs, work)
    return str(folder), fingerprint


def _together(before: PruningSummary, after: PruningSummary, target: str) -> PruningSummary:
    """What two stages have pruned of the model before the first."""
    speedups = before.predicted_speedup, after.predicted_speedup
    return after.model_copy(
        update={
            "encoder_flops_kept": before.encoder_flops_kept * after.encoder_flops_kept,
            "predicted_speedup": speedups[0] * speedups[1] if speedups[0] and speedups[1] else None,
            "calibration_loss": None,  # that of a stage is against the model it began with
            "target": target,
        }
    )


def stages(recipe: Recipe) -> list[Stage]:
    """The rounds of pruning and recovery that a recipe asks for."""
    steps = recipe.prune.by_stage() if recipe.prune else []
    return [Stage(step, f"-{number}" if len(steps) > 1 else "") for number, step in enumerate(steps, 1)]


def _rounding(step: QuantizationAware) -> QuantizationAwareCallback:
    reduce_range = None if step.reduce_range == "auto" else step.reduce_range
    return QuantizationAwareCallback(step.begin, step.activations, step.per_channel, reduce_range)


def quantize(current: Run, student: str, made_of: str) -> tuple[Path, str]:
    """Write the student with its fp32 and int8 graphs in the repository layout.

    Returns:
        The folder, and a fingerprint.
    """
    step = current.recipe.quantize
    wanted = [_artifact for _artifact in step.artifacts if _installed(_artifact, current.workspace.say)]

    def work(folder: Path, partial: Path) -> None:
        model, tokenizer = load_model(student, dtype="float32"), load_tokenizer(student, current.max_length)
        write_quantized(
            folder,
            model,
            tokenizer,
            activation_name(model.config),
            [config_from_recipe(artifact) for artifact in wanted],
            calibration_pairs(current.data, step.calibration_pairs),
            current.workspace.say,
            current.progress,
            step.first_token,
            current.recipe.model_dump(mode="json"),
            ranking_pairs(current.data),
        )

    inputs = [step.model_dump(mode="json"), len(wanted), current.max_length, made_of]
    return current.workspace.step("int8", inputs, work)


def evaluate(current: Run, teacher: str, checkpoint: Path, pruning: PruningSummary | None, made_of: str) -> RunReport:
    """Measure the teacher and every artefact on the test split, in turns."""
    recipe = current.recipe

    def work(folder: Path, partial: Path) -> None:
        candidates = [Candidate.teacher(teacher, "teacher")]
        if recipe.prune:
            candidates.append(Candidate.student(checkpoint))
        exact = candidates[-1].name
        configs = [config_from_recipe(artifact) for artifact in recipe.quantize.artifacts if _installed(artifact)]
        candidates += [Candidate.graph(checkpoint, config, exact) for config in configs]
        measured = measure_candidates(
            candidates, current.data, recipe.evaluate, current.max_length, recipe.seed, current.progress
        )
        results = [found.artifact for found in measured]
        by_path = {graph_file(config): config for config in configs}
        refuse_collapse(
            results,
            exact,
            recipe.evaluate.min_rank_correlation,
            lambda artifact: _suspects(current, checkpoint, by_path[artifact.path]),
        )
        explanation = _explanation(current, measured, teacher, checkpoint)
        report = build_report(recipe, current.data, load_model(str(checkpoint)).config, pruning, results, explanation)
        report.save(folder)

    inputs = [recipe.evaluate.model_dump(mode="json"), recipe.name, recipe.publish.license, current.data.fingerprint()]
    folder, _ = current.workspace.step("evaluate", [inputs, made_of], work)
    report = RunReport.load(folder)
    return report.model_copy(update={"steps": current.workspace.steps, "recipe": recipe.text})


def _explanation(current: Run, measured: list[Measured], teacher: str, checkpoint: Path) -> Explanation | None:
    """Where the artefact that speaks for the run ranks otherwise than its teacher, and what the student looks at."""
    recipe = current.recipe
    artifacts = [found.artifact for found in measured]
    runs = {found.artifact.name: found.run for found in measured}
    shown = recipe.evaluate.moved_queries
    explanation = explain(current.data, "test", runs, artifacts, current.tokenizer(), current.max_length, shown)
    if explanation is None or not (recipe.prune and explanation.moved):
        return explanation
    with quiet():
        ours, theirs = (
            Reader(load_model(name, dtype="float32"), load_tokenizer(name, current.max_length))
            for name in (teacher, str(checkpoint))
        )
    return with_saliency(explanation, current.data, "test", ours, theirs, artifacts)


def _suspects(current: Run, checkpoint: Path, config: QuantizationConfig) -> list[Suspect]:
    """The parts of the student, rounded one at a time as an int8 artefact that has collapsed was."""
    steps = weight_steps(getattr(config, "reduce_range", None))
    lists = [current.data.pairs(*listed) for listed in current.data.split("test").candidates.items()]
    tokenizer = load_tokenizer(str(checkpoint), current.max_length)
    return suspects(
        load_model(str(checkpoint), dtype="float32"), tokenizer, lists, getattr(config, "per_channel", True), steps
    )


def publish_locally(out: Path, checkpoint: Path, report: RunReport) -> None:
    """Put the checkpoint, the report and the card into the output folder."""
    for source in sorted(checkpoint.rglob("*")):
        if source.is_file():
            target = out / source.relative_to(checkpoint)
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name}.part")
            shutil.copyfile(source, aside)
            aside.replace(target)
    stale = [path for path in out.rglob("*") if _is_stale(path, out, checkpoint)]
    for path in stale:
        path.unlink()
    report.save(out)
    write_card(out, report)


def _is_stale(path: Path, out: Path, checkpoint: Path) -> bool:
    """Whether an earlier run left this file of the repository layout and this one did not write it."""
    relative = path.relative_to(out)
    return (
        path.is_file()
        and relative.parts[0] in ("onnx", "openvino", "modeling_hfcompress.py")
        and WORK_FOLDER not in relative.parts
        and not (checkpoint / relative).is_file()
    )


def _installed(artifact: OnnxRuntimeInt8 | OpenVinoInt8, say: Callable[[str], None] | None = None) -> bool:
    installed = artifact.runtime != "openvino" or is_available()
    if say and not installed:
        say("int8: leaves out OpenVINO, which is not installed (pip install 'hfcompress[openvino]')")
    return installed


def _figures(figures: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
