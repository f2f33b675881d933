"""What a report says of where an artefact ranks otherwise than its teacher: single queries, and kinds of queries."""

from __future__ import annotations

from hfcompress.evaluation.schema import ReportPart


class RelevantDocument(ReportPart):
    """A relevant document of a query that moved.

    Attributes:
        document: Its id.
        grade: Its grade.
        teacher_rank: Its rank among the candidates by the teacher's scores, from 1.
        artifact_rank: The same by the artefact's.
        tokens: Length of query and document together, before truncation.
        truncated: Whether that is longer than the model's input.
        text: The beginning of the text, where the data's licence lets it be shown.
    """

    document: str
    grade: int
    teacher_rank: int
    artifact_rank: int
    tokens: int
    truncated: bool
    text: str | None = None


class SaliencyAgreement(ReportPart):
    """How alike teacher and student weigh the words of one pair, by gradient x input.

    Attributes:
        document: The document.
        words: Words of query and document that both models read.
        correlation: Spearman's rank correlation of the words' weights.
        overlap: Share of the teacher's 5 weightiest words that are among the student's 5.
    """

    document: str
    words: int
    correlation: float
    overlap: float


class MovedQuery(ReportPart):
    """A query whose ranking gained or lost.

    Attributes:
        query: Its id.
        teacher: Primary metric of the teacher.
        artifact: Primary metric of the artefact.
        tokens: Length of the query.
        candidates: Candidates that were ranked.
        documents: Relevant documents among the candidates, the highest grade first; at most 5.
        text: The query, where the data's licence lets it be shown.
        saliency: What the two models look at in the first of `documents`; None where there is no student in PyTorch.
    """

    query: str
    teacher: float
    artifact: float
    tokens: int
    candidates: int
    documents: list[RelevantDocument]
    text: str | None = None
    saliency: SaliencyAgreement | None = None


class QueryGroup(ReportPart):
    """Test queries that are alike in one thing.

    Attributes:
        least: Least value of that thing in the group, e.g. tokens of a query.
        most: Largest value.
        queries: Queries of the group.
        teacher: Mean of the primary metric of the teacher.
        difference: Mean of (artefact - teacher).
        standard_error: Standard error of that mean; None for a single query.
    """

    least: int
    most: int
    queries: int
    teacher: float
    difference: float
    standard_error: float | None


class SteadySaliency(ReportPart):
    """Agreement on queries that did not move, to compare those with that did.

    Attributes:
        queries: Number of these queries.
        correlation: Mean of the correlations.
        overlap: Mean of the overlaps.
    """

    queries: int
    correlation: float
    overlap: float


class Explanation(ReportPart):
    """Where the artefact that speaks for the run ranks otherwise than its teacher.

    Attributes:
        artifact: Its name.
        moved: The queries that lost most, the largest loss first, then those that gained most.
        by_query_length: Test queries grouped by their length in tokens, in groups of about equal size.
        by_relevant: Test queries grouped by their number of relevant documents.
        steady_saliency: Saliency agreement on some queries that did not move; None where it was not measured.
    """

    artifact: str
    moved: list[MovedQuery]
    by_query_length: list[QueryGroup]
    by_relevant: list[QueryGroup]
    steady_saliency: SteadySaliency | None = None
