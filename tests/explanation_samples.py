"""Four queries whose ranking moved between teacher and student, for tests of explanations."""

from __future__ import annotations

from report_samples import example_artifact, example_delta

from hfcompress.data.document import Document
from hfcompress.data.ranking import RankingData, Split
from hfcompress.evaluation.metrics import Run, per_query
from hfcompress.report.report import Artifact

# Query a has two relevant documents, c one of a lower grade that does not count; d has none among its candidates.
DATA = RankingData(
    "small",
    queries={"a": "ba de", "b": "fi", "c": "go lu ka", "d": "ne"},
    corpus={f"d{number}": Document("", " ".join(["sun"] * (number + 1))) for number in range(6)},
    splits={
        "test": Split(
            qrels={"a": {"d0": 1, "d5": 2, "d1": 0}, "b": {"d1": 1}, "c": {"d2": 1}, "d": {"d4": 1}},
            candidates={
                "a": ["d0", "d1", "d2", "d5"], "b": ["d0", "d1"], "c": ["d2", "d3"], "d": ["d0", "d1"],
            },
        )
    },
    publish_texts=True,
)  # fmt: skip
TEACHER = {
    "a": {"d5": 4.0, "d0": 3.0, "d1": 2.0, "d2": 1.0}, "b": {"d0": 2.0, "d1": 1.0}, "c": {"d2": 2.0, "d3": 1.0},
    "d": {"d0": 2.0, "d1": 1.0},
}  # fmt: skip
STUDENT = {**TEACHER, "a": {"d1": 4.0, "d2": 3.0, "d5": 2.0, "d0": 1.0}, "b": {"d0": 1.0, "d1": 2.0}}


def measured(run: Run, name: str) -> Artifact:
    values = {query: metrics["ndcg@10"] for query, metrics in per_query(DATA.splits["test"].qrels, run).items()}
    delta = None if name == "teacher" else example_delta(-0.004, "non-inferior")
    return example_artifact(name, "torch", 2.0, delta, per_query=values)


ARTIFACTS = [measured(TEACHER, "teacher"), measured(STUDENT, "student")]
