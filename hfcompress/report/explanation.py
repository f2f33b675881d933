"""Parts of a report that explain where an artifact ranks differently from its teacher."""

from __future__ import annotations

from pydantic import Field

from hfcompress.report.schema import ReportPart


class RelevantDocument(ReportPart):
    """A relevant document of a query whose quality changed.

    Attributes:
        document: Its id.
        grade: Its grade.
        teacher_rank: Its rank among the candidates by the teacher's scores, from 1.
        artifact_rank: Its rank by the artifact's scores.
        tokens: Length of query and document together, before truncation.
        truncated: Whether that is longer than the model's input, and no document is read in chunks.
        text: The beginning of the text, if the data's licence lets it be shown.
    """

    document: str
    grade: int
    teacher_rank: int
    artifact_rank: int
    tokens: int
    truncated: bool
    text: str | None = None


class SaliencyAgreement(ReportPart):
    """Agreement of teacher and student about the words of one pair, by gradient x input.

    Attributes:
        document: The document.
        words: Words of query and document that both models read.
        correlation: Spearman's rank correlation of the words' saliencies.
        overlap: Share of the teacher's 5 most salient words that are among the student's 5.
    """

    document: str
    words: int
    correlation: float
    overlap: float


class MovedQuery(ReportPart):
    """A query whose quality changed.

    Attributes:
        query: Its id.
        teacher: Primary metric of the teacher.
        artifact: Primary metric of the artifact.
        tokens: Length of the query.
        candidates: Number of ranked candidates.
        documents: Relevant documents among the candidates, the highest grade first; at most 5.
        text: The query, if the data's licence lets it be shown.
        saliency: Saliency agreement on the first of `documents`; None without a student in PyTorch.
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
    """Test queries with similar values of one property.

    Attributes:
        least: Smallest value of the property in the group, e.g. tokens of a query.
        most: Largest value.
        queries: Number of queries.
        teacher: Mean of the teacher's primary metric.
        difference: Mean of (artifact - teacher).
        standard_error: Standard error of that mean; None for a single query.
    """

    least: int
    most: int
    queries: int
    teacher: float
    difference: float
    standard_error: float | None


class MeanSaliencyAgreement(ReportPart):
    """Mean saliency agreement on queries whose quality did not change, as a reference for those that did.

    Attributes:
        queries: Number of these queries.
        correlation: Mean of the correlations.
        overlap: Mean of the overlaps.
    """

    queries: int
    correlation: float
    overlap: float


class Explanation(ReportPart):
    """Where the run's primary artifact ranks differently from its teacher.

    Attributes:
        artifact: Name of the artifact.
        moved: The queries that lost most, the largest loss first, then those that gained most.
        by_query_length: Test queries grouped by their length in tokens, in groups of about equal size.
        by_relevant: Test queries grouped by their number of relevant documents.
        by_document_length: Test queries grouped by the median length of their relevant candidates with the query, in
            tokens: up to one input, up to two, and longer. Queries without a relevant candidate are left out. Empty in
            older reports.
        steady_saliency: Mean saliency agreement on queries whose quality did not change; None if not measured.
    """

    artifact: str
    moved: list[MovedQuery]
    by_query_length: list[QueryGroup]
    by_relevant: list[QueryGroup]
    by_document_length: list[QueryGroup] = Field(default_factory=list)
    steady_saliency: MeanSaliencyAgreement | None = None
