"""From what a loader has read to ranking data: missing splits by hash, limits, and candidates for what is left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hfcompress.data.bm25 import Bm25Index
from hfcompress.data.ranking import Document, RankingData, Split, check, check_texts, stable_hash
from hfcompress.errors import DataError

ALL = "whole"  # the split of what comes without one; `datasets` keeps "all" for itself
GIVEN = "given order"  # of candidates that come with the data, as figures name their first stage
NAMES = {
    ALL: ALL, "all": ALL, "train": "train", "training": "train",
    "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "eval": "dev",
    "test": "test", "testing": "test",
}  # fmt: skip
TEST_SHARE, DEV_SHARE = 0.2, 0.1


@dataclass
class Draft:
    """Texts and judgements as a source has them.

    Attributes:
        name: Short name of the set.
        queries: `{query id: text}`.
        corpus: `{document id: Document}`.
        qrels: `{split: {query id: {document id: grade}}}`; a split is `train`, `dev`, `test` or `whole`, which is yet
            to be split. A query without judgements has an empty entry.
        candidates: Documents to rank that the source itself names, `{split: {query id: [document id]}}`.
        pool: Whether the candidates of a query are the documents that the source lists for it, and no others.
        license: Licence, as the source names it.
        language: ISO 639 code; empty if unknown.
        notes: What a reader of the card should know.
    """

    name: str
    queries: dict[str, str] = field(default_factory=dict)
    corpus: dict[str, Document] = field(default_factory=dict)
    qrels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    candidates: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    pool: bool = False
    license: str = ""
    language: str = ""
    notes: list[str] = field(default_factory=list)


def split_name(name: str) -> str | None:
    """The split that a name stands for (`validation` for `dev`, `test-00000-of-00001` for `test`), None if for none."""
    return NAMES.get(re.split(r"[^a-z]", name.lower(), maxsplit=1)[0])


def drop_unknown(draft: Draft) -> None:
    """Leave out judgements of documents and topics that are not there, as subsets of collections have them; say so."""
    lost = 0
    for table in draft.qrels.values():
        for query in list(table):
            known = {document: grade for document, grade in table[query].items() if document in draft.corpus}
            lost += len(table[query]) - len(known) if query in draft.queries else len(table[query])
            if query in draft.queries:
                table[query] = known
            else:
                del table[query]
    for listed in draft.candidates.values():
        for query, documents in listed.items():
            listed[query] = [document for document in documents if document in draft.corpus]
    if lost:
        draft.notes.append(f"{lost} judgements left out, whose topic or document is not in the files")


def lift_grades(tables: Mapping[str, dict[str, dict[str, int]]]) -> list[str]:
    """Set grades below 0, which TREC has for junk, to 0: judged and not relevant. Returns a note if there are any.

    Args:
        tables: Judgements as in `Draft.qrels`; changed in place.
    """
    lifted = 0
    for table in tables.values():
        for grades in table.values():
            for document, grade in grades.items():
                if grade < 0:
                    grades[document] = 0
                    lifted += 1
    return [f"{lifted} judgements with a grade below 0 count as 0"] if lifted else []


def finish(
    draft: Draft, limits: Mapping[str, int | None], candidates: int, seed: int, unlabelled: bool = False
) -> RankingData:
    """Split what has no split, limit it, and find candidates where the source names none.

    Dev and test, where the source lacks them and has train queries, or queries without a split, are cut from those by
    a hash of seed and query text: 20% test, 10% dev. Equal texts fall into one split, and no other query changes sides
    when some are added. Queries that nobody judged stay in train, unless none is judged or one of the same text is cut.

    Candidates are the first of those that the source gives; in a pool all its documents, in the order of BM25; else
    what BM25 retrieves, in the train split behind the documents that are judged as not relevant.

    Args:
        draft: What was read.
        limits: At most so many queries of a split.
        candidates: Documents of a query to rank.
        seed: Seed of the split.
        unlabelled: Take queries of which no split knows for train queries without labels, or, where no query at all is
            in a split, split them as above.

    Raises:
        DataError: Nothing was read, a text is empty, or ids do not resolve.
    """
    if unlabelled:
        known = {query for grades in draft.qrels.values() for query in grades}
        others: dict[str, dict[str, int]] = {query: {} for query in draft.queries if query not in known}
        draft.qrels.setdefault("train" if known else ALL, {}).update(others)
    if not draft.queries or not draft.corpus or not any(draft.qrels.values()):
        raise DataError(
            f"The data set {draft.name!r} is empty",
            value=f"{len(draft.queries)} queries, {len(draft.corpus)} documents",
            expected="at least one query with a document",
            remedy="check the files and the names of their columns",
        )
    check_texts(draft.name, draft.queries, draft.corpus)
    notes = list(draft.notes)
    whole = draft.candidates.pop(ALL, {})
    if cut := _cut_splits(draft, seed):
        notes.append(f"{' and '.join(cut)} cut from the other queries by a hash of their text (seed {seed})")
    notes += _share_candidates(draft, whole)
    data = check(
        RankingData(
            name=draft.name,
            queries=draft.queries,
            corpus=draft.corpus,
            splits={
                split: Split(
                    qrels={query: grades for query, grades in qrels.items() if grades},
                    candidates={query: draft.candidates.get(split, {}).get(query, []) for query in qrels},
                )
                for split, qrels in draft.qrels.items()
                if qrels
            },
            pool=draft.pool,
            license=draft.license,
            language=draft.language,
            notes=tuple(notes),
        )
    ).limited(limits)
    given = "test" in draft.candidates and not draft.pool
    first_stage = GIVEN if given else data.first_stage
    return replace(data, splits=_with_candidates(data, draft, candidates), first_stage=first_stage)


def _cut_splits(draft: Draft, seed: int) -> list[str]:
    """Move queries of `whole`, or of `train`, to the splits that are missing; returns the names of those."""
    train = {**draft.qrels.get("train", {}), **draft.qrels.pop(ALL, {})}
    judged = {_plain(draft.queries.get(query, query)) for query, grades in train.items() if grades}
    unjudged = not judged and not any(grades for table in draft.qrels.values() for grades in table.values())
    missing = [split for split in ("dev", "test") if split not in draft.qrels]
    if not train or not missing:
        draft.qrels["train"] = train
        return []
    draft.qrels.update({split: {} for split in ("train", *missing)})
    for query, grades in train.items():
        text = draft.queries.get(query, query)
        split = hashed_split(text, seed) if unjudged or _plain(text) in judged else "train"
        draft.qrels[split if split in missing else "train"][query] = grades
    listed = draft.candidates.get("train", {})
    draft.candidates |= {split: listed for split in missing if any(map(listed.get, draft.qrels[split]))}
    return [split for split in missing if draft.qrels[split]]


def _share_candidates(draft: Draft, whole: Mapping[str, list[str]]) -> list[str]:
    """Give candidates without a split to the splits that have such queries; returns notes on queries without any.

    Raises:
        DataError: Candidates are given, and none for a query of the split.
    """
    tables = {split: list(queries) for split, queries in draft.qrels.items() if queries}
    shared = [split for split, queries in tables.items() if any(whole.get(query) for query in queries)]
    if whole and not shared:
        raise _foreign(draft.name, whole, [query for queries in tables.values() for query in queries])
    for split in shared:
        draft.candidates[split] = {**whole, **draft.candidates.get(split, {})}
    notes = []
    for split, queries in tables.items() if not draft.pool else ():
        listed = draft.candidates.get(split)
        if listed is None:
            if whole:
                notes.append(f"no {split} query has given candidates: they are retrieved with BM25")
            continue
        without = sum(not listed.get(query) for query in queries)
        if without == len(queries):
            raise _foreign(draft.name, listed, queries)
        if without:
            notes.append(f"{without} of {len(queries)} {split} queries have no given candidates")
    return notes


def _foreign(name: str, listed: Mapping[str, list[str]], queries: list[str]) -> DataError:
    return DataError(
        f"The candidates given with {name!r} are for none of its queries, or of none of its documents",
        value=list(listed)[:5],
        expected=f"documents of the collection for queries such as {queries[:5]}",
        remedy="check that the run, the topics and the documents belong to the same data set",
    )


def hashed_split(text: str, seed: int) -> str:
    """The split of a query by a hash of its text, without regard to case and spaces."""
    share = int(stable_hash(f"{seed}:{_plain(text)}")[:8], 16) / 16**8
    return "test" if share < TEST_SHARE else "dev" if share < TEST_SHARE + DEV_SHARE else "train"


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _with_candidates(data: RankingData, draft: Draft, count: int) -> dict[str, Split]:
    texts = [document.content for document in data.corpus.values()]
    identifiers = list(data.corpus)
    index = None
    splits = {}
    for name, split in data.splits.items():
        if name in draft.candidates and not draft.pool:
            splits[name] = Split(split.qrels, {query: listed[:count] for query, listed in split.candidates.items()})
            continue
        index = index or Bm25Index(texts, data.language)
        if draft.pool:
            places = {identifier: place for place, identifier in enumerate(identifiers)}
            chosen = {
                query: _ordered(index, places, data.queries[query], listed)
                for query, listed in split.candidates.items()
            }
        else:
            chosen = index.retrieve({query: data.queries[query] for query in split.candidates}, identifiers, count)
            if name == "train":
                chosen = {query: _after_negatives(split.qrels.get(query, {}), found) for query, found in chosen.items()}
        splits[name] = Split(split.qrels, chosen)
    return splits


def _ordered(index: Bm25Index, places: Mapping[str, int], query: str, listed: list[str]) -> list[str]:
    """Listed documents by BM25, so that their order in the source, often relevant ones first, tells nothing."""
    scores = index.scores(query)
    return sorted(listed, key=lambda document: (-float(scores[places[document]]), stable_hash(document)))


def _after_negatives(grades: Mapping[str, int], found: list[str]) -> list[str]:
    """Documents that were retrieved, behind those judged as not relevant."""
    first = [document for document, grade in grades.items() if grade == 0]
    return list(dict.fromkeys([*first, *found]))
