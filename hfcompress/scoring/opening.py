"""Inputs and outputs are checked and opened before a model is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from hfcompress.data.collection import read_collection
from hfcompress.data.score_text import require_plain_documents, score_text_of
from hfcompress.errors import DataError, OutputError
from hfcompress.models.load import load_config
from hfcompress.scoring.columns import ColumnNames
from hfcompress.scoring.delimited import CsvRows, TsvRows
from hfcompress.scoring.formats import FORMATS, RowFormat, RowOptions, format_of
from hfcompress.scoring.json_lines import JsonLines
from hfcompress.scoring.sources import Source, is_stream
from hfcompress.scoring.trec_rows import TrecRows


@dataclass(frozen=True)
class ScoreSettings:
    """How an input is read, scored and written.

    Attributes:
        format: One of `FORMATS`, of input and output; None for that of their names, and JSON lines for streams.
        names: Names of the columns.
        corpus: Texts of the documents of a run file, as for `read_collection`.
        queries: Its queries, as for `read_collection`.
        activation: Apply the activation of the checkpoint; by default scores are raw logits.
        strict: End at the first bad line. By default they are logged, counted and left out.
        resume: Go on behind the last complete chunk of an interrupted call.
        chunk_pairs: Pairs that are read, scored and written at a time.
        flush_seconds: Longest time that a line of a stream waits for others.
        progress: Show a progress bar.
    """

    format: str | None = None
    names: ColumnNames = field(default_factory=ColumnNames)
    corpus: str | None = None
    queries: Path | None = None
    activation: bool = False
    strict: bool = False
    resume: bool = False
    chunk_pairs: int = 4096
    flush_seconds: float = 0.5
    progress: bool = True


def open_rows(source: Path, target: Path, settings: ScoreSettings, model: str) -> RowFormat:
    """Open an input, and check it, the output and what the model reads.

    Args:
        source: A file, or `-` for standard input.
        target: A file, or `-` for standard output.
        settings: How to read, score and write.
        model: Folder or name of the model.

    Raises:
        DataError: The input cannot be scored.
        OutputError: The output cannot be written.
    """
    name = _format(source, target, settings)
    _check_target(source, target, settings)
    opened = Source(source, settings.flush_seconds)
    config = load_config(model)
    if name != "trec":
        require_plain_documents(model, config)
        if settings.corpus is not None or settings.queries is not None:
            raise DataError(
                "Only run files have ids instead of texts",
                value=f"--corpus {settings.corpus}, --queries {settings.queries} with {name}",
                expected="a run file in TREC's format with --corpus and --queries",
                remedy="leave them out, or add --format trec",
            )
    elif settings.corpus is None:
        raise DataError(
            "The ids of a run file need their texts",
            value=opened.name,
            expected="a corpus and queries",
            remedy="add --corpus, and --queries if the corpus is a file",
        )
    texts = read_collection(settings.corpus, settings.queries, settings.progress) if settings.corpus else None
    options = RowOptions(settings.names, settings.chunk_pairs, settings.strict, texts, score_text_of(config))
    return rows_of(name, opened, options)


def rows_of(name: str, source: Source, options: RowOptions) -> RowFormat:
    """Open the rows of an input.

    Args:
        name: One of `FORMATS`.
        source: The input.
        options: How its rows are read.

    Raises:
        DataError: The input cannot be scored.
    """
    if name == "parquet":
        from hfcompress.scoring.parquet import ParquetRows

        return ParquetRows(source, options)
    kinds: dict[str, type[RowFormat]] = {"jsonl": JsonLines, "csv": CsvRows, "tsv": TsvRows, "trec": TrecRows}
    rows = kinds[name](source, options)
    if not source.is_stream:
        rows.prepare()
    return rows


def _format(source: Path, target: Path, settings: ScoreSettings) -> str:
    given = settings.format
    if given is not None and given not in FORMATS:
        raise DataError("There is no such format", value=given, expected=", ".join(FORMATS), remedy="correct --format")
    name = (
        given
        or format_of(source)
        or (("jsonl" if is_stream(target) else format_of(target)) if is_stream(source) else None)
    )
    if name is None:
        raise DataError(
            "The name of the input does not say its format",
            value=str(source),
            expected=f"a name that ends with {', '.join(ending for endings in FORMATS.values() for ending in endings)}",
            remedy="add --format",
        )
    if given is None and (other := format_of(target)) not in (None, name):
        raise DataError(
            "Input and output have different formats",
            value=f"{source} ({name}), {target} ({other})",
            expected="one format",
            remedy="rename the output, or add --format",
        )
    if name == "parquet" and (is_stream(source) or is_stream(target)):
        raise DataError(
            "Parquet needs files, since it is not read from its beginning to its end",
            value=f"input {source}, output {target}",
            expected="--input FILE and --output FILE, or a format of lines for streams",
            remedy="name files, or choose --format jsonl, csv or tsv",
        )
    return name


def _check_target(source: Path, target: Path, settings: ScoreSettings) -> None:
    """Check that the output can be written and resumed."""
    if settings.resume and (is_stream(source) or is_stream(target)):
        raise OutputError(
            "A stream cannot be resumed",
            value=f"input {source}, output {target}",
            expected="files with --resume",
            remedy="leave out --resume, or name files",
        )
    if is_stream(target):
        return
    nearest = next(parent for parent in target.absolute().parents if parent.exists())
    if target.is_dir() or not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(
            "The output cannot be written there",
            value=str(target),
            expected="the path of a file, in a folder that can be written or created, or - for standard output",
            remedy="correct --output",
        )
    if target.exists() and source.exists() and os.path.samefile(source, target):
        raise OutputError(
            "The output is the input", value=str(target), expected="another file", remedy="correct --output"
        )
