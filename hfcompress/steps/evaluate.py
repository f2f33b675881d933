"""The step that measures the teacher and every artifact side by side."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.collapse import PartSensitivity, check_collapse, part_sensitivities
from hfcompress.evaluation.explain import explain
from hfcompress.evaluation.fidelity import FIXED
from hfcompress.evaluation.metrics import judged_queries
from hfcompress.evaluation.power import expected_verdict, pass_probability
from hfcompress.evaluation.results import EvaluatedCandidate, build_report, evaluate_candidates
from hfcompress.evaluation.saliency import add_saliency
from hfcompress.evaluation.sequence import default_sequence, measured_sequence
from hfcompress.models.load import load_model, load_tokenizer
from hfcompress.pruning.write import sparsity_summary
from hfcompress.quantization.artifacts import graph_file
from hfcompress.quantization.config import QuantizationConfig, WeightQuantizationConfig, config_from_recipe
from hfcompress.quantization.rounding import fake_quantized, weight_steps
from hfcompress.quantization.weights import packed_rounding
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import HalfPrecision, Recipe
from hfcompress.report.explanation import Explanation
from hfcompress.report.report import Artifact
from hfcompress.steps.context import RunContext, runnable, written
from hfcompress.steps.fidelity import measure_fidelity
from hfcompress.steps.inputs import also_parts
from hfcompress.steps.prune import pruning_summary_of
from hfcompress.steps.workspace import StepFolder, StepModel
from hfcompress.utils.device import CPU, device_title
from hfcompress.utils.files import write_text
from hfcompress.utils.quiet import quiet

logger = logging.getLogger(__name__)


SEQUENCE_FILE = "sequence.json"
DEV_ROUNDS = 4


def candidates_of(recipe: Recipe, teacher: str, checkpoint: Path, device: str = CPU) -> list[Candidate]:
    """The teacher and every artifact of a run.

    Models in fp32 PyTorch are timed on the CPU, beside the graphs; on the device if all artifacts run there.

    Args:
        recipe: The recipe.
        teacher: Name of the teacher.
        checkpoint: Folder with the student and its graphs.
        device: Device of models in PyTorch.
    """
    artifacts = runnable(recipe.quantize.artifacts)
    halves = [artifact for artifact in artifacts if isinstance(artifact, HalfPrecision)]
    exact = device if halves and len(halves) == len(artifacts) else CPU
    candidates = [Candidate.teacher(teacher, "teacher", exact)]
    student = Candidate.student(checkpoint, exact)
    if recipe.prune:
        candidates.append(student)
    made_from = candidates[-1].name
    return candidates + [
        replace(student.in_precision(artifact.dtype, device), made_from=made_from)
        if isinstance(artifact, HalfPrecision)
        else Candidate.graph(checkpoint, config_from_recipe(artifact), made_from)
        for artifact in artifacts
    ]


def deployable(candidates: Sequence[Candidate]) -> list[str]:
    """Names of the candidates that are made to be deployed: graphs for a runtime, and models in 16 bits."""
    return [each.name for each in candidates if not each.is_exact]


def choose_sequence(context: RunContext, teacher: StepModel, checkpoint: StepFolder) -> StepFolder:
    """Set the order in which artifacts are tested, by measurements on dev, before the test split is seen.

    Args:
        context: The run.
        teacher: The teacher.
        checkpoint: Folder with the student and its graphs.

    Returns:
        Folder with the names of the artifacts in that order.
    """
    recipe, dev = context.recipe, context.data.splits.get("dev")

    def work(folder: Path, partial: Path) -> None:
        candidates = candidates_of(recipe, teacher.name, checkpoint.path, str(context.device))
        names = [each.name for each in candidates[1:]]
        graphs = deployable(candidates)
        first = recipe.evaluate.deploy
        if dev and dev.labelled and len(names) > 2 - (first is None):
            step = recipe.evaluate.model_copy(
                update={"cold_start": False, "single_thread_queries": 0, "latency_queries": 1, "rounds": DEV_ROUNDS}
            )
            evaluated = evaluate_candidates(
                candidates,
                context.data,
                step,
                max_length=context.max_length,
                seed=recipe.seed,
                progress=context.progress,
                split="dev",
                stability=False,
                device=str(context.device),
            )
            names = measured_sequence([each.artifact for each in evaluated], graphs, recipe.evaluate.margin)
            _log_power(context, [each.artifact for each in evaluated], first or names[0])
        else:
            names = default_sequence(names, graphs)
        if first is not None:
            names = [first, *(name for name in names if name != first)]
        logger.info(f"sequence: {', then '.join(names)}")
        write_text(folder / SEQUENCE_FILE, json.dumps(names))

    included = {"margin", "deploy", "threads", "batch_tokens", "long_documents"}
    settings = recipe.evaluate.model_dump(mode="json", include=included)
    what = f"order of the tests: {recipe.evaluate.deploy or 'by dev queries'} first"
    return context.workspace.step(
        "sequence", [settings, context.data.fingerprint(), checkpoint.fingerprint, *_place(context)], work, what
    )


def _place(context: RunContext) -> list[str]:
    """The device that an artifact is timed on, if that is not the CPU: figures of another one are not kept."""
    halves = any(isinstance(each, HalfPrecision) for each in context.recipe.quantize.artifacts)
    return [device_title(context.device)] if halves and context.device.type != CPU else []


def _log_power(context: RunContext, artifacts: Sequence[Artifact], first: str) -> None:
    """Log what the test queries can show of the artifact that is tested first, by its spread on dev."""
    delta = next(each.delta for each in artifacts if each.name == first)
    assert delta is not None
    queries = judged_queries(context.data, "test")
    logger.info(
        f"verdict: {expected_verdict(delta, queries, first)}. By its difference on dev ({delta.mean:+.4f}), it is "
        f"non-inferior on test with a probability of {pass_probability(delta, queries):.0%}"
    )


def evaluate(
    context: RunContext,
    teacher: StepModel,
    checkpoint: StepFolder,
    pruned: Sequence[StepModel],
    sequence: StepFolder,
) -> StepFolder:
    """Measure the teacher and every artifact on the test split, in turns.

    Args:
        context: The run.
        teacher: The teacher.
        checkpoint: Folder with the student and its graphs.
        pruned: The pruned model of each stage.
        sequence: Folder with the order of the tests.

    Returns:
        Folder with the report; the steps of the run are not in it yet.
    """
    recipe, also = context.recipe, also_parts(context)
    sparse = recipe.prune.weights if recipe.prune else None

    def work(folder: Path, partial: Path) -> None:
        candidates = candidates_of(recipe, teacher.name, checkpoint.path, str(context.device))
        exact = candidates[1 if recipe.prune else 0].name
        names = json.loads((sequence.path / SEQUENCE_FILE).read_text(encoding="utf-8"))
        evaluated = evaluate_candidates(
            candidates,
            context.data,
            recipe.evaluate,
            max_length=context.max_length,
            seed=recipe.seed,
            progress=context.progress,
            deflated=sparse is not None,
            sequence=names,
            device=str(context.device),
        )
        results = [found.artifact for found in evaluated]
        by_path = {graph_file(config): config for config in written(recipe.quantize.artifacts)}
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
        explanation = _explanation(context, evaluated, teacher, checkpoint, names)
        report = build_report(recipe, context.data, student.config, pruning, results, explanation, names, also)
        fidelity = measure_fidelity(context, candidates, evaluated, checkpoint.path)
        report.model_copy(update={"score_fidelity": fidelity}).save(folder)

    data = context.data
    # Goes into the report; whether texts may be shown is part of it.
    metadata = [data.name, data.license, data.notes, data.first_stage, data.publish_texts]
    settings = recipe.evaluate.model_dump(mode="json", exclude={"zero_shot", "zero_shot_queries"})
    metadata += [[each.name, each.license] for each in also]
    inputs = [settings, recipe.name, data.fingerprint(), metadata, list(FIXED), *_place(context)]
    what = (
        f"teacher and artifacts on {len(context.data.splits['test'])} test queries, margin {recipe.evaluate.margin:g}"
    )
    return context.workspace.step("evaluate", [inputs, checkpoint.fingerprint, sequence.fingerprint], work, what)


def _explanation(
    context: RunContext,
    evaluated: list[EvaluatedCandidate],
    teacher: StepModel,
    checkpoint: StepFolder,
    sequence: Sequence[str],
) -> Explanation | None:
    """Where the artifact to deploy ranks otherwise than its teacher, and what the student looks at."""
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
        sequence=sequence,
        chunks=recipe.evaluate.long_documents.chunks,
    )
    if explanation is None or not (recipe.prune and explanation.moved):
        return explanation
    with quiet():
        dense, pruned = (
            TorchRanker(load_model(name, "float32", device=context.device), load_tokenizer(name, context.max_length))
            for name in (teacher.name, checkpoint.model.name)
        )
    return add_saliency(explanation, context.data, "test", dense, pruned, artifacts)


def _sensitivities(context: RunContext, checkpoint: StepFolder, config: QuantizationConfig) -> list[PartSensitivity]:
    """Sensitivities of the student's parts to the rounding of a quantized artifact that has collapsed."""
    lists = (context.data.pairs(*listed) for listed in context.data.split("test").candidates.items())
    tokenizer = load_tokenizer(checkpoint.model.name, context.max_length)
    model = load_model(checkpoint.model.name, dtype="float32", device=context.device)
    if isinstance(config, WeightQuantizationConfig):
        return part_sensitivities(model, tokenizer, lists, packed_rounding(model, config))
    steps = weight_steps(getattr(config, "reduce_range", None))
    rounding = partial(fake_quantized, per_channel=getattr(config, "per_channel", True), steps=steps)
    return part_sensitivities(model, tokenizer, lists, rounding)
