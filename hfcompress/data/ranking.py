"""The internal form of ranking data: queries, documents, relevance judgements and candidates by split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral

from hfcompress.data.document import Document, text_key
from hfcompress.data.score_text import ScoredTexts
from hfcompress.errors import DataError
from hfcompress.recipe import ScoreText

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        qrels: Relevance grades, `{query id: {document id: grade}}`; a grade of 0 means judged as not relevant.
        candidates: Documents to rerank, in the order of the first stage, `{query id: [document id]}`.
    """

    qrels: Mapping[str, Mapping[str, int]]
    candidates: Mapping[str, list[str]]

    def __len__(self) -> int:
        return len(self.candidates)

    @property
    def labelled(self) -> bool:
        """Whether any query has a relevant document."""
        return any(map(self.relevant, self.qrels))

    def relevant(self, query_id: str) -> list[str]:
        """Return the documents of a query with a grade above 0."""
        return [document for document, grade in self.qrels.get(query_id, {}).items() if grade > 0]


@dataclass(frozen=True)
class RankingData:
    """Queries, corpus and splits of one or several data sets.

    Attributes:
        name: Short name, used in reports and cards.
        queries: `{query id: text}`.
        corpus: `{document id: Document}`.
        splits: `{"train" | "dev" | "test": Split}`.
        relevant_from: Lowest grade that counts as relevant in binary metrics such as MRR.
        pool: Whether the candidates of a query are its judged documents, all of which are ranked.
        publish_texts: Whether the licence of the texts allows showing them in a published card.
        license: Licence of the data as named by its source; empty if unknown.
        language: ISO 639 code of the texts. Several codes are sorted and separated by commas; empty if unknown.
        notes: Remarks on how the data was read, shown in the card.
        sets: Names of the merged data sets, each of which prefixes its ids; empty for a single set.
        empty_files: Qrels files without judgements, by the split that they would be of.
        first_stage: Name of the ranking that ordered the candidates, as used in reports.
        score_text: Inserts BM25 scores into the texts of documents; None where models read documents alone. See
            `with_score_text`.
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
    empty_files: Mapping[str, str] = field(default_factory=dict)
    first_stage: str = "BM25"
    score_text: ScoredTexts | None = None

    def split(self, name: str, labelled: bool = True) -> Split:
        """Return the split `name`.

        Args:
            name: Name of the split.
            labelled: Whether the split must have labels; otherwise queries are enough.

        Raises:
            DataError: The split is missing, has no queries, or has no labels although they are required.
        """
        if name not in self.splits:
            empty = f": {self.empty_files[name]} is empty" if name in self.empty_files else ""
            raise DataError(
                f"The data set {self.name!r} has no {name!r} split{empty}",
                value=sorted(self.splits),
                expected=f"a split named {name!r}",
                remedy=f"add qrels/{name}.tsv, with judgements, to the data folder (in other layouts, a file of that "
                "name), or name another split",
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
        """Return a (query, document) pair of texts for each document, as input of a ranker."""
        query = self.queries[query_id]
        return [(query, document) for document in self.documents(query_id, document_ids)]

    def documents(self, query_id: str, document_ids: Iterable[str]) -> list[str]:
        """Return the texts of documents as a ranker reads them, with BM25 scores if `score_text` is set."""
        if self.score_text:
            return self.score_text.documents(self.queries[query_id], document_ids)
        return [self.corpus[document_id].content for document_id in document_ids]

    def set_of(self, query_id: str) -> str:
        """Return the name of the data set that a query comes from: the longest name that prefixes its id."""
        if not self.sets:
            return self.name
        matching = [name for name in self.sets if query_id.startswith(f"{name}/")]
        return max(matching, key=len, default=query_id.partition("/")[0])  # pseudo-queries belong to no set

    def with_score_text(self, settings: ScoreText) -> RankingData:
        """Return the data with the BM25 score of each pair written before the document.

        All pairs of texts come from `documents`: training lists, inputs of teachers, calibration, latency, evaluation
        and explanations.
        """
        return replace(self, score_text=ScoredTexts(settings, self.corpus, self.language))

    def limited(self, limits: Mapping[str, int | None], candidates: int | None = None) -> RankingData:
        """Keep at most `limits[split]` queries of each split and `candidates` documents per query.

        Queries are sorted by the SHA-1 of their id. So a smaller limit gives a subset of a larger one, and the result
        does not depend on the order of the files. Pool sets keep all documents.
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
        """Move labelled train queries, the first by the SHA-1 of their id, into a new dev split.

        Train queries with the text (`text_key`) of one of them move along, so that no dev query is trained on.

        Args:
            queries: Number of queries to move, not counting those that move along.

        Raises:
            DataError: Fewer than 2 labelled train queries would remain.
        """
        train = self.split("train")
        labelled = list(filter(train.relevant, train.qrels))
        texts = {text_key(self.queries[query]) for query in first_queries(labelled, queries)}
        moved = {query for query in {**train.candidates, **train.qrels} if text_key(self.queries[query]) in texts}
        if len(set(labelled) - moved) < 2:
            raise DataError(
                f"Too few train queries of {self.name!r} would remain beside the dev split",
                value=f"{len(labelled)} train queries with a relevant document, of which {queries} are to become dev",
                expected="at least 2 that remain",
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
        """SHA-256 over ids, texts, judgements, candidates, language and `score_text`, in order."""
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
    """SHA-1 of an id in hexadecimal, used as an order that is the same on every machine."""
    return hashlib.sha1(identifier.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()


def first_queries(queries: Iterable[str], limit: int | None) -> list[str]:
    """Return the first queries by the SHA-1 of their id, all of them if `limit` is None."""
    return sorted(queries, key=stable_hash)[:limit]


def validate(data: RankingData) -> RankingData:
    """Check that every id resolves, no text is empty and every grade is a non-negative integer.

    Returns:
        The data, unchanged.

    Raises:
        DataError: The first fault found, with the ids concerned.
    """
    validate_texts(data.name, data.queries, data.corpus)
    for name, split in data.splits.items():
        _validate_ids(data, name, "qrels", {query: list(grades) for query, grades in split.qrels.items()})
        _validate_ids(data, name, "candidates", split.candidates)
        for query, grades in split.qrels.items():
            for document, grade in grades.items():
                if isinstance(grade, bool) or not isinstance(grade, Integral) or grade < 0:
                    raise DataError(
                        f"The {name!r} qrels of {data.name!r} give query {query!r}, document {document!r} a bad grade",
                        value=grade,
                        expected="an integer of 0 or more",
                        remedy="use 0 for not relevant, 1 and up for relevant",
                    )
        for query, documents in split.candidates.items():
            if len(set(documents)) != len(documents):
                raise DataError(
                    f"The candidates of query {query!r} in {data.name!r} ({name}) name a document twice",
                    value=sorted({document for document in documents if documents.count(document) > 1})[:5],
                    expected="each document once per query",
                    remedy="remove the repeated lines from the candidates file",
                )
    return data


def validate_texts(name: str, queries: Mapping[str, str], corpus: Mapping[str, Document]) -> None:
    """Check that no text is empty.

    Raises:
        DataError: Some texts are empty; the error names their ids.
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


def _validate_ids(data: RankingData, split: str, source: str, documents: Mapping[str, list[str]]) -> None:
    unknown_queries = [query for query in documents if query not in data.queries]
    unknown_documents = [key for keys in documents.values() for key in keys if key not in data.corpus]
    for kind, unknown in (("query", unknown_queries), ("document", unknown_documents)):
        if unknown:
            raise DataError(
                f"The {split!r} {source} of {data.name!r} name {len(unknown)} unknown {kind} id(s)",
                value=unknown[:5],
                expected=f"{kind} ids of {'queries' if kind == 'query' else 'corpus'}.jsonl",
                remedy="check that all files of the folder belong to the same data set",
            )


def merge(sets: list[RankingData]) -> RankingData:
    """Merge several data sets into one, with the name of its set as prefix of every id.

    Raises:
        DataError: Two sets have the same name, or the sets differ in `relevant_from`.
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
            "The data sets differ in the lowest grade that counts as relevant",
            value={data.name: data.relevant_from for data in sets},
            expected="one threshold for all sets of a run",
            remedy="use a separate recipe for each",
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
        empty_files={split: file for data in sets for split, file in data.empty_files.items()},
        first_stage=" or ".join(dict.fromkeys(data.first_stage for data in sets)),
    )
