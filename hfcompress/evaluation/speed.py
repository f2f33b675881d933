"""What a report says of speed: throughput, single queries, one thread, and a start from nothing."""

from __future__ import annotations

from hfcompress.evaluation.schema import Interval, ReportPart


class Latency(ReportPart):
    """Speed with tokenization counted, measured in turns with all other artefacts of the run.

    Attributes:
        docs_per_second: Documents scored a second when many queries are scored together.
        p50_ms: Median time of one query with `candidates` documents, in milliseconds; each is asked when the one before
            it is answered.
        p95_ms: 95th percentile of the same.
        threads: Threads that the runtime may use.
        batch: The token budget of a batch (batch size times padded length).
        candidates: Documents a query in `p50_ms` and `p95_ms`.
        p99_ms: 99th percentile of the same; close to the slowest query where fewer than 100 were timed.
        queries: Queries that were timed one by one.
    """

    docs_per_second: float
    p50_ms: float
    p95_ms: float
    threads: int
    batch: int
    candidates: float
    p99_ms: float | None = None
    queries: int | None = None


class SingleThread(ReportPart):
    """Speed on one thread, the tokenizer's included, on a few queries one by one.

    Attributes:
        latency: Figures of these queries; `docs_per_second` is the median over them.
        speedup: Against the teacher on one thread, median of the ratios of the same queries.
        speedup_interval: Interval of that median; None for the teacher, and where there are too few queries.
    """

    latency: Latency
    speedup: float
    speedup_interval: Interval | None = None


class ColdStart(ReportPart):
    """The first query of a fresh process that uses nothing but what the runtime needs, with the files in memory.

    Attributes:
        import_seconds: Time to import the libraries.
        load_seconds: Time to load tokenizer and model.
        first_query_seconds: Time to score the candidates of one query.
        peak_memory_bytes: Largest resident memory of the process; None where the system does not tell.
    """

    import_seconds: float
    load_seconds: float
    first_query_seconds: float
    peak_memory_bytes: int | None = None

    @property
    def seconds(self) -> float:
        """Time from the start of the imports to the first scores."""
        return self.import_seconds + self.load_seconds + self.first_query_seconds
