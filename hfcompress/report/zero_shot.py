"""Parts of a report about data sets that the run neither trained on nor chose by."""

from __future__ import annotations

from pydantic import Field

from hfcompress.report.delta import Delta
from hfcompress.report.schema import ReportPart


class ZeroShotSet(ReportPart):
    """Quality on the test split of one data set that the run neither trained on nor chose by.

    Attributes:
        name: Name of the set.
        fingerprint: SHA-256 over ids, texts, judgements and candidates.
        license: Licence of the data.
        notes: Other metadata of the data, such as the number of queries that were left out.
        first_stage: Mean nDCG@10 of the first-stage ranking of the candidates.
        teacher: Mean nDCG@10 of the teacher.
        artifact: Mean nDCG@10 of the artifact.
        student: Mean nDCG@10 of the student in fp32 PyTorch; None if nothing was pruned, or if it is the artifact.
        delta: Difference of the artifact to the teacher; with several sets, p-values are corrected for their number.
        agreement: Agreement of the artifact with the teacher's ranking, e.g.
            `{"kendall_tau": 0.9, "overlap@10": 0.95}`.
        per_query: nDCG@10 of the artifact for each query.
        teacher_per_query: nDCG@10 of the teacher for each query.
    """

    name: str
    fingerprint: str
    license: str
    notes: list[str]
    first_stage: float
    teacher: float
    artifact: float
    student: float | None
    delta: Delta
    agreement: dict[str, float]
    per_query: dict[str, float]
    teacher_per_query: dict[str, float]


class VocabularyLoss(ReportPart):
    """Differences of the student to the teacher with the smaller and with the whole vocabulary, in fp32 PyTorch.

    Attributes:
        queries: Number of queries.
        changed_share: Share of the pairs of query and document that the smaller vocabulary tokenizes differently.
        cut: Mean difference in nDCG@10 with the smaller vocabulary.
        whole: Mean difference with the whole vocabulary: that of the same student, in which the tokens that were
            removed have the teacher's embeddings.
    """

    queries: int
    changed_share: float
    cut: float
    whole: float


class VocabularyEffect(ReportPart):
    """What a smaller vocabulary changes, in and outside the domain that it was chosen for.

    Attributes:
        in_domain: On the test split of the run's own data.
        sets: On each zero-shot set, by its name.
    """

    in_domain: VocabularyLoss
    sets: dict[str, VocabularyLoss]


class ZeroShot(ReportPart):
    """Quality on data sets that the run neither trained on nor chose by.

    Attributes:
        artifact: Name of the artifact, the one to deploy.
        sets: The sets, in the order of the recipe.
        pooled: Difference over the queries of all sets together; None with a single set.
        vocabulary: Effect of a smaller vocabulary; None if it was left whole.
    """

    artifact: str
    sets: list[ZeroShotSet] = Field(min_length=1)
    pooled: Delta | None = None
    vocabulary: VocabularyEffect | None = None
