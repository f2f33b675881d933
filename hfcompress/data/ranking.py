"""The one internal form of ranking data: queries, documents, judgements and candidates per split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING

from hfcompress.errors import DataError

if TYPE_CHECKING:
    from hfcompress.data.score_text import ScoredTexts

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Document:
    """A document as the reranker reads it: an optional title and a text."""

    title: str
    text: str

    @property
    def content(self) -> str:
        """Title and text in one string, as BEIR's readers join them."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        qrels: Relevance grades, `{query id: {document id: grade}}`; grade 0 means judged and not relevant.
        candidates: Documents to rank for each query, in the order of the first stage, `{query id: [document id]}`.
    """

    qrels: Mapping[str, Mapping[str, int]]
    candidates: Mapping[str, list[str]]

    def __len__(self) -> int:
        return len(self.candidates)

    @property
    def labelled(self) -> bool:
        """Whether any query has a relevant document."""
        return any(grade > 0 for grades in self.qrels.values() for grade in grades.values())


@dataclass(frozen=True)
class RankingData:
    """Queries, corpus and splits of one or several data sets.

    Attributes:
        name: Short name, used in reports and cards.
        queries: `{query id: text}`.
        corpus: `{document id: Document}`.
        splits: `{"train" | "dev" | "test": Split}`.
        relevant_from: Grade from which a document counts as relevant in binary metrics such as MRR.
        pool: Whether the candidates of a query are its judged documents, all of them to be ranked.
        publish_texts: Whether the licence of the texts lets them be shown in a published card.
        license: Licence of the data, as its source names it; empty if unknown.
        language: ISO 639 code of the texts; of several, sorted and with commas between; empty if unknown.
        notes: What else identifies the data.
        sets: Names of the data sets that were joined, each the prefix of its ids; empty for one set.
        first_stage: What put the candidates into their order, as figures about it name it.
        score_text: Writes the BM25 score of a pair before its document; None where models read documents alone. See
            `hfcompress.data.score_text.with_score_text`.
    """

    name: str
    queries: Mapping[str, str]
    corpus: Mapping[str, Document]
    splits: Mapping[str, Split]
    relevant_from: int = 1
    pool: bool = False
    publish_texts: bool = False
    license: str = ""
    language: str = "en"
    notes: tuple[str, ...] = field(default=())
    sets: tuple[str, ...] = ()
    first_stage: str = "BM25"
    score_text: ScoredTexts | None = None

    def split(self, name: str, labelled: bool = True) -> Split:
        """Return the split `name`.

        Args:
            name: Name of the split.
            labelled: Whether labels are needed; queries alone do otherwise.

        Raises:
            DataError: The data has no such split, no query in it, or no labels where they are needed.
        """
        if name not in self.splits:
            raise DataError(
                f"The data set {self.name!r} has no {name!r} split",
                value=sorted(self.splits),
                expected=f"a split named {name!r}",
                remedy=f"add qrels/{name}.tsv to the data folder (in other layouts, a file of that name), or name "
                "another split",
            )
        split = self.splits[name]
        if not split.labelled and (labelled or not split):
            raise DataError(
                f"The {name!r} split of {self.name!r} has no query with a relevant document",
                value=f"{len(split.qrels)} judged queries",
                expected="at least one judgement with a grade of 1 or more",
                remedy="check the qrels file of that split",
            )
        return split

    def pairs(self, query_id: str, document_ids: Iterable[str]) -> list[tuple[str, str]]:
        """Texts of a query with each of the documents, ready for a ranker."""
        query = self.queries[query_id]
        return [(query, document) for document in self.documents(query_id, document_ids)]

    def documents(self, query_id: str, document_ids: Iterable[str]) -> list[str]:
        """Texts of documents as a ranker reads them with this query: where there is `score_text`, with their scores."""
        if self.score_text:
            return self.score_text.documents(self.queries[query_id], document_ids)
        return [self.corpus[document_id].content for document_id in document_ids]

    def set_of(self, query_id: str) -> str:
        """Name of the data set that a query comes from; of names that begin alike, the longest that fits."""
        if not self.sets:
            return self.name
        fitting = [name for name in self.sets if query_id.startswith(f"{name}/")]
        return max(fitting, key=len, default=query_id.partition("/")[0])  # a query that was made is of no set

    def limited(self, limits: Mapping[str, int | None], candidates: int | None = None) -> RankingData:
        """Keep at most `limits[split]` queries of each split and, outside a pool set, `candidates` documents a query.

        Queries are taken in the order of the SHA-1 of their id, so that a smaller limit is a subset of a larger one
        and does not depend on the order of the files.
        """
        depth = None if self.pool else candidates
        splits = {}
        for name, split in self.splits.items():
            kept = first_queries(split.candidates, limits.get(name))
            splits[name] = Split(
                qrels={query: split.qrels[query] for query in kept if query in split.qrels},
                candidates={query: list(split.candidates[query])[:depth] for query in kept},
            )
        return replace(self, splits=splits)

    def with_dev(self, queries: int) -> RankingData:
        """Move labelled train queries into a new dev split, the first in the order of the SHA-1 of their id.

        Args:
            queries: How many.

        Raises:
            DataError: Too few train queries would be left.
        """
        train = self.split("train")
        labelled = [query for query, grades in train.qrels.items() if any(grade > 0 for grade in grades.values())]
        moved = set(first_queries(labelled, queries))
        if len(labelled) - len(moved) < 2:
            raise DataError(
                f"Too few train queries of {self.name!r} would be left beside the dev split",
                value=f"{len(labelled)} train queries with a relevant document, of which {queries} are to become dev",
                expected="at least 2 that are left",
                remedy="lower data.dev_from_train, or add train queries",
            )
        parts = [
            Split(
                qrels={query: grades for query, grades in train.qrels.items() if (query in moved) is dev},
                candidates={query: listed for query, listed in train.candidates.items() if (query in moved) is dev},
            )
            for dev in (False, True)
        ]
        return replace(
            self,
            splits={**self.splits, "train": parts[0], "dev": parts[1]},
            notes=(*self.notes, f"{len(moved)} of the train queries serve as the dev split"),
        )

    def fingerprint(self) -> str:
        """SHA-256 over all ids, texts, judgements, candidates, language and `score_text`, in the order of their use."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()

        def add(*parts: str) -> None:
            for part in parts:
                digest.update(part.encode())
                digest.update(b"\x00")

        add("relevant from", str(self.relevant_from), "language", self.language)
        if self.score_text:
            add("score text", self.score_text.settings.model_dump_json())
        for key, text in self.corpus.items():
            add(key, text.content)
        for name in sorted(self.splits):
            split = self.splits[name]
            add("split", name)
            for query, documents in split.candidates.items():
                add("query", query, self.queries[query])
                add("candidates", *documents)
                for document, grade in sorted(split.qrels.get(query, {}).items()):
                    add(document, str(grade))
        return digest.hexdigest()


def stable_hash(identifier: str) -> str:
    """SHA-1 of an id in hexadecimal: an order that is the same on every machine."""
    return hashlib.sha1(identifier.encode(), usedforsecurity=False).hexdigest()


def first_queries(queries: Iterable[str], limit: int | None) -> list[str]:
    """The queries that a limit keeps: the first in the order of the SHA-1 of their id, all of them for None."""
    return sorted(queries, key=stable_hash)[:limit]


def check(data: RankingData) -> RankingData:
    """Check that every id resolves, every text holds something and every grade is a non-negative integer.

    Raises:
        DataError: The first fault found, with the ids concerned.
    """
    check_texts(data.name, data.queries, data.corpus)
    for name, split in data.splits.items():
        _check_ids(data, name, "qrels", {query: list(grades) for query, grades in split.qrels.items()})
        _check_ids(data, name, "candidates", split.candidates)
        for query, grades in split.qrels.items():
            for document, grade in grades.items():
                if isinstance(grade, bool) or not isinstance(grade, Integral) or grade < 0:
                    raise DataError(
                        f"The {name!r} qrels of {data.name!r} give query {query!r}, document {document!r} a bad grade",
                        value=grade,
                        expected="an integer of 0 or more",
                        remedy="use 0 for judged and not relevant, 1 and up for relevant",
                    )
        for query, documents in split.candidates.items():
            if len(set(documents)) != len(documents):
                raise DataError(
                    f"The candidates of query {query!r} in {data.name!r} ({name}) name a document twice",
                    value=sorted({document for document in documents if documents.count(document) > 1})[:5],
                    expected="each document once a query",
                    remedy="remove the repeated lines from the candidates file",
                )
    return data


def check_texts(name: str, queries: Mapping[str, str], corpus: Mapping[str, Document]) -> None:
    """Check that every text holds something.

    Raises:
        DataError: Some do not, with the ids concerned.
    """
    for kind, texts in (
        ("query", queries.items()),
        ("document", ((key, document.content) for key, document in corpus.items())),
    ):
        empty = [key for key, text in texts if not text.strip()]
        if empty:
            raise DataError(
                f"{len(empty)} {kind} text(s) of {name!r} are empty",
                value=empty[:5],
                expected=f"every {kind} to hold some text",
                remedy=f"remove these {kind} ids from the data, or give them a text",
            )


def _check_ids(data: RankingData, split: str, source: str, documents: Mapping[str, list[str]]) -> None:
    unknown_queries = [query for query in documents if query not in data.queries]
    unknown_documents = [key for keys in documents.values() for key in keys if key not in data.corpus]
    for kind, unknown in (("query", unknown_queries), ("document", unknown_documents)):
        if unknown:
            raise DataError(
                f"The {split!r} {source} of {data.name!r} name {len(unknown)} unknown {kind} id(s)",
                value=unknown[:5],
                expected=f"{kind} ids that stand in {'queries' if kind == 'query' else 'corpus'}.jsonl",
                remedy="check that all files of the folder belong to the same data set",
            )


def merge(sets: list[RankingData]) -> RankingData:
    """Join several data sets into one; ids get the name of their set as a prefix.

    Raises:
        DataError: Two sets have the same name.
    """
    if len(sets) == 1:
        return sets[0]
    names = [data.name for data in sets]
    if len(set(names)) != len(names):
        raise DataError(
            "Two data sets have the same name",
            value=names,
            expected="a different folder name for each set",
            remedy="rename one of the folders",
        )
    if len({data.relevant_from for data in sets}) != 1:
        raise DataError(
            "The data sets count a document as relevant from different grades on",
            value={data.name: data.relevant_from for data in sets},
            expected="one threshold for all sets of a run",
            remedy="run them in recipes of their own",
        )
    splits: dict[str, Split] = {}
    for name in SPLITS:
        parts = [(data.name, data.splits[name]) for data in sets if name in data.splits]
        if parts:
            splits[name] = Split(
                qrels={
                    f"{prefix}/{query}": {f"{prefix}/{document}": grade for document, grade in grades.items()}
                    for prefix, split in parts
                    for query, grades in split.qrels.items()
                },
                candidates={
                    f"{prefix}/{query}": [f"{prefix}/{document}" for document in documents]
                    for prefix, split in parts
                    for query, documents in split.candidates.items()
                },
            )
    return RankingData(
        name="+".join(names),
        queries={f"{data.name}/{key}": text for data in sets for key, text in data.queries.items()},
        corpus={f"{data.name}/{key}": document for data in sets for key, document in data.corpus.items()},
        splits=splits,
        relevant_from=sets[0].relevant_from,
        publish_texts=all(data.publish_texts for data in sets),
        license="; ".join(dict.fromkeys(data.license for data in sets if data.license)),
        language=", ".join(sorted({code for data in sets for code in data.language.split(", ") if code})),
        notes=tuple(note for data in sets for note in data.notes),
        sets=tuple(names),
        first_stage=" or ".join(dict.fromkeys(data.first_stage for data in sets)),
    )
