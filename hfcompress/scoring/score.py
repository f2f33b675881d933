"""`hfcompress score`: an input and an output are checked, then scored chunk by chunk."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfcompress.errors import DataError
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.score_store import loaded_fingerprint
from hfcompress.rankers.base import BatchedRanker, RankerOptions
from hfcompress.scoring.chunks import Chunk
from hfcompress.scoring.engine import score_chunks
from hfcompress.scoring.formats import RowFormat
from hfcompress.scoring.opening import ScoreSettings, open_rows
from hfcompress.scoring.sources import STANDARD, is_stream
from hfcompress.scoring.targets import FileTarget, StreamTarget, Target
from hfcompress.utils.machine import thread_count, versions
from hfcompress.utils.progress import between_bars, interactive, progress_bar
from hfcompress.utils.text import count, duration, number

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreSummary:
    """What was scored.

    Attributes:
        pairs: Pairs with a score, those of an interrupted call included.
        bad_lines: Lines that were left out, also with those of an interrupted call.
        new_pairs: Pairs that this call scored.
        seconds: Time that this call took to score them, without loading the model.
        reader_gone: Whether the reader of a stream went away before the end.
    """

    pairs: int
    bad_lines: int
    new_pairs: int
    seconds: float
    reader_gone: bool = False

    def __str__(self) -> str:
        before = f" ({self.pairs - self.new_pairs:,} of them before)" if self.new_pairs < self.pairs else ""
        speed = number(self.new_pairs / self.seconds) if self.seconds else "0"
        return (
            f"scored {count(self.pairs, 'pair')}{before} in {duration(self.seconds)}: {speed} pairs/s; "
            f"{count(self.bad_lines, 'bad line')}"
        )


def score_file(
    model: Candidate,
    source: Path,
    target: Path,
    settings: ScoreSettings | None = None,
    options: RankerOptions | None = None,
    max_length: int | None = None,
) -> ScoreSummary:
    """Score the pairs of a file or stream.

    Everything that can be checked beforehand is checked before the model is loaded.

    Args:
        model: The model, as from `resolve_model`.
        source: A file, or `-` for standard input.
        target: A file, or `-` for standard output. A file is written beside its path, and moved there at the end.
        settings: How to read, score and write.
        options: How the model uses the machine.
        max_length: Maximum input length in tokens; by default the model's.

    Raises:
        DataError: The input cannot be scored, or has bad lines only.
        OutputError: The output cannot be written or resumed.
        HfCompressError: The model cannot be used.
    """
    settings, options = settings or ScoreSettings(), options or RankerOptions()
    rows = open_rows(source, target, settings, model.folder)
    identity = _identity(model, rows, settings, options, max_length) if not is_stream(target) else None
    output: Target = StreamTarget(target) if identity is None else FileTarget(target, identity or None, settings.resume)
    with redirect_stdout(sys.stderr) if target == STANDARD else nullcontext():  # of what libraries print
        return score_rows(model.ranker(max_length, options), rows, output, settings)


def score_rows(ranker: BatchedRanker, rows: RowFormat, target: Target, settings: ScoreSettings) -> ScoreSummary:
    """Score all rows of an input.

    Args:
        ranker: The ranker.
        rows: The input.
        target: The output, which may have the first chunks already.
        settings: How to score.

    Raises:
        DataError: A line is bad and `settings.strict` is set, or all lines are bad; then the output is deleted.
    """
    before, start = target.done, time.perf_counter()
    gone = False
    try:
        _score(ranker, rows, target, settings)
        if target.done.bad_lines and not target.done.pairs:
            raise DataError(
                f"No line of {rows.source.name} could be scored",
                value=count(target.done.bad_lines, "bad line"),
                expected="lines with a query and a document",
                remedy="see the messages above, and check --format and the names of the columns",
            )
        target.complete(rows)
    except DataError:
        target.discard()
        raise
    except BrokenPipeError:
        gone = True
    finally:
        target.close()
    done, seconds = target.done, time.perf_counter() - start
    summary = ScoreSummary(done.pairs, done.bad_lines, done.pairs - before.pairs, seconds, gone)
    if not gone:
        logger.info("%s", summary)
    return summary


def _score(ranker: BatchedRanker, rows: RowFormat, target: Target, settings: ScoreSettings) -> None:
    """Append all chunks to the output that it does not have."""
    if target.done.chunks:
        logger.info("resumed behind %s", count(target.done.pairs, "pair"))
    first = not target.done.chunks
    with closing(append_scores(ranker, rows, target, settings)) as chunks, _bar(rows, settings) as bar:
        for chunk, faults in chunks:
            if first and rows.columns:
                logger.info("query from %r, document from %r", rows.columns.query, rows.columns.document)
            first = False
            log_faults(faults)
            bar.set_postfix_str(f"{target.done.pairs:,} pairs", refresh=False)
            bar.update(len(chunk.pairs) if rows.size is None else chunk.position - bar.n)


def append_scores(
    ranker: BatchedRanker, rows: RowFormat, target: Target, settings: ScoreSettings
) -> Generator[tuple[Chunk, list[DataError]], None, None]:
    """Score all chunks that an output does not have.

    Args:
        ranker: The ranker.
        rows: The input.
        target: The output, to which each chunk is appended.
        settings: How to score.

    Yields:
        Each chunk and the errors of its bad lines, when it is written.

    Raises:
        DataError: A line is bad, and `settings.strict` is set.
    """
    skipped = target.done.chunks
    chunks = (chunk for index, chunk in enumerate(rows.chunks()) if index >= skipped)
    with closing(score_chunks(ranker, chunks, rows.fault, settings.activation, rows.source.stop)) as scored:
        for chunk, scores, faults in scored:
            if faults and settings.strict:
                raise faults[0]
            header = b"" if target.done.chunks else rows.header()
            bad = [*chunk.faults, *faults]
            target.append(header + rows.written(chunk, scores), len(scores) - len(faults), len(bad))
            yield chunk, bad
    if not target.done.chunks:  # an input without rows
        target.append(rows.header(), 0, 0)


def _bar(rows: RowFormat, settings: ScoreSettings) -> Any:
    hidden = not settings.progress or (rows.size is None and not interactive())
    return progress_bar(total=rows.size, desc="score", unit=rows.unit, unit_scale=True, disable=hidden, leave=False)


def log_faults(faults: Sequence[object]) -> None:
    """Log the errors of bad lines."""
    with between_bars() if faults else nullcontext():
        for fault in faults:
            logger.warning("bad line, left out: %s", fault)


def _identity(
    model: Candidate, rows: RowFormat, settings: ScoreSettings, options: RankerOptions, max_length: int | None
) -> dict[str, Any]:
    """All that the output depends on, to resume; empty for a stream."""
    if rows.source.is_stream:
        return {}
    texts = rows.options.collection
    return {
        "input": rows.source.fingerprint(),
        "format": type(rows).__name__,
        "texts": texts.fingerprint() if texts else None,
        **scores_identity(model, settings, options, max_length),
    }


def scores_identity(
    model: Candidate, settings: ScoreSettings, options: RankerOptions, max_length: int | None
) -> dict[str, Any]:
    """All but the input that scores of a file depend on.

    Args:
        model: The model.
        settings: How to read, score and write.
        options: How the model uses the machine.
        max_length: As for `score_file`.
    """
    names, reading = settings.names, options.long_documents
    return {
        **({} if reading.is_default else {"long_documents": reading.model_dump(mode="json")}),
        "columns": [names.query, names.document, names.title, names.score],
        "model": loaded_fingerprint(model.folder, model.file),
        "file": model.file,
        "runtime": model.runtime,
        "device": model.device,
        "dtype": model.dtype,
        "providers": list(model.providers),
        "max_length": max_length,
        "threads": thread_count(options.threads),
        "batch_tokens": options.batch_tokens,
        "chunk_pairs": settings.chunk_pairs,
        "activation": settings.activation,
        "versions": versions(),
    }
