"""The step that measures the teacher and every artifact side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.collapse import PartSensitivity, check_collapse, part_sensitivities
from hfcompress.evaluation.explain import explain
from hfcompress.evaluation.results import EvaluatedCandidate, build_report, evaluate_candidates
from hfcompress.evaluation.saliency import add_saliency
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.pruning.write import sparsity_summary
from hfcompress.quantization.artifacts import graph_file
from hfcompress.quantization.config import QuantizationConfig, WeightQuantizationConfig, config_from_recipe
from hfcompress.quantization.rounding import fake_quantized, weight_steps
from hfcompress.quantization.weights import packed_rounding
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.report.explanation import Explanation
from hfcompress.steps.context import RunContext, runnable
from hfcompress.steps.prune import pruning_summary_of
from hfcompress.steps.workspace import StepFolder, StepModel
from hfcompress.utils.quiet import quiet


def evaluate(
    context: RunContext, teacher: StepModel, checkpoint: StepFolder, pruned: Sequence[StepModel]
) -> StepFolder:
    """Measure the teacher and every artifact on the test split, in turns.

    Args:
        context: The run.
        teacher: The teacher.
        checkpoint: Folder with the student and its graphs.
        pruned: The pruned model of each stage.

    Returns:
        Folder with the report; the steps of the run are not in it yet.
    """
    recipe = context.recipe
    sparse = recipe.prune.weights if recipe.prune else None

    def work(folder: Path, partial: Path) -> None:
        candidates = [Candidate.teacher(teacher.name, "teacher")]
        if recipe.prune:
            candidates.append(Candidate.student(checkpoint.path))
        exact = candidates[-1].name
        configs = [config_from_recipe(artifact) for artifact in runnable(recipe.quantize.artifacts)]
        candidates += [Candidate.graph(checkpoint.path, config, exact) for config in configs]
        evaluated = evaluate_candidates(
            candidates,
            context.data,
            recipe.evaluate,
            max_length=context.max_length,
            seed=recipe.seed,
            progress=context.progress,
            deflated=sparse is not None,
        )
        results = [found.artifact for found in evaluated]
        by_path = {graph_file(config): config for config in configs}
        check_collapse(
            results,
            exact,
            recipe.evaluate.min_rank_correlation,
            lambda artifact: _sensitivities(context, checkpoint, by_path[artifact.path]),
        )
        pruning = pruning_summary_of(recipe, pruned)
        student = load_model(checkpoint.model.name)
        if pruning and sparse:
            pruning = pruning.model_copy(update={"weights": sparsity_summary(student, sparse)})
        explanation = _explanation(context, evaluated, teacher, checkpoint)
        report = build_report(recipe, context.data, student.config, pruning, results, explanation)
        report.save(folder)

    data = context.data
    # Goes into the report; whether texts may be shown is part of it.
    metadata = [data.name, data.license, data.notes, data.first_stage, data.publish_texts]
    inputs = [recipe.evaluate.model_dump(mode="json"), recipe.name, data.fingerprint(), metadata]
    what = (
        f"teacher and artifacts on {len(context.data.splits['test'])} test queries, margin {recipe.evaluate.margin:g}"
    )
    return context.workspace.step("evaluate", [inputs, checkpoint.fingerprint], work, what)


def _explanation(
    context: RunContext, evaluated: list[EvaluatedCandidate], teacher: StepModel, checkpoint: StepFolder
) -> Explanation | None:
    """Where the artifact that speaks for the run ranks otherwise than its teacher, and what the student looks at."""
    recipe = context.recipe
    artifacts = [found.artifact for found in evaluated]
    runs = {found.artifact.name: found.run for found in evaluated}
    explanation = explain(
        context.data,
        "test",
        runs,
        artifacts,
        tokenizer=context.tokenizer(),
        max_length=context.max_length,
        queries=recipe.evaluate.moved_queries,
    )
    if explanation is None or not (recipe.prune and explanation.moved):
        return explanation
    with quiet():
        dense, pruned = (
            TorchRanker(load_model(name, dtype="float32"), load_tokenizer(name, context.max_length))
            for name in (teacher.name, checkpoint.model.name)
        )
    return add_saliency(explanation, context.data, "test", dense, pruned, artifacts)


def _sensitivities(context: RunContext, checkpoint: StepFolder, config: QuantizationConfig) -> list[PartSensitivity]:
    """Sensitivities of the student's parts to the rounding of a quantized artifact that has collapsed."""
    lists = (context.data.pairs(*listed) for listed in context.data.split("test").candidates.items())
    tokenizer = load_tokenizer(checkpoint.model.name, context.max_length)
    model = load_model(checkpoint.model.name, dtype="float32")
    if isinstance(config, WeightQuantizationConfig):
        return part_sensitivities(model, tokenizer, lists, packed_rounding(model, config))
    steps = weight_steps(getattr(config, "reduce_range", None))
    rounding = partial(fake_quantized, per_channel=getattr(config, "per_channel", True), steps=steps)
    return part_sensitivities(model, tokenizer, lists, rounding)
