"""Recipe sections `evaluate` and `publish`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from hfcompress.recipe.base import Positive, Strict
from hfcompress.recipe.long_documents import TRUNCATED, LongDocuments


class EvaluateStep(Strict):
    """How the teacher and every artifact are evaluated.

    Attributes:
        margin: Largest loss in mean nDCG@10 at which two models count as equally good.
        deploy: Name of the artifact to deploy, as reports name it, e.g. `student-openvino-int8-static`. It is tested
            first, at the full level, and the card is about it. By default it is chosen on dev: the fastest int8 graph
            whose loss is within the margin. The others are tested after it, by their quality on dev.
        confidence: Confidence level of the paired bootstrap interval.
        threads: Threads of every runtime; 0 uses all cores that the process may use, within the CPU
            quota of a container.
        batch_tokens: Token budget of the batches in flight: number of pairs times padded length.
        long_documents: How the teacher and every artifact read documents that do not fit into one input, wherever they
            are measured: on dev and test, on zero-shot sets, and for their speed. Training reads truncated pairs, of
            which it also takes the teacher's scores, and evaluates on dev likewise; so do calibration and cold start.
        speed_queries: Number of queries on which the throughput of all artifacts is measured, drawn by a hash of their
            ids. Ranking quality is measured on all queries.
        latency_queries: Test queries timed one by one for p50, p95 and p99.
        single_thread_queries: Test queries timed one by one on one thread, for at most about 20 seconds; 0 for none.
        cold_start: Start every artifact once in its own process, to measure cold start and memory.
        moved_queries: Number of queries with the largest loss, and with the largest gain, to explain; 0 for none.
        metrics: Additional metrics in report and card: `ndcg@K`, `mrr@K`, `recall@K`, `p@K`, `hit@K` or `judged@K` with
            a whole number for K, `map` or `auc`.
        rounds: Parts into which the queries of `speed_queries` are divided. All artifacts score one part in turn before
            the next, so that drift of the machine's speed cancels out.
        min_rank_correlation: Least Spearman rank correlation of a quantized artifact with the fp32 model that
            was quantized, as the mean over test queries. A run below it fails.
        zero_shot: Data sets that the run neither trains on nor chooses by, named as in `data.sets`. The teacher and the
            artifact to deploy rank the test split of each, with `data.candidates` documents a query, to show what the
            student keeps outside its domain.
        zero_shot_queries: Maximum number of test queries of each of these sets, taken in the order of a hash of their
            ids, so that a large set neither takes long nor outweighs the others when they are pooled.
    """

    margin: Annotated[float, Field(gt=0)] = 0.01
    deploy: str | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    threads: Annotated[int, Field(ge=0)] = 0
    batch_tokens: Positive = 2048
    long_documents: LongDocuments = TRUNCATED
    speed_queries: Positive = 100
    latency_queries: Positive = 30
    single_thread_queries: Annotated[int, Field(ge=0)] = 10
    cold_start: bool = True
    moved_queries: Annotated[int, Field(ge=0)] = 5
    metrics: list[str] = Field(default=[])
    rounds: Positive = 8
    min_rank_correlation: Annotated[float, Field(ge=0, le=1)] = 0.9
    zero_shot: list[str] = Field(default=[])
    zero_shot_queries: Positive = 500

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `long_documents` that is not set: fingerprints of earlier runs stay the same."""
        unset = self.long_documents.is_default
        return {key: value for key, value in dump(self).items() if key != "long_documents" or not unset}


class PublishStep(Strict):
    """Settings of the model card.

    Attributes:
        license: Licence of the compressed model, as an identifier of the Hub such as `apache-2.0`. The default is the
            licence in the card of `teacher.model`. A model without a licence is not published.
    """

    license: str = ""
