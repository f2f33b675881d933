"""Parts of a report about speed: throughput, latency of single queries, one thread, and cold start."""

from __future__ import annotations

from hfcompress.report.schema import Interval, ReportPart


class Latency(ReportPart):
    """Speed including tokenization, measured in turns with all other artifacts of the run.

    Attributes:
        docs_per_second: Documents scored per second when many queries are scored together.
        p50_ms: Median time of one query with `candidates` documents, in milliseconds. Each query starts when the
            previous one is finished.
        p95_ms: 95th percentile of the time of one query.
        threads: Threads of the runtime.
        batch: Token budget of a batch (batch size times padded length).
        candidates: Mean number of documents per query in `p50_ms`, `p95_ms` and `p99_ms`.
        p99_ms: 99th percentile of the time of one query; close to the slowest one if fewer than 100 were timed.
        queries: Number of queries timed one by one.
        bulk_queries: Number of queries on which `docs_per_second` and the speed-up were measured; None for one thread,
            and in older reports, where these were all queries.
    """

    docs_per_second: float
    p50_ms: float
    p95_ms: float
    threads: int
    batch: int
    candidates: float
    p99_ms: float | None = None
    queries: int | None = None
    bulk_queries: int | None = None


class DeviceTeacher(ReportPart):
    """The teacher in PyTorch on the device of an artifact, timed in turns with it: the honest comparison there.

    Attributes:
        precision: Precision of the teacher: `fp32`, `fp16` or `bf16`.
        latency: Its speed.
        speedup: Speed-up of the artifact over it, as the median of the per-round ratios.
        speedup_interval: Interval of that median; None with too few rounds.
    """

    precision: str
    latency: Latency
    speedup: float
    speedup_interval: Interval | None = None


class SingleThread(ReportPart):
    """Speed on one thread, tokenizer included, over a few single queries.

    Attributes:
        latency: Speed on these queries; `docs_per_second` is the median over them.
        speedup: Speed-up over the teacher on one thread, as the median of the per-query ratios.
        speedup_interval: Interval of that median; None for the teacher, or with too few queries.
    """

    latency: Latency
    speedup: float
    speedup_interval: Interval | None = None


class ColdStart(ReportPart):
    """First query of a fresh process that loads only what the runtime needs; the files are in the page cache.

    Attributes:
        import_seconds: Time to import the libraries.
        load_seconds: Time to load tokenizer and model.
        first_query_seconds: Time to score the candidates of one query.
        peak_memory_bytes: Peak resident memory of the process; None if the system does not report it.
    """

    import_seconds: float
    load_seconds: float
    first_query_seconds: float
    peak_memory_bytes: int | None = None

    @property
    def seconds(self) -> float:
        """Time from the start of the imports to the first scores."""
        return self.import_seconds + self.load_seconds + self.first_query_seconds
