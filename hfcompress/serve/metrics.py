"""Metrics in the format of Prometheus, under the names of text-embeddings-inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric, UntypedMetricFamily
from prometheus_client.registry import Collector

from hfcompress.rankers.encoding import CacheCounts

DURATIONS = tuple(0.00001 * 1.5**power for power in range(1, 36))  # seconds, to 15; as text-embeddings-inference
POWERS = tuple(2.0**power for power in range(21))


class Metrics(Collector):
    """Metrics of a server. Counters have the names of text-embeddings-inference, without the suffix `_total`.

    Args:
        gauges: Returns, by name of a model, the requests and tokens that wait and the counts of its cache.
    """

    def __init__(self, gauges: Callable[[], dict[str, tuple[int, int, CacheCounts]]]):
        self._gauges = gauges
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._durations = {
            name: Histogram(f"te_request{name}_duration", text, ["model"], buckets=DURATIONS, registry=self._registry)
            for name, text in (
                ("", "Seconds of a request"),
                ("_tokenization", "Seconds of tokenization of a request"),
                ("_queue", "Seconds that a request waits for the runtime"),
                ("_inference", "Seconds from the first pair at the runtime to the last score"),
            )
        }
        self._length = self._sizes("te_request_input_length", "Tokens of a pair")
        self._batch_size = self._sizes("te_batch_next_size", "Pairs of a batch")
        self._batch_tokens = self._sizes("te_batch_next_tokens", "Tokens of a batch")

    def _sizes(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ["model"], buckets=POWERS, registry=self._registry)

    def count(self, name: str, label: str, value: str) -> None:
        """Add one to a counter with a label."""
        self._counts[name, label, value] += 1

    def request(self, model: str, lengths: list[int], total: float, parts: tuple[float, float, float]) -> None:
        """Record a request that was answered.

        Args:
            model: Name of the model.
            lengths: Tokens of each pair.
            total: Seconds of the request.
            parts: Seconds of tokenization, in the queue, and of inference.
        """
        for histogram, seconds in zip(self._durations.values(), (total, *parts), strict=True):
            histogram.labels(model).observe(seconds)
        observed = self._length.labels(model)
        for length in lengths:
            observed.observe(length)

    def batch(self, model: str, pairs: int, tokens: int) -> None:
        """Record a batch."""
        self._batch_size.labels(model).observe(pairs)
        self._batch_tokens.labels(model).observe(tokens)

    def collect(self) -> Iterator[Metric]:
        """Yield counters, and what is read off the models."""
        names = {(name, label) for name, label, _ in self._counts}
        for name, label in sorted(names):
            family = UntypedMetricFamily(name, "Counter of text-embeddings-inference", labels=[label])
            for (each, _, value), number in sorted(self._counts.items()):
                if each == name:
                    family.add_metric([value], number)
            yield family
        state = self._gauges()
        for name, text, read in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["model"])
            for model, found in state.items():
                gauge.add_metric([model], read(*found))
            yield gauge

    def text(self) -> bytes:
        """The exposition text."""
        return generate_latest(self._registry)


_GAUGES: tuple[tuple[str, str, Callable[[int, int, CacheCounts], float]], ...] = (
    ("te_queue_size", "Requests that wait", lambda requests, tokens, cache: requests),
    ("hfcompress_queue_tokens", "Tokens that wait", lambda requests, tokens, cache: tokens),
    ("hfcompress_cache_hits", "Documents found in the cache of tokens", lambda requests, tokens, cache: cache.hits),
    ("hfcompress_cache_misses", "Documents not found there", lambda requests, tokens, cache: cache.misses),
    ("hfcompress_cache_hit_rate", "Share of documents found", lambda requests, tokens, cache: cache.hit_rate),
    ("hfcompress_cache_bytes", "Memory of the cache of tokens", lambda requests, tokens, cache: cache.bytes),
)
