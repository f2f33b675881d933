"""Run files of TREC: `query Q0 document rank score tag` lines, whose ids stand for texts of a collection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

from hfcompress.data.score_text import ScoredTexts
from hfcompress.errors import DataError
from hfcompress.scoring.chunks import Chunk, Row
from hfcompress.scoring.formats import RowOptions, TextRows
from hfcompress.scoring.sources import FIRST_LINES, Lines, Source


class RunLine(NamedTuple):
    """Columns of a line that the output keeps."""

    query: str
    iteration: str
    document: str
    tag: str


class TrecRows(TextRows):
    """A run file. Its lines keep their order, and get new scores and ranks; the old ones are ignored.

    The lines of a query stand together, and are scored in one chunk.
    """

    def __init__(self, source: Source, options: RowOptions):
        super().__init__(source, options)
        assert options.collection is not None  # checked by `open_rows`
        self._collection = options.collection
        settings, corpus = options.score_text, options.collection.corpus
        self._scored_texts = ScoredTexts(settings, corpus, options.collection.language) if settings else None

    def prepare(self) -> None:
        """Read the first lines of a file.

        Raises:
            DataError: None of them has six columns and ids with texts.
        """
        lines = islice(self.source.lines(), FIRST_LINES)
        found = [self._line(*line, set()) if isinstance(line, tuple) else line for line in lines]
        faults = [each for each in found if isinstance(each, DataError)]
        if faults and len(faults) == len(found):
            raise faults[0]

    def rows(self, lines: Lines) -> Iterator[Row | DataError | None]:
        """Yield the rows of each query when all its lines were read."""
        done: set[str] = set()  # queries
        group: list[tuple[int, RunLine]] = []
        seen: set[str] = set()  # documents of the group
        for line in lines:
            found = self._line(*line, done) if isinstance(line, tuple) else line
            if not isinstance(found, RunLine):
                yield found
                continue
            number = line[0]  # type: ignore[index]
            if group and group[0][1].query != found.query:
                yield from self._grouped(group)
                done.add(group[0][1].query)
                group, seen = [], set()
            if found.document in seen:
                yield self.fault(number, f"{found.query} {found.document}", "each document once for a query")
                continue
            seen.add(found.document)
            group.append((number, found))
        yield from self._grouped(group)

    def _line(self, number: int, line: bytes, done: set[str]) -> RunLine | DataError:
        text = line.decode(errors="replace").strip()
        columns = text.split()
        if len(columns) != 6:
            return self.fault(number, text, "six columns: query Q0 document rank score tag")
        query, iteration, document, _, _, tag = columns
        texts = self._collection
        if query in done:
            return self.fault(number, query, "all lines of a query together (sort the run: sort -s -k1,1)")
        if not texts.queries.get(query, "").strip():
            return self.fault(number, query, "the id of a query with a text")
        if document not in texts.corpus or not texts.corpus[document].content.strip():
            return self.fault(number, document, "the id of a document with a text, in the corpus")
        return RunLine(query, iteration, document, tag)

    def _grouped(self, group: list[tuple[int, RunLine]]) -> Iterator[Row]:
        if not group:
            return
        query = self._collection.queries[group[0][1].query]
        ids = [line.document for _, line in group]
        texts = (
            self._scored_texts.documents(query, ids)
            if self._scored_texts
            else [self._collection.corpus[document].content for document in ids]
        )
        for index, ((number, line), text) in enumerate(zip(group, texts, strict=True), 1):
            yield Row(number, line, query, text, last=index == len(group))

    def written(self, chunk: Chunk, scores: Sequence[float | None]) -> bytes:
        """Each line with its score, and its rank by the scores of its query; equal ones keep their order."""
        rows = [(line, score) for line, score in zip(chunk.content, scores, strict=True) if score is not None]
        found = []
        for _, each in groupby(rows, lambda row: row[0].query):
            group = list(each)
            best = sorted(range(len(group)), key=lambda index: -group[index][1])
            ranks = {index: rank for rank, index in enumerate(best, 1)}
            for index, (line, score) in enumerate(group):
                found.append(f"{line.query} {line.iteration} {line.document} {ranks[index]} {score!r} {line.tag}\n")
        return "".join(found).encode()
