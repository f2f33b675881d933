"""The cross-encoder that is exported, and the choice of its ONNX graph."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from hfcompress.data.score_text import require_plain_documents
from hfcompress.errors import DataError, ModelError
from hfcompress.evaluation.explain import primary_artifact
from hfcompress.models.architectures import require_one_score
from hfcompress.models.layout import ONNX_FP32, ONNX_INT8, ONNX_INT8_STATIC
from hfcompress.models.load import load_config, resolve
from hfcompress.models.modular import modules_of
from hfcompress.models.prompts import prompts_of
from hfcompress.models.surgery import needs_custom_code, plan_of_config
from hfcompress.rankers.load import activation_name, default_graph, ranking_tokenizer
from hfcompress.report.report import REPORT_FILE, Artifact, RunReport

GRAPHS = (ONNX_INT8, ONNX_INT8_STATIC, ONNX_FP32)


@dataclass(frozen=True)
class Source:
    """A cross-encoder with its settings.

    Attributes:
        name: Its name as given: a folder, a Hub id, or `package:NAME/FOLDER`.
        folder: Its folder; does not exist for a model on the Hub.
        title: Short name of lower-case letters, digits and hyphens.
        config: Its config.
        tokenizer: Its tokenizer, whose `model_max_length` is the longest input.
        activation: Name of the class of the activation that `rank` applies, e.g. `Sigmoid`.
        report: Report of the run that wrote it; None for any other model.
        uneven: Whether its layers differ in size, so that no stock class of transformers opens it.
    """

    name: str
    folder: Path
    title: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerFast
    activation: str
    report: RunReport | None
    uneven: bool

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return int(self.tokenizer.model_max_length)

    @property
    def modular(self) -> bool:
        """Whether its head consists of modules of sentence-transformers."""
        return bool(modules_of(self.config))

    @property
    def prompt(self) -> str:
        """Text that the model reads before each query; empty for none."""
        return prompts_of(self.tokenizer).text

    def tokenizer_json(self, truncate: bool) -> str:
        """The content of `tokenizer.json`, without padding.

        Args:
            truncate: Whether it truncates pairs to the longest input, for programs that read no other file.
        """
        copy = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        copy.no_padding()
        copy.no_truncation()
        if truncate:
            copy.enable_truncation(self.max_length, direction=self.tokenizer.truncation_side)
        return str(copy.to_str(pretty=True))


@dataclass(frozen=True)
class GraphChoice:
    """The ONNX graph that is exported.

    Attributes:
        path: Path in the folder of the model; None if the model is exported to fp32 first.
        reason: Why this one, as a sentence without a full stop.
        artifact: Its entry in the report; None without a report, or if the report has none.
    """

    path: str | None
    reason: str
    artifact: Artifact | None = None

    @property
    def precision(self) -> str:
        """`fp32`, or the kind of int8."""
        if self.artifact:
            return self.artifact.precision
        return "int8" if self.path in (ONNX_INT8, ONNX_INT8_STATIC) else "fp32"


def read_source(name: str, max_length: int | None = None) -> Source:
    """Read a cross-encoder without its weights.

    Args:
        name: A folder, a Hub id, or `package:NAME/FOLDER`.
        max_length: Longest input in tokens; by default the tokenizer's.

    Raises:
        DataError: The model reads BM25 scores in its texts, which a search engine does not write there.
        ModelError: There is no such model, it does not give one score, or `max_length` exceeds its positions.
        OutputError: The report in the folder is damaged.
    """
    config = load_config(name)
    require_one_score(config)
    require_plain_documents(name, config)
    folder = Path(resolve(name))
    report = RunReport.load(folder) if (folder / REPORT_FILE).is_file() else None
    return Source(
        name,
        folder,
        _title(report.name if report else Path(name).resolve().name if folder.is_dir() else name),
        config,
        ranking_tokenizer(name, config, max_length),
        activation_name(config).rpartition(".")[2],
        report,
        needs_custom_code(config, plan_of_config(config)),
    )


def choose_graph(source: Source, file: str | None = None) -> GraphChoice:
    """Choose the ONNX graph that is exported.

    This is the artifact that the report deploys. If it is for another runtime, it is the same model in fp32 where the
    deployed one is in fp32, and else the first artifact for ONNX Runtime in the order of the report's tests. Without a
    report, an int8 graph comes before the fp32 graph. Without any graph, the model is exported to fp32.

    Args:
        source: The model.
        file: Path of a graph in the folder of the model, to take this one.

    Raises:
        DataError: There is no such graph.
    """
    found = [path for path in GRAPHS if (source.folder / path).is_file()]
    if file is not None:
        return GraphChoice(_existing(source, file, found), "it was named with --file", _artifact(source.report, file))
    if source.report:
        return _of_report(source.report, found)
    if int8 := default_graph(source.folder, "onnxruntime"):
        return GraphChoice(int8[1], "it is the int8 graph of the folder")
    if ONNX_FP32 in found:
        return GraphChoice(ONNX_FP32, "it is the only graph for ONNX Runtime in the folder")
    return GraphChoice(None, "the folder has no graph for ONNX Runtime, so that the model is exported to fp32")


def _of_report(report: RunReport, found: list[str]) -> GraphChoice:
    deployed = primary_artifact(report.artifacts, report.sequence)
    if deployed and deployed.path in found:
        return GraphChoice(deployed.path, f"it is {deployed.name}, which the report deploys", deployed)
    instead = f"the report deploys {deployed.name}, which is not for ONNX Runtime" if deployed else "no artifact passed"
    order = [*report.sequence, *(each.name for each in sorted(report.artifacts, key=lambda each: -each.speedup))]
    usable = sorted((each for each in report.artifacts if each.path in found), key=lambda each: order.index(each.name))
    exact = deployed is not None and deployed.precision == "fp32"
    if usable and not exact:
        return GraphChoice(usable[0].path, f"{instead}; {usable[0].name} is the first one that is", usable[0])
    if ONNX_FP32 in found:
        return GraphChoice(ONNX_FP32, f"{instead}; this is the model in fp32", _artifact(report, ONNX_FP32))
    return GraphChoice(None, f"{instead}, and no artifact is; the model is exported to fp32")


def _artifact(report: RunReport | None, path: str) -> Artifact | None:
    return next((each for each in report.artifacts if each.path == path), None) if report else None


def _existing(source: Source, file: str, found: list[str]) -> str:
    if not (source.folder / file).is_file() or not file.endswith(".onnx"):
        raise DataError(
            "There is no such ONNX graph in the folder of the model",
            value=file,
            expected=", ".join(found) or "an .onnx file; the folder has none",
            remedy="correct --file, or leave it out",
        )
    return Path(file).as_posix()


def require_even(source: Source, program: str) -> None:
    """Check that stock classes of transformers open the model.

    Args:
        source: The model.
        program: The program that has no other classes, for the error message.

    Raises:
        ModelError: They do not.
    """
    if source.modular:
        raise ModelError(
            f"{program} opens models with the classes of transformers, which do not read the head of this one",
            value=f"{source.name}, a modular cross-encoder of sentence-transformers",
            expected="a cross-encoder with the classification head of its family",
            remedy="export to opensearch, vespa or tei, which run the ONNX graph",
        )
    if source.uneven:
        raise ModelError(
            f"{program} opens models with the stock classes of transformers, which have layers of one size",
            value=f"{source.name}, whose layers differ in heads or FFN width",
            expected="an unpruned model, or one pruned with structure: stock",
            remedy="prune with prune.structure: stock, or export to opensearch, vespa or tei, which run the ONNX graph",
        )


def _title(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return words[:40].strip("-") or "reranker"
