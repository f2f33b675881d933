"""How a recipe measures, and what its card says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hfcompress.recipe.base import Positive, Strict


class EvaluateStep(Strict):
    """How the teacher and every artefact are measured.

    Attributes:
        margin: Largest loss in mean nDCG@10 that counts as ranking as well.
        confidence: Confidence of the paired bootstrap interval.
        threads: Threads for every runtime; 0 uses all cores.
        batch_tokens: Token budget of what is computed at a time (pairs times padded length).
        latency_queries: Test queries timed one by one for p50, p95 and p99.
        single_thread_queries: Test queries timed one by one on one thread, at most some 20 seconds long; 0 for none.
        cold_start: Whether to start every artefact once in a process of its own, for its cold start and memory.
        moved_queries: Queries that lost most, and as many that gained most, to be explained; 0 for none.
        metrics: Metrics that report and card have besides: `ndcg@K`, `mrr@K`, `recall@K`, `p@K`, `hit@K` or `judged@K`
            with a whole number for K, `map` or `auc`.
        rounds: Parts in which the test queries are scored; all artefacts score a part in turn, so that drift of the
            machine's speed cancels.
        min_rank_correlation: Least Spearman rank correlation of a quantized artefact with the fp32 model that was
            quantized, mean over the test queries; a run with less fails.
    """

    margin: Annotated[float, Field(gt=0)] = 0.01
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    threads: Annotated[int, Field(ge=0)] = 0
    batch_tokens: Positive = 2048
    latency_queries: Positive = 30
    single_thread_queries: Annotated[int, Field(ge=0)] = 10
    cold_start: bool = True
    moved_queries: Annotated[int, Field(ge=0)] = 5
    metrics: list[str] = Field(default=[])
    rounds: Positive = 8
    min_rank_correlation: Annotated[float, Field(ge=0, le=1)] = 0.9


class PublishStep(Strict):
    """What the model card says.

    Attributes:
        license: Licence of the compressed model, as the Hub calls it, e.g. `apache-2.0`; where left out, the one that
            the card of `teacher.model` names, if any. Without one nothing is published.
    """

    license: str = ""
