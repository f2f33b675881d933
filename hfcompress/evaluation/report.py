"""`report.json`: all that a run measured, and the only input of the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from hfcompress.errors import OutputError
from hfcompress.evaluation.explanation import Explanation
from hfcompress.evaluation.schema import Interval, ReportPart
from hfcompress.evaluation.speed import ColdStart, Latency, SingleThread
from hfcompress.evaluation.structure import PruningSummary
from hfcompress.files import write_text
from hfcompress.recipe import ScoreText

SCHEMA_VERSION: Final = 1
REPORT_FILE = "report.json"

Verdict = Literal["non-inferior", "inferior", "inconclusive"]


class Delta(ReportPart):
    """Difference to the teacher in the primary metric, query by query.

    Attributes:
        mean: Mean of (artefact - teacher) over the queries.
        ci_low: Lower end of the paired bootstrap interval.
        ci_high: Upper end.
        confidence: Confidence level of the interval, e.g. 0.95.
        margin: Largest loss that counts as ranking as well, set before the run.
        verdict: By the interval alone: `non-inferior` if `ci_low > -margin`, `inferior` if `ci_high < -margin`, else
            `inconclusive`.
        power: Probability of the verdict `non-inferior` with these queries if the true difference were zero.
        queries: Number of queries; None in older reports, as all that follows.
        queries_needed: Queries like these that give a power of 80% at a true difference of zero.
        p_difference: Two-sided p-value of the paired randomisation test of no difference at all.
        p_non_inferior: One-sided p-value of the paired randomisation test of a loss of the margin or more.
        p_corrected: The same, corrected by Holm for all artefacts of the run that are compared.
        corrected: The verdict that decides: `verdict`, but `inconclusive` in place of `non-inferior` where
            `p_corrected` is above (1 - confidence) / 2.
        worst_query: Id of the query with the lowest difference.
        worst: That difference.
        by_set: The same for the queries of each data set, where several were joined and a set has 2 queries or more;
            p-values are corrected for all artefacts and all sets.
    """

    mean: float
    ci_low: float
    ci_high: float
    confidence: float
    margin: float
    verdict: Verdict
    power: float
    queries: int | None = None
    queries_needed: int | None = None
    p_difference: float | None = None
    p_non_inferior: float | None = None
    p_corrected: float | None = None
    corrected: Verdict | None = None
    worst_query: str | None = None
    worst: float | None = None
    by_set: dict[str, Delta] = Field(default_factory=dict)

    @property
    def decision(self) -> Verdict:
        """The verdict that decides: the corrected one, in older reports that of the interval."""
        return self.corrected or self.verdict


class Drift(ReportPart):
    """How far scores move when the same pairs are computed otherwise.

    Attributes:
        largest: Largest absolute difference, in standard deviations of the scores.
        mean: Mean absolute difference, in standard deviations of the scores.
        swapped_share: Share of neighbours in the rankings that change their order.
    """

    largest: float
    mean: float
    swapped_share: float


class Stability(ReportPart):
    """Whether a pair gets the same score in any company, measured on whole lists of the first test queries.

    Attributes:
        pairs: Pairs that were scored each way.
        batched: Scored together, in batches sorted by length, against every pair alone.
        padded: In batches of 8 pairs, padded to twice their longest pair (at most to the longest input), against every
            pair alone.
        rank_correlation: Spearman's rank correlation with the fp32 model that was quantized, mean over all test
            queries; None for what is not quantized.
    """

    pairs: int
    batched: Drift
    padded: Drift
    rank_correlation: float | None


class Artifact(ReportPart):
    """One thing that can rank: the teacher, or a file that the run wrote.

    Attributes:
        name: Short name, e.g. `student-openvino-int8`.
        path: Path in the output folder; the model's name or path for a teacher that was given.
        runtime: `torch`, `onnxruntime` or `openvino`.
        precision: `fp32`, `int8-dynamic`, `int8-static`; with `-mixed` behind it where some layers stay in fp32.
            `int4-weights` to `int8-weights` and `sign-weights` are stored so and run in fp32.
        size_bytes: Size on disk of the files that a deployment needs, tokenizer included.
        parameters: Number of weights, biases and embeddings.
        quality: Mean of each metric over the test queries, e.g. `{"ndcg@10": 0.56, "mrr@10": 0.52}`;
            `judged@10` is the share of the first 10 that have a judgement.
        per_query: nDCG@10 of each test query.
        agreement: Agreement with the teacher's order, e.g. `{"kendall_tau": 0.9, "overlap@10": 0.95}`; empty for
            itself.
        delta: Difference to the teacher; None for the teacher.
        latency: Speed.
        speedup: `docs_per_second` against the teacher in fp32 PyTorch, median of the ratios of paired rounds.
        tied_share: Share of neighbouring scores in a ranking that are equal.
        deflated_bytes: The same under deflate, file by file; measured where weights were set to zero.
        stability: Whether a pair gets the same score in any company; None for the teacher, and in older reports.
        speedup_interval: Interval of the median in `speedup`, from the order of the ratios alone; None for the teacher,
            where there are fewer than 6 rounds, and in older reports.
        single_thread: Speed on one thread; None where it was not measured, or `latency` is of one thread already.
        cold_start: The first query of a fresh process, and its memory; None where it was not measured.
    """

    name: str
    path: str
    runtime: Literal["torch", "onnxruntime", "openvino"]
    precision: str
    size_bytes: int
    parameters: int
    quality: dict[str, float]
    per_query: dict[str, float]
    agreement: dict[str, float]
    delta: Delta | None
    latency: Latency
    speedup: float
    tied_share: float
    stability: Stability | None = None
    deflated_bytes: int | None = None
    speedup_interval: Interval | None = None
    single_thread: SingleThread | None = None
    cold_start: ColdStart | None = None


class FirstStage(ReportPart):
    """The order in which the candidates came: BM25, or the one given with the data.

    Attributes:
        name: How the card calls it.
        quality: Mean of each metric over the test queries.
        per_query: nDCG@10 of each test query.
    """

    name: str
    quality: dict[str, float]
    per_query: dict[str, float]


class DataSummary(ReportPart):
    """What was trained and measured on; ids and figures only, no texts.

    Attributes:
        name: Names of the sets, joined by `+`.
        fingerprint: SHA-256 over ids, texts, judgements and candidates.
        license: Licence of the data.
        language: ISO 639 code; of several, with commas between.
        publish_texts: Whether texts may be shown.
        queries: Queries with candidates, by split.
        documents: Documents of the corpus.
        candidates_per_query: Mean number of candidates of a test query.
        mean_tokens: Mean length of a test pair in tokens, after truncation.
        truncated_share: Share of the test pairs that are longer than the model's input.
        notes: What else identifies the data, such as versions of the libraries it was made from.
        score_text: How BM25 scores stand before the documents that teacher and artefacts read, as in `data.score_text`
            of the recipe; None where they read documents alone, and in older reports.
    """

    name: str
    fingerprint: str
    license: str
    language: str
    publish_texts: bool
    queries: dict[str, int]
    documents: int
    candidates_per_query: float
    mean_tokens: float
    truncated_share: float
    notes: list[str]
    score_text: ScoreText | None = None


class Step(ReportPart):
    """One step of the run.

    Attributes:
        name: Name of the step.
        seconds: Wall time when it last ran.
        reused: Whether a resumed run kept the earlier result.
    """

    name: str
    seconds: float
    reused: bool


class Machine(ReportPart):
    """Where the timings were taken.

    Attributes:
        cpu: Name of the CPU.
        flags: Instruction sets that int8 and bf16 speed depend on.
        cores: Cores that the run could use.
        memory_gb: Physical memory in GB.
        platform: Operating system and architecture.
        versions: Versions of Python and of the packages.
    """

    cpu: str
    flags: list[str]
    cores: int
    memory_gb: float
    platform: str
    versions: dict[str, str]


class RunReport(ReportPart):
    """All that one run measured.

    Attributes:
        schema_version: Version of this format.
        name: Name of the recipe.
        base_model: Hub id or name of the model that was compressed, as the card shows it.
        model_type: Architecture family, e.g. `bert`.
        license: Licence under which the compressed model is published.
        max_length: Longest input in tokens.
        recipe: The recipe as YAML, verbatim.
        primary_metric: Metric of the verdict.
        data: Data that was trained and measured on.
        pruning: What was pruned; None if nothing was.
        first_stage: Quality of the order before reranking.
        teacher: The teacher in fp32 PyTorch.
        artifacts: Everything that the run made and measured.
        steps: Steps of the run and what they cost.
        machine: Where the timings were taken.
        explanation: Where the artefact that the card speaks of ranks otherwise than its teacher; None in older reports.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    base_model: str
    model_type: str
    license: str
    max_length: int
    recipe: str
    primary_metric: str
    data: DataSummary
    pruning: PruningSummary | None
    first_stage: FirstStage
    teacher: Artifact
    artifacts: list[Artifact]
    steps: list[Step]
    machine: Machine
    explanation: Explanation | None = None

    def save(self, folder: Path) -> Path:
        """Write `report.json` into `folder` (written aside, then moved into place)."""
        return write_text(folder / REPORT_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> RunReport:
        """Read `report.json` from `folder`.

        Raises:
            OutputError: There is none, or another version of hfcompress wrote it.
        """
        path = folder / REPORT_FILE
        if not path.is_file():
            raise OutputError(
                f"There is no {REPORT_FILE} in {folder}",
                expected="a folder that a run of hfcompress has finished",
                remedy="run `hfcompress run RECIPE --out DIR` first, or finish it with --resume",
            )
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise OutputError(
                f"{path} is not a report of schema version {SCHEMA_VERSION}",
                value=error.errors()[0]["msg"],
                expected=f"a report with schema_version {SCHEMA_VERSION}",
                remedy="run the recipe again with this version of hfcompress",
            ) from error
