"""`report.json`: all results of a run, and the only input of the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from hfcompress.errors import OutputError
from hfcompress.recipe import LongDocuments, ScoreText
from hfcompress.report.delta import Delta
from hfcompress.report.explanation import Explanation
from hfcompress.report.fidelity import ScoreFidelity
from hfcompress.report.schema import Interval, ReportPart
from hfcompress.report.speed import ColdStart, DeviceTeacher, Latency, SingleThread
from hfcompress.report.structure import PruningSummary
from hfcompress.report.zero_shot import ZeroShot
from hfcompress.utils.files import write_text
from hfcompress.utils.json_files import require_content

SCHEMA_VERSION: Final = 1
REPORT_FILE = "report.json"


class Drift(ReportPart):
    """Difference between two computations of the scores of the same pairs.

    Attributes:
        largest: Largest absolute difference, in standard deviations of the scores.
        mean: Mean absolute difference, in standard deviations of the scores.
        swapped_share: Share of neighbouring documents in the rankings that change their order.
    """

    largest: float
    mean: float
    swapped_share: float


class Stability(ReportPart):
    """Batch invariance: how far a pair's score depends on its batch, measured on lists of the first test queries.

    Attributes:
        pairs: Number of scored pairs.
        batched: Drift between batches sorted by length and batches of one pair.
        padded: Drift between batches of 8 pairs, padded to twice their longest pair (at most to the longest input), and
            batches of one pair.
        rank_correlation: Spearman's rank correlation with the fp32 model that was quantized, mean over all test
            queries; None for models that are not quantized.
    """

    pairs: int
    batched: Drift
    padded: Drift
    rank_correlation: float | None


class Artifact(ReportPart):
    """A model that ranks: the teacher, or a file that the run wrote.

    Attributes:
        name: Short name, e.g. `student-openvino-int8`.
        path: Path in the output folder; for a teacher that was given, its name or path.
        runtime: `torch`, `onnxruntime` or `openvino`.
        precision: `fp32`, `int8-dynamic` or `int8-static`, with the suffix `-mixed` if some layers stay in fp32;
            `int4-weights` to `int8-weights` and `sign-weights` are storage formats that run in fp32. `fp16` and `bf16`
            for a model in PyTorch in 16 bits.
        size_bytes: Size on disk of all files that a deployment needs, tokenizer included.
        parameters: Number of weights, biases and embeddings.
        quality: Mean of each metric over the test queries, e.g. `{"ndcg@10": 0.56, "mrr@10": 0.52}`;
            `judged@10` is the share of the first 10 with a relevance judgement.
        per_query: nDCG@10 of each test query.
        agreement: Agreement with the teacher's ranking, e.g. `{"kendall_tau": 0.9, "overlap@10": 0.95}`; empty for
            the teacher.
        delta: Difference to the teacher; None for the teacher.
        latency: Speed.
        speedup: `docs_per_second` relative to the teacher in fp32 PyTorch on the same device, as the median of the
            per-round ratios.
        tied_share: Share of neighbouring scores in a ranking that are equal.
        deflated_bytes: Size of the same files under deflate, each by itself; measured for sparse weights.
        stability: Batch invariance; None for the teacher, and in older reports.
        speedup_interval: Distribution-free interval of the median in `speedup`; None for the teacher, with fewer than 6
            rounds, and in older reports.
        single_thread: Speed on one thread; None if not measured, or if `latency` is for one thread already.
        cold_start: Time and memory of the first query in a fresh process; None if not measured.
        device: Device that the speed was measured on: `cpu`, or the name of another, e.g. `cuda:0 (NVIDIA L4)`.
        device_teachers: The teacher on this device, as far as `teacher` of the report was not timed so: in fp32, and in
            the precision of the artifact. Empty for what runs where `teacher` does, in fp32 or int8.
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
    device: str = "cpu"
    device_teachers: list[DeviceTeacher] = Field(default_factory=list)

    def baseline(self, teacher: Artifact) -> tuple[Latency, str]:
        """Speed and device of the teacher in fp32 that `speedup` refers to.

        Args:
            teacher: The teacher of the report.
        """
        if self.device == teacher.device:
            return teacher.latency, teacher.device
        return next(each.latency for each in self.device_teachers if each.precision == "fp32"), self.device


class FirstStage(ReportPart):
    """First-stage ranking of the candidates: BM25, or the order given with the data.

    Attributes:
        name: Its name in the card.
        quality: Mean of each metric over the test queries.
        per_query: nDCG@10 of each test query.
    """

    name: str
    quality: dict[str, float]
    per_query: dict[str, float]


class AlsoSummary(ReportPart):
    """An additional text of the recovery, without labels: `recover.also` of the recipe.

    Attributes:
        name: Its name.
        documents: Number of its documents.
        lists: Number of training lists that were made of it.
        license: Its licence; empty if unknown.
    """

    name: str
    documents: int
    lists: int
    license: str = ""


class Alternative(ReportPart):
    """A model that was measured on dev alone, and would pass where the deployed one did not.

    Attributes:
        name: Its trial, e.g. `unpruned, openvino int8-static`.
        speedup: Speed-up over the teacher in fp32 PyTorch, measured on dev.
        delta: Difference to the teacher on dev.
        probability: Probability that its verdict on test would be non-inferior, by `delta`; it has not been tested.
    """

    name: str
    speedup: float
    delta: Delta
    probability: float


class DataSummary(ReportPart):
    """The data of the run: ids and numbers only, no texts.

    Attributes:
        name: Names of the sets, joined by `+`.
        fingerprint: SHA-256 over ids, texts, judgements and candidates.
        license: Licence of the data.
        language: ISO 639 code; several are separated by commas.
        publish_texts: Whether texts of the data may be published.
        queries: Number of queries with candidates, by split.
        documents: Number of documents in the corpus.
        candidates_per_query: Mean number of candidates of a test query.
        mean_tokens: Mean length of a test pair in tokens, after truncation.
        truncated_share: Share of the test pairs that are longer than the model's input.
        notes: Other metadata of the data, such as versions of the libraries it was made from.
        score_text: Format of the BM25 scores that stand before the documents, as in `data.score_text` of the recipe;
            None without such scores, and in older reports.
        also: Additional texts of the recovery; empty without any, and in older reports.
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
    also: list[AlsoSummary] = Field(default_factory=list)


class Step(ReportPart):
    """One step of the run.

    Attributes:
        name: Name of the step.
        seconds: Wall time of its last execution.
        reused: Whether a resumed run reused the earlier result.
    """

    name: str
    seconds: float
    reused: bool


class Machine(ReportPart):
    """The machine that speed was measured on.

    Attributes:
        cpu: Name of the CPU.
        flags: Instruction sets that int8 and bf16 speed depend on.
        cores: CPU cores available to the run.
        memory_gb: Memory that the process may use in GB: that of the machine, or less in a container.
        platform: Operating system and architecture.
        versions: Versions of Python and of the packages, by name.
        device: Device that models in PyTorch were trained and scored on, as in `Artifact.device`. Speed was measured on
            the device of each artifact.
    """

    cpu: str
    flags: list[str]
    cores: int
    memory_gb: float
    platform: str
    versions: dict[str, str]
    device: str = "cpu"


class RunReport(ReportPart):
    """All results of one run.

    Attributes:
        schema_version: Version of this format.
        name: Name of the recipe.
        base_model: Hub id or name of the original model, as the card shows it.
        model_type: Architecture family, e.g. `bert`.
        modular: Whether it is a modular cross-encoder of sentence-transformers, whose head is not that of its family.
        license: Licence of the compressed model.
        max_length: Longest input in tokens.
        query_prompt: Text that the model reads before each query; empty for none.
        recipe: The recipe as YAML, verbatim.
        primary_metric: Metric of the verdict.
        data: Data of training and evaluation.
        pruning: What was pruned; None without pruning.
        first_stage: Quality of the ranking before reranking.
        teacher: The teacher in fp32 PyTorch.
        artifacts: All evaluated artifacts of the run.
        steps: Steps of the run and their wall time.
        machine: The machine that speed was measured on.
        explanation: Where the primary artifact ranks differently from its teacher; None in older reports.
        sequence: Names of the artifacts in the order in which they were tested, set before the test split was seen. The
            first is the one to deploy. Empty in older reports, whose verdicts are corrected by Holm's method.
        zero_shot: Quality on data sets that the run neither trained on nor chose by; None without any, and in older
            reports.
        long_documents: How documents were read that do not fit into one input; None if they were truncated, and in
            older reports.
        would_pass: Of `compress`, where the artifact to deploy is not non-inferior: the fastest trial that can be
            expected to pass; None if there is none, and in other reports.
        score_fidelity: How far the scores of the artifacts mean what the teacher's mean; None without an artifact, and
            in older reports.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    base_model: str
    model_type: str
    modular: bool = False
    license: str
    max_length: int
    query_prompt: str = ""
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
    sequence: list[str] = Field(default_factory=list)
    zero_shot: ZeroShot | None = None
    long_documents: LongDocuments | None = None
    would_pass: Alternative | None = None
    score_fidelity: ScoreFidelity | None = None

    def save(self, folder: Path) -> Path:
        """Write `report.json` into `folder` atomically: to a temporary file, which is then renamed."""
        return write_text(folder / REPORT_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> RunReport:
        """Read `report.json` from `folder`.

        Raises:
            OutputError: There is none, it is damaged, or it has another schema version.
        """
        path = folder / REPORT_FILE
        if not path.is_file():
            raise OutputError(
                f"There is no {REPORT_FILE} in {folder}",
                expected="a folder that a run of hfcompress has finished",
                remedy="run `hfcompress run RECIPE --out DIR` first, or finish it with --resume",
            )
        require_content(path, OutputError)
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise OutputError(
                f"{path} is not a report of schema version {SCHEMA_VERSION}",
                value="; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3]),
                expected=f"a report with schema_version {SCHEMA_VERSION}",
                remedy="run the recipe again with this version of hfcompress",
            ) from error
