"""From measured rankers to the report: every candidate of a run, its quality, its verdict and its speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import PretrainedConfig
from transformers.utils import cached_file

from hfcompress.architectures import architecture_of
from hfcompress.data.ranking import RankingData
from hfcompress.errors import OutputError
from hfcompress.evaluation.cold_start import measure_cold_start
from hfcompress.evaluation.explanation import Explanation
from hfcompress.evaluation.measure import Measurement, measure, measure_single_thread
from hfcompress.evaluation.metrics import (
    REPORTED,
    Run,
    agreement,
    first_stage_run,
    means,
    per_query,
    rank_correlation,
    tied_share,
)
from hfcompress.evaluation.report import (
    Artifact,
    DataSummary,
    FirstStage,
    LayerKept,
    Machine,
    PruningSummary,
    RunReport,
)
from hfcompress.evaluation.schema import Interval
from hfcompress.evaluation.significance import compare, holm
from hfcompress.evaluation.speed import ColdStart, SingleThread
from hfcompress.evaluation.stability import measure_stability
from hfcompress.files import deflated_size_of, size_of
from hfcompress.importance.importance import Importance
from hfcompress.layout import COMMON_FILES, PACKED_FOLDER, PRUNING_FILE
from hfcompress.machine import cpu_flags, cpu_name, memory_gb, thread_count, versions
from hfcompress.models import PACKAGE_SCHEME, load_model, load_tokenizer, resolve
from hfcompress.plan import PruningPlan
from hfcompress.quantization.artifacts import graph_file
from hfcompress.quantization.config import QuantizationConfig
from hfcompress.rankers.base import BatchedRanker, Pair, RankerOptions
from hfcompress.rankers.load import Runtime, load_ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import EvaluateStep, Recipe
from hfcompress.surgery import encoder_flops, needs_custom_code, plan_of_config

PRIMARY_METRIC = "ndcg@10"


@dataclass(frozen=True)
class Candidate:
    """Something to measure.

    Attributes:
        name: Name in the report.
        folder: Folder or name of the model.
        path: Path in the output folder, or the model's name.
        runtime: Where it runs.
        precision: Its precision.
        made_from: Name of the candidate in fp32 that was quantized; None for what is in fp32 itself.
    """

    name: str
    folder: str
    path: str
    runtime: Runtime
    precision: str
    made_from: str | None = None

    @classmethod
    def teacher(cls, model: str, path: str) -> Candidate:
        """The teacher in fp32 PyTorch."""
        return cls("teacher", model, path, "torch", "fp32")

    @classmethod
    def student(cls, folder: Path) -> Candidate:
        """The student in fp32 PyTorch."""
        return cls("student-torch", str(folder), "model.safetensors", "torch", "fp32")

    @classmethod
    def graph(cls, folder: Path, config: QuantizationConfig, made_from: str) -> Candidate:
        """An int8 graph of the student, or its packed weights; `made_from` names the candidate in fp32."""
        return cls(
            f"student-{config.runtime}-{config.precision}",
            str(folder),
            graph_file(config),
            cast(Runtime, config.runtime),
            config.precision,
            made_from,
        )

    def ranker(self, max_length: int | None, options: RankerOptions) -> BatchedRanker:
        """Load it."""
        return load_ranker(self.folder, self.runtime, self.file, max_length, options)

    @property
    def file(self) -> str | None:
        """File in the folder that is loaded; None for the checkpoint's own weights."""
        return None if self.runtime == "torch" and not self.is_packed else self.path

    @property
    def is_packed(self) -> bool:
        """Whether it has weights of few bits, in a file that stands for the checkpoint's own."""
        return self.path.startswith(f"{PACKED_FOLDER}/")

    def files(self) -> list[Path]:
        """What a deployment needs."""
        folder = Path(resolve(self.folder))
        if not folder.is_dir():  # a model on the Hub: what was downloaded of it
            folder = Path(str(cached_file(self.folder, "config.json"))).parent
        if self.is_packed:
            weights = [folder / self.path]
        elif self.runtime == "torch":
            weights = [*folder.glob("*.safetensors"), *folder.glob("modeling_*.py")]
        else:
            graph = folder / self.path
            weights = [graph, graph.with_suffix(".bin")] if self.runtime == "openvino" else [graph]
        return [*weights, *(folder / name for name in COMMON_FILES if (folder / name).is_file())]


@dataclass(frozen=True)
class Measured:
    """What was measured of a candidate.

    Attributes:
        artifact: For the report.
        run: Its scores.
    """

    artifact: Artifact
    run: Run


def measure_candidates(
    candidates: list[Candidate],
    data: RankingData,
    step: EvaluateStep,
    max_length: int | None,
    seed: int,
    progress: bool = True,
    split: str = "test",
    metrics: Sequence[str] = REPORTED,
    deflated: bool = False,
) -> list[Measured]:
    """Measure all candidates side by side; the first one is the teacher.

    Args:
        candidates: What to measure.
        data: The data.
        step: How.
        max_length: Longest input in tokens; None for that of each tokenizer.
        seed: Seed of the bootstrap.
        progress: Show a progress bar.
        split: The split.
        metrics: Metrics in `quality`; nDCG@10 must be among them.
        deflated: Compress every file too, to see what zeros save.

    Returns:
        One artefact and one run for each candidate, in their order.
    """
    options = RankerOptions(step.threads, step.batch_tokens)
    rankers = [candidate.ranker(max_length, options) for candidate in candidates]
    measured = measure(rankers, data, split, step.rounds, step.latency_queries, progress)
    chosen = data.split(split)
    judged = {query: documents for query, documents in chosen.candidates.items() if documents}
    lists = [data.pairs(query, documents) for query, documents in judged.items()]
    scores = {
        candidate.name: list(found.scores.values()) for candidate, found in zip(candidates, measured, strict=True)
    }
    runs = [measurement.run(judged) for measurement in measured]
    results: list[Artifact] = []
    single = _single_thread(candidates, lists, step, max_length, rankers[0].threads)
    parameters = _parameters(candidates, rankers)
    for candidate, ranker, measurement, run in zip(candidates, rankers, measured, runs, strict=True):
        by_query = per_query(chosen.qrels, run, data.relevant_from, metrics)
        primary = {query: values[PRIMARY_METRIC] for query, values in by_query.items()}
        first = results[0] if results else None
        of = candidate.made_from
        kept = None if of is None else rank_correlation(scores[of], scores[candidate.name])
        results.append(
            Artifact(
                name=candidate.name,
                path=candidate.path,
                runtime=candidate.runtime,
                precision=candidate.precision,
                size_bytes=size_of(candidate.files()),
                deflated_bytes=deflated_size_of(candidate.files()) if deflated else None,
                parameters=parameters[candidate.folder],
                quality=means(by_query),
                per_query=primary,
                agreement=agreement(runs[0], run) if first else {},
                delta=(
                    compare(first.per_query, primary, step.margin, step.confidence, seed=seed, set_of=data.set_of)
                    if first
                    else None
                ),
                latency=measurement.latency(ranker),
                speedup=_speedup(measurement, measured[0]),
                tied_share=tied_share(run),
                stability=measure_stability(ranker, lists, kept) if first else None,
                speedup_interval=_speedup_interval(measurement, measured[0], step.confidence),
                single_thread=single.get(candidate.name),
                cold_start=_cold_start(candidate, ranker, lists[0]) if step.cold_start else None,
            )
        )
    return [Measured(artifact, run) for artifact, run in zip(_corrected(results), runs, strict=True)]


def _corrected(results: list[Artifact]) -> list[Artifact]:
    """The verdicts corrected for the number of artefacts that are compared."""
    deltas = iter(holm([artifact.delta for artifact in results if artifact.delta]))
    return [artifact.model_copy(update={"delta": next(deltas)}) if artifact.delta else artifact for artifact in results]


def build_report(
    recipe: Recipe,
    data: RankingData,
    config: PretrainedConfig,
    pruning: PruningSummary | None,
    results: list[Artifact],
    explanation: Explanation | None = None,
) -> RunReport:
    """Put everything measured into one report; steps are added when the run ends."""
    test = data.split("test")
    first = per_query(test.qrels, first_stage_run(test.candidates), data.relevant_from, REPORTED)
    return RunReport(
        name=recipe.name,
        base_model=base_model_name(recipe),
        model_type=architecture_of(config).model_type,
        license=recipe.publish.license,
        max_length=recipe.teacher.max_length,
        recipe=recipe.text,
        primary_metric=PRIMARY_METRIC,
        data=summarize_data(recipe, data),
        pruning=pruning,
        first_stage=FirstStage(
            name="BM25",
            quality=means(first),
            per_query={query: values[PRIMARY_METRIC] for query, values in first.items()},
        ),
        teacher=results[0],
        artifacts=results[1:],
        steps=[],
        machine=machine(),
        explanation=explanation,
    )


def base_model_name(recipe: Recipe) -> str:
    """How the card names the model: a Hub id, or words that cannot be taken for one."""
    step = recipe.teacher
    if step.base_model:
        return step.base_model
    if step.model.startswith(PACKAGE_SCHEME) or Path(step.model).exists():
        return f"a local model ({Path(step.model).name})"
    return step.model


def summarize_data(recipe: Recipe, data: RankingData) -> DataSummary:
    """Figures about the data, and how long its test pairs are."""
    test = data.split("test")
    tokenizer = load_tokenizer(recipe.teacher.model)
    pairs = [pair for query, documents in test.candidates.items() for pair in data.pairs(query, documents)]
    encoded = tokenizer([query for query, _ in pairs], [document for _, document in pairs], return_length=True)
    lengths, limit = encoded["length"], recipe.teacher.max_length
    return DataSummary(
        name=data.name,
        fingerprint=data.fingerprint(),
        license=data.license,
        language=data.language,
        publish_texts=data.publish_texts,
        queries={name: len(split) for name, split in data.splits.items()},
        documents=len(data.corpus),
        candidates_per_query=len(pairs) / len(test),
        mean_tokens=sum(min(length, limit) for length in lengths) / len(lengths),
        truncated_share=sum(length > limit for length in lengths) / len(lengths),
        notes=list(data.notes),
    )


def pruning_summary(
    importance: Importance, before: PruningPlan, plan: PruningPlan, flops_kept: float, custom_code: bool
) -> PruningSummary:
    """What a plan keeps, with the importance of every head that there was."""
    scores = [[0.0] * before.heads_of for _ in range(before.layers_of)]
    for layer, values in zip(before.layers, importance.heads, strict=True):
        for head, value in zip(layer.heads, values.tolist(), strict=True):
            scores[layer.layer][head] = value
    return PruningSummary(
        importance=importance.method,
        layers_of=plan.layers_of,
        layers=[
            LayerKept(
                layer=layer.layer,
                heads=list(layer.heads),
                heads_of=plan.heads_of,
                ffn=len(layer.ffn),
                ffn_of=plan.ffn_of,
            )
            for layer in plan.layers
        ],
        head_importance=scores,
        encoder_flops_kept=flops_kept,
        custom_code=custom_code,
    )


def read_pruning(folder: Path, config: PretrainedConfig, report: RunReport | None) -> PruningSummary:
    """What was pruned of a model: as its report or the command that pruned it tells, else from its plan alone.

    Raises:
        OutputError: What the command wrote cannot be read.
    """
    if report and report.pruning:
        return report.pruning
    if (path := folder / PRUNING_FILE).is_file():
        try:
            return PruningSummary.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OutputError(
                f"{path} cannot be read",
                value=str(error).splitlines()[0],
                expected="what `hfcompress prune` of this version wrote",
                remedy="prune again, or remove the file: the plan in config.json is then shown alone",
            ) from error
    return plan_summary(config, plan_of_config(config))


def plan_summary(config: PretrainedConfig, plan: PruningPlan) -> PruningSummary:
    """What a plan keeps, where the importance of what it drops is not known."""
    full = PruningPlan.full(plan.layers_of, plan.heads_of, plan.ffn_of)
    heads = [torch.zeros(plan.heads_of) for _ in range(plan.layers_of)]
    unknown = Importance.additive("unknown", heads, [torch.zeros(plan.ffn_of) for _ in range(plan.layers_of)])
    share = encoder_flops(config, plan) / encoder_flops(config, full)
    return pruning_summary(unknown, full, plan, share, needs_custom_code(config, plan))


def machine() -> Machine:
    """The machine that this runs on."""
    import platform

    return Machine(
        cpu=cpu_name(),
        flags=cpu_flags(),
        cores=thread_count(),
        memory_gb=memory_gb(),
        platform=f"{platform.system()} {platform.machine()}",
        versions=versions(),
    )


def _parameters(candidates: list[Candidate], rankers: list[BatchedRanker]) -> dict[str, int]:
    """Number of parameters of the model in each folder; models that are loaded are not loaded again."""
    models = {
        candidate.folder: ranker.model
        for candidate, ranker in zip(candidates, rankers, strict=True)
        if isinstance(ranker, TorchRanker)
    }
    return {
        folder: sum(parameter.numel() for parameter in (models.get(folder) or load_model(folder)).parameters())
        for folder in {candidate.folder for candidate in candidates}
    }


def _speedup(measurement: Measurement, teacher: Measurement) -> float:
    return 1.0 if measurement is teacher else measurement.speedup_over(teacher)


def _speedup_interval(measurement: Measurement, teacher: Measurement, confidence: float) -> Interval | None:
    return None if measurement is teacher else measurement.speedup_interval(teacher, confidence)


def _single_thread(
    candidates: list[Candidate], lists: list[list[Pair]], step: EvaluateStep, max_length: int | None, threads: int
) -> dict[str, SingleThread]:
    """Speed on one thread, by the candidate's name; nothing where all was measured on one thread anyway."""
    if threads == 1 or not step.single_thread_queries:
        return {}
    rankers = [candidate.ranker(max_length, RankerOptions(1, step.batch_tokens)) for candidate in candidates]
    measured = measure_single_thread(rankers, lists[: step.single_thread_queries], step.confidence)
    return {candidate.name: found for candidate, found in zip(candidates, measured, strict=True)}


def _cold_start(candidate: Candidate, ranker: BatchedRanker, pairs: list[Pair]) -> ColdStart | None:
    return measure_cold_start(ranker, candidate.folder, candidate.runtime, candidate.file, pairs)
