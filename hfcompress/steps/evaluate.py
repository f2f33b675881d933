"""The step that measures the teacher and every artefact side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.collapse import SUSPECTS, Suspect, refuse_collapse, suspects
from hfcompress.evaluation.explain import explain
from hfcompress.evaluation.explanation import Explanation
from hfcompress.evaluation.results import Measured, build_report, measure_candidates
from hfcompress.evaluation.saliency import Reader, with_saliency
from hfcompress.models import load_model, load_tokenizer
from hfcompress.oneshot import sparsity_summary
from hfcompress.quantization.artifacts import graph_file
from hfcompress.quantization.config import QuantizationConfig, WeightQuantizationConfig, config_from_recipe
from hfcompress.quantization.rounding import rounded, weight_steps
from hfcompress.quantization.weights import packed_rounding
from hfcompress.quiet import quiet
from hfcompress.steps.base import Run, installed
from hfcompress.steps.prune import what_was_pruned


def evaluate(current: Run, teacher: str, checkpoint: Path, pruned: Sequence[str], made_of: str) -> Path:
    """Measure the teacher and every artefact on the test split, in turns.

    Args:
        current: The run.
        teacher: The teacher.
        checkpoint: Folder with the student and its graphs.
        pruned: The pruned model of each stage.
        made_of: Fingerprint of the checkpoint.

    Returns:
        Folder with the report; the steps of the run are not in it yet.
    """
    recipe = current.recipe
    sparse = recipe.prune.weights if recipe.prune else None

    def work(folder: Path, partial: Path) -> None:
        candidates = [Candidate.teacher(teacher, "teacher")]
        if recipe.prune:
            candidates.append(Candidate.student(checkpoint))
        exact = candidates[-1].name
        configs = [config_from_recipe(artifact) for artifact in recipe.quantize.artifacts if installed(artifact)]
        candidates += [Candidate.graph(checkpoint, config, exact) for config in configs]
        measured = measure_candidates(
            candidates,
            current.data,
            recipe.evaluate,
            current.max_length,
            recipe.seed,
            current.progress,
            deflated=sparse is not None,
        )
        results = [found.artifact for found in measured]
        by_path = {graph_file(config): config for config in configs}
        refuse_collapse(
            results,
            exact,
            recipe.evaluate.min_rank_correlation,
            lambda artifact: _suspects(current, checkpoint, by_path[artifact.path]),
        )
        pruning = what_was_pruned(recipe, pruned)
        student = load_model(str(checkpoint))
        if pruning and sparse:
            pruning = pruning.model_copy(update={"weights": sparsity_summary(student, sparse)})
        explanation = _explanation(current, measured, teacher, checkpoint)
        report = build_report(recipe, current.data, student.config, pruning, results, explanation)
        report.save(folder)

    data = current.data
    # What the report says about the data, and whether it may show its texts.
    told = [data.name, data.license, data.notes, data.first_stage, data.publish_texts]
    inputs = [recipe.evaluate.model_dump(mode="json"), recipe.name, data.fingerprint(), told]
    what = (
        f"teacher and artefacts on {len(current.data.splits['test'])} test queries, margin {recipe.evaluate.margin:g}"
    )
    return current.workspace.step("evaluate", [inputs, made_of], work, what)[0]


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
        dense, pruned = (
            Reader(load_model(name, dtype="float32"), load_tokenizer(name, current.max_length))
            for name in (teacher, str(checkpoint))
        )
    return with_saliency(explanation, current.data, "test", dense, pruned, artifacts)


def _suspects(current: Run, checkpoint: Path, config: QuantizationConfig) -> list[Suspect]:
    """The parts of the student, rounded one at a time as a quantized artefact that has collapsed was."""
    candidates = current.data.split("test").candidates
    lists = [current.data.pairs(*listed) for listed in islice(candidates.items(), SUSPECTS)]
    tokenizer = load_tokenizer(str(checkpoint), current.max_length)
    model = load_model(str(checkpoint), dtype="float32")
    if isinstance(config, WeightQuantizationConfig):
        return suspects(model, tokenizer, lists, packed_rounding(model, config))
    steps = weight_steps(getattr(config, "reduce_range", None))
    rounding = partial(rounded, per_channel=getattr(config, "per_channel", True), steps=steps)
    return suspects(model, tokenizer, lists, rounding)
