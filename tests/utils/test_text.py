"""Formatting of numbers, metric names and Markdown."""

from __future__ import annotations

import pytest

from hfcompress.utils.text import code, duration, fence, metric_label, percent, signed, table


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (250, "4 min 10 s"), (3900, "1 h 05 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("share", "words"), [(0, "0%"), (0.95, "95%"), (0.004, "0.4%"), (0.0001, "0.01%"), (0.998, "99.8%"), (1, "100%")]
)
def test_percentages(share: float, words: str) -> None:
    assert percent(share) == words


@pytest.mark.parametrize(
    ("name", "label"),
    [("ndcg@10", "nDCG@10"), ("mrr@5", "MRR@5"), ("map", "MAP"), ("judged@10", "Judged@10"), ("Verdict", "Verdict")],
)
def test_metric_labels(name: str, label: str) -> None:
    assert metric_label(name) == label


def test_markdown() -> None:
    assert table(["a", "b"], [["x|y", "1\n2"]], right_from=1) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 2 |"
    assert code("a `b`") == "`` a `b` ``" and fence("```", "sh") == "````sh\n```\n````"
    assert signed(-0.00001) == "+0.0000"
