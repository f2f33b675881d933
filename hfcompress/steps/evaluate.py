"""The step that measures the teacher and every artefact side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hfcompress.evaluation.collapse import Suspect, refuse_collapse, suspects
from hfcompress.evaluation.results import Candidate, build_report, evaluate_candidates
from hfcompress.models import load_model, load_tokenizer
from hfcompress.oneshot import sparsity_summary
from hfcompress.quantization.artifacts import graph_file
from hfcompress.quantization.config import QuantizationConfig, WeightQuantizationConfig, config_from_recipe
from hfcompress.quantization.rounding import rounded, weight_steps
from hfcompress.quantization.weights import packed_rounding
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
        results = evaluate_candidates(
            candidates,
            current.data,
            recipe.evaluate,
            current.max_length,
            recipe.seed,
            current.progress,
            deflated=sparse is not None,
        )
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
        report = build_report(recipe, current.data, student.config, pruning, results)
        report.save(folder)

    inputs = [recipe.evaluate.model_dump(mode="json"), recipe.name, recipe.publish.license, current.data.fingerprint()]
    what = (
        f"teacher and artefacts on {len(current.data.splits['test'])} test queries, margin {recipe.evaluate.margin:g}"
    )
    return current.workspace.step("evaluate", [inputs, made_of], work, what)[0]


def _suspects(current: Run, checkpoint: Path, config: QuantizationConfig) -> list[Suspect]:
    """The parts of the student, rounded one at a time as a quantized artefact that has collapsed was."""
    lists = [current.data.pairs(*listed) for listed in current.data.split("test").candidates.items()]
    tokenizer = load_tokenizer(str(checkpoint), current.max_length)
    model = load_model(str(checkpoint), dtype="float32")
    if isinstance(config, WeightQuantizationConfig):
        return suspects(model, tokenizer, lists, packed_rounding(model, config))
    steps = weight_steps(getattr(config, "reduce_range", None))
    rounding = partial(rounded, per_channel=getattr(config, "per_channel", True), steps=steps)
    return suspects(model, tokenizer, lists, rounding)
