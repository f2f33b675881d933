"""Evaluate models that no run of this moment made: any cross-encoder, alone or against a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pydantic import BaseModel

from hfcompress.data.load import load_data
from hfcompress.data.ranking import SPLITS
from hfcompress.evaluation.metrics import first_stage_run, means, per_query
from hfcompress.evaluation.report import Artifact, FirstStage, Machine
from hfcompress.evaluation.results import PRIMARY_METRIC, Candidate, evaluate_candidates, machine
from hfcompress.layout import ONNX_INT8, OPENVINO_INT8
from hfcompress.models import load_config, load_tokenizer, position_limit
from hfcompress.rankers.load import Runtime, default_graph
from hfcompress.recipe import DataStep, EvaluateStep, SplitLimits


class Evaluation(BaseModel):
    """Result of one evaluation; the baseline, if there is one, comes first in `artifacts`."""

    data: str
    fingerprint: str
    split: str
    first_stage: FirstStage
    artifacts: list[Artifact]
    machine: Machine


def evaluate_models(
    model: str,
    baseline: str | None,
    sets: list[str],
    split: str,
    runtime: str | None = None,
    max_length: int | None = None,
    max_queries: int | None = None,
    candidates: int = 20,
    margin: float = 0.01,
    progress: bool = True,
) -> Evaluation:
    """Measure a model, and a baseline in PyTorch fp32, on the same candidates.

    Args:
        model: A folder or a Hub id.
        baseline: What to compare with; None measures the model alone.
        sets: `api-search` or folders in BEIR's layout.
        split: The split.
        runtime: Where the model runs; its fastest file by default.
        max_length: Longest input in tokens; by default the model's, at most its positions.
        max_queries: At most so many queries.
        candidates: Documents to rank for a query.
        margin: Largest loss in nDCG@10 that counts as ranking as well.
        progress: Show progress bars.

    Raises:
        HfCompressError: A model or the data cannot be used.
    """
    limit = max_length or min(load_tokenizer(model).model_max_length, position_limit(load_config(model)))
    compared = [] if baseline is None else [Candidate("baseline", baseline, baseline, "torch", "fp32")]
    compared.append(_candidate(model, cast(Runtime | None, runtime)))
    # The other splits are not looked at: one query keeps them valid, and candidates for more need not be retrieved.
    limits = SplitLimits(**{**dict.fromkeys(SPLITS, 1), split: max_queries})
    data = load_data(DataStep(sets=sets, candidates=candidates, max_queries=limits), progress)
    artifacts = evaluate_candidates(compared, data, EvaluateStep(margin=margin), limit, 0, progress, split)
    chosen = data.split(split)
    first = per_query(chosen.qrels, first_stage_run(chosen.candidates), data.relevant_from)
    return Evaluation(
        data=data.name,
        fingerprint=data.fingerprint(),
        split=split,
        first_stage=FirstStage(
            name="BM25",
            quality=means(first),
            per_query={query: values[PRIMARY_METRIC] for query, values in first.items()},
        ),
        artifacts=artifacts,
        machine=machine(),
    )


def _candidate(model: str, runtime: Runtime | None) -> Candidate:
    graph = None if runtime == "torch" else default_graph(Path(model), runtime)
    if graph:
        return Candidate("model", model, graph[1], graph[0], "int8")
    if runtime in (None, "torch"):
        return Candidate("model", model, model, "torch", "fp32")
    fallback = ONNX_INT8 if runtime == "onnxruntime" else OPENVINO_INT8
    return Candidate("model", model, fallback, cast(Runtime, runtime), "int8")  # the ranker says that it is missing
