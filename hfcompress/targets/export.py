"""`hfcompress export`: a folder that a search engine or a model server loads without editing."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

from hfcompress.errors import DataError, OutputError
from hfcompress.targets import elasticsearch, opensearch, tei, vespa
from hfcompress.targets.graph import SourceGraph, open_graph
from hfcompress.targets.source import GraphChoice, Source, choose_graph, read_source
from hfcompress.utils.files import replaced_folder, write_text
from hfcompress.utils.log import timed

logger = logging.getLogger(__name__)

TargetName = Literal["opensearch", "elasticsearch", "vespa", "tei"]
RECORD = "export.json"
README = "README.md"
_CHECKPOINT = GraphChoice(None, "Eland uploads checkpoints of PyTorch")


@dataclass(frozen=True)
class _Target:
    title: str
    write: Callable[[Source, SourceGraph | None, GraphChoice, Path], None]
    steps: Callable[[Source], str]
    documentation: str
    check: Callable[[Source], None] = lambda source: None
    runs_graph: bool = True


_TARGETS: dict[str, _Target] = {
    "opensearch": _Target("OpenSearch", opensearch.write, opensearch.steps, opensearch.DOCUMENTATION),
    "elasticsearch": _Target(
        "Elasticsearch",
        elasticsearch.write,
        elasticsearch.steps,
        elasticsearch.DOCUMENTATION,
        elasticsearch.check,
        runs_graph=False,
    ),
    "vespa": _Target("Vespa", vespa.write, vespa.steps, vespa.DOCUMENTATION, vespa.check),
    "tei": _Target("text-embeddings-inference", tei.write, tei.steps, tei.DOCUMENTATION),
}


def export(
    name: str, target: TargetName, out: Path, *, file: str | None = None, max_length: int | None = None
) -> GraphChoice:
    """Write the files with which another program runs a cross-encoder.

    The files are checked before they are moved to `out`: the graph and `tokenizer.json` alone, in ONNX Runtime, give
    the scores of the model's ranker. `export.json` records what was exported and why.

    Args:
        name: A folder written by hfcompress, the folder of any other cross-encoder, or a Hub id.
        target: `opensearch`, `elasticsearch`, `vespa` or `tei`.
        out: Output folder: new, empty, or from an earlier export, which is replaced.
        file: Path of an ONNX graph in the folder; by default that of `source.choose_graph`.
        max_length: Longest input in tokens; by default the model's.

    Returns:
        The exported graph, and why it was chosen.

    Raises:
        DataError: There is no such target or graph, or the model reads BM25 scores in its texts.
        ModelError: The target cannot run the model, or the written files do not give its scores.
        OutputError: The output folder holds something else.
    """
    if target not in get_args(TargetName):
        raise DataError(
            "There is no such target", value=target, expected=", ".join(get_args(TargetName)), remedy="correct --to"
        )
    chosen = _TARGETS[target]
    source = read_source(name, max_length)
    _check_folder(out, source.folder)
    if not chosen.runs_graph and file is not None:
        raise DataError(
            f"{chosen.title} runs no ONNX graph",
            value=f"--file {file}",
            expected="the checkpoint, which is uploaded in fp32",
            remedy="leave --file out",
        )
    chosen.check(source)
    choice = choose_graph(source, file) if chosen.runs_graph else _CHECKPOINT
    logger.info(f"export: {choice.path or 'the checkpoint'}, as {choice.reason}")
    if choice.artifact and choice.artifact.delta and choice.artifact.delta.decision != "non-inferior":
        logger.warning("%s was not shown to rank as well: %s", choice.artifact.name, choice.artifact.delta.decision)
    with (
        timed(f"export to {chosen.title}", logger),
        replaced_folder(out) as temporary,
        tempfile.TemporaryDirectory() as scratch,
    ):
        graph = open_graph(source, choice, Path(scratch)) if chosen.runs_graph else None
        chosen.write(source, graph, choice, temporary)
        write_text(temporary / README, _readme(source, choice, chosen))
        write_text(temporary / RECORD, json.dumps(_record(source, choice, target, chosen), indent=2) + "\n")
    return choice


def _check_folder(out: Path, model: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).is_file())):
        raise OutputError(
            "The output folder holds something else",
            value=str(out),
            expected="a new or empty folder, or one that `hfcompress export` has written",
            remedy="name another folder with --out",
        )
    if model.is_dir() and model.resolve().is_relative_to(out.resolve()):
        raise OutputError(
            "The output folder holds the model that is to be exported",
            value=f"{out} holds {model}",
            expected="another folder, since the files of an earlier export are removed from it",
            remedy="name another folder with --out",
        )


def _record(source: Source, choice: GraphChoice, target: str, chosen: _Target) -> dict[str, object]:
    delta = choice.artifact.delta if choice.artifact else None
    return {
        "target": target,
        "model": source.title,
        "graph": choice.path,
        "precision": choice.precision,
        "reason": choice.reason,
        "verdict": delta.decision if delta else None,
        "max_length": source.max_length,
        "activation": source.activation,
        "query_prompt": source.prompt,
        "documentation": chosen.documentation,
        "hfcompress": version("hfcompress"),
    }


def _readme(source: Source, choice: GraphChoice, chosen: _Target) -> str:
    what = f"`{choice.path}`" if choice.path else "The checkpoint"
    return f"""# {source.title} for {chosen.title}

{what} in {choice.precision} was exported: {choice.reason}.

{chosen.steps(source)}

Written for: {chosen.documentation}.
"""
