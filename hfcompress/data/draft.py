"""From the draft that a reader returns to ranking data: splits, limits and candidates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from hfcompress.data.bm25 import Bm25Index
from hfcompress.data.document import Document, text_key
from hfcompress.data.ranking import RankingData, Split, stable_hash, validate, validate_texts
from hfcompress.data.values import mend_texts
from hfcompress.errors import DataError

ALL = "whole"  # split of data that comes without splits; `datasets` reserves the name "all"
BM25 = "BM25"
GIVEN = "given order"  # first stage of candidates that come with the data, as named in reports
NAMES = {
    ALL: ALL, "all": ALL, "train": "train", "training": "train",
    "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "eval": "dev",
    "test": "test", "testing": "test",
}  # fmt: skip
TEST_SHARE, DEV_SHARE = 0.2, 0.1

Qrels = dict[str, dict[str, int]]
"""`{query id: {document id: grade}}`."""


@dataclass
class Draft:
    """Texts, judgements and candidates as a reader found them.

    Attributes:
        name: Short name of the set.
        queries: `{query id: text}`.
        corpus: `{document id: Document}`.
        qrels: `{split: {query id: {document id: grade}}}`. A split is `train`, `dev`, `test` or `whole`, which is still
            to be split. A query without judgements has an empty entry.
        candidates: Candidates named by the source, `{split: {query id: [document id]}}`.
        pool: Whether the candidates of a query are the documents that the source lists for it, and no others.
        prepared: Whether the source has final splits and candidates, as BEIR's layout does. Then no split is cut from
            another one, candidates keep their order, and BM25 retrieves them for queries without an entry alone.
        first_stage: Name of the ranking that ordered the candidates of a prepared draft.
        relevant_from: Lowest grade that counts as relevant.
        publish_texts: Whether the licence allows showing texts in a published card.
        license: Licence as named by the source.
        language: ISO 639 code; empty if unknown.
        notes: Remarks for the card.
        repeated: Number of judgements that the source repeats with the same grade.
        empty_files: Qrels files without judgements, by split.
    """

    name: str
    queries: dict[str, str] = field(default_factory=dict)
    corpus: dict[str, Document] = field(default_factory=dict)
    qrels: dict[str, Qrels] = field(default_factory=dict)
    candidates: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    pool: bool = False
    prepared: bool = False
    first_stage: str = BM25
    relevant_from: int = 1
    publish_texts: bool = False
    license: str = ""
    language: str = ""
    notes: list[str] = field(default_factory=list)
    repeated: int = 0
    empty_files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadOptions:
    """Options of a reader; each reader uses those that concern its format.

    Attributes:
        label_threshold: Lowest label that counts as relevant, for labels that are not whole numbers.
        unlabelled: Accept queries without judgements.
    """

    label_threshold: float | None = None
    unlabelled: bool = False


DEFAULTS = ReadOptions()
Reader = Callable[[str, ReadOptions], Draft]
"""Reads a file, a folder, or a data set by its name; raises `DataError` if it is missing or malformed."""


def split_name(name: str) -> str | None:
    """Return the split that a name stands for, e.g. `dev` for `validation` and `test` for `test-00000-of-00001`."""
    return NAMES.get(re.split(r"[^a-z]", name.lower(), maxsplit=1)[0])


def drop_empty(draft: Draft) -> None:
    """Drop queries and documents without text that have no judgement, also from candidates; add notes on their number.

    Those with a judgement stay, and are refused by `validate_texts`.
    """
    tables = draft.qrels.values()
    judged_queries = {query for table in tables for query, grades in table.items() if grades}
    judged = {document for table in tables for grades in table.values() for document in grades}
    queries = {key for key, text in draft.queries.items() if not text.strip()} - judged_queries
    documents = {key for key, each in draft.corpus.items() if not each.content.strip()} - judged
    if not queries and not documents:
        return
    draft.queries = {key: text for key, text in draft.queries.items() if key not in queries}
    draft.corpus = {key: each for key, each in draft.corpus.items() if key not in documents}
    draft.qrels = {
        split: {query: grades for query, grades in table.items() if query not in queries}
        for split, table in draft.qrels.items()
    }
    draft.candidates = {
        split: {
            query: [document for document in listed if document not in documents]
            for query, listed in table.items()
            if query not in queries
        }
        for split, table in draft.candidates.items()
    }
    for kind, dropped in (("queries", queries), ("documents", documents)):
        if dropped:
            draft.notes.append(f"{len(dropped)} {kind} without text and without judgements left out")


def finish(
    draft: Draft,
    limits: Mapping[str, int | None],
    candidates: int,
    seed: int,
    unlabelled: bool = False,
    truncate: bool = True,
) -> RankingData:
    """Clean texts, add missing splits, apply limits, and add missing candidates.

    Lone surrogates become U+FFFD. Queries and documents without text are left out if they have no judgement. Notes give
    the number of both, and that of repeated judgements.

    Missing dev and test splits are cut from the train queries, or from queries without a split, by a hash of seed and
    query text: 20% test, 10% dev. Equal texts fall into one split, and adding queries moves no other query. Unjudged
    queries stay in train, unless no query is judged or a query of the same text is cut. Prepared drafts are split only
    if none of their queries has a split.

    Candidates are those that the source names. In a pool these are all its documents, ordered by BM25 unless the draft
    is prepared. Otherwise BM25 retrieves them; in a train split they follow the documents judged as not relevant,
    unless the draft is prepared.

    Args:
        draft: What a reader returned; changed in place.
        limits: Maximum number of queries by split.
        candidates: Documents to retrieve per query.
        seed: Seed of the split.
        unlabelled: Add queries without a split to train, without labels; if no query has a split, split them as above.
        truncate: Keep only the first `candidates` documents of candidates that the source names, except in a pool.

    Raises:
        DataError: Nothing was read, a judged query or document has no text, or ids do not resolve.
    """
    draft.queries, draft.corpus, mended = mend_texts(draft.name, draft.queries, draft.corpus)
    draft.notes += mended
    drop_empty(draft)
    draft.notes += [f"{file} is empty: no {split} split" for split, file in draft.empty_files.items()]
    if draft.repeated:
        draft.notes.append(f"{draft.repeated} repeated judgements count once")
    if unlabelled:
        known = {query for grades in draft.qrels.values() for query in grades}
        others: Qrels = {query: {} for query in draft.queries if query not in known}
        draft.qrels.setdefault("train" if known else ALL, {}).update(others)
    if not draft.queries or not draft.corpus or not any(draft.qrels.values()):
        raise DataError(
            f"The data set {draft.name!r} is empty",
            value=f"{len(draft.queries)} queries, {len(draft.corpus)} documents",
            expected="at least one query with a document",
            remedy="check the files and the names of their columns",
        )
    validate_texts(draft.name, draft.queries, draft.corpus)
    notes = list(draft.notes)
    cut = _cut_splits(draft, seed)
    if cut and not draft.prepared:
        notes.append(f"{' and '.join(cut)} cut from the other queries by a hash of their text (seed {seed})")
    notes += _share_candidates(draft)
    data = validate(
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
            relevant_from=draft.relevant_from,
            pool=draft.pool,
            publish_texts=draft.publish_texts,
            license=draft.license,
            language=draft.language,
            notes=tuple(notes),
            empty_files=draft.empty_files,
            first_stage=draft.first_stage,
        )
    )
    data = data.limited(limits) if limits else data
    return replace(data, splits=_with_candidates(data, draft, candidates, truncate))


def _cut_splits(draft: Draft, seed: int) -> list[str]:
    """Move queries of `whole`, or of `train`, to the missing splits, and return the names of these."""
    if draft.prepared and ALL not in draft.qrels:
        return []
    train = {**draft.qrels.get("train", {}), **draft.qrels.pop(ALL, {})}
    judged = {text_key(draft.queries.get(query, query)) for query, grades in train.items() if grades}
    unjudged = not judged and not any(grades for table in draft.qrels.values() for grades in table.values())
    missing = [split for split in ("dev", "test") if split not in draft.qrels]
    if not train or not missing:
        draft.qrels["train"] = train
        return []
    draft.qrels.update({split: {} for split in ("train", *missing)})
    for query, grades in train.items():
        text = draft.queries.get(query, query)
        split = hashed_split(text, seed) if unjudged or text_key(text) in judged else "train"
        draft.qrels[split if split in missing else "train"][query] = grades
    listed = draft.candidates.get("train", {})
    draft.candidates |= {split: listed for split in missing if any(map(listed.get, draft.qrels[split]))}
    return [split for split in missing if draft.qrels[split]]


def _share_candidates(draft: Draft) -> list[str]:
    """Assign candidates without a split to the splits that have such queries.

    Returns:
        Notes on queries without candidates.

    Raises:
        DataError: Candidates are given, but none of them for a query of the split.
    """
    whole = draft.candidates.pop(ALL, {})
    tables = {split: list(queries) for split, queries in draft.qrels.items() if queries}
    shared = [split for split, queries in tables.items() if any(whole.get(query) for query in queries)]
    for split in shared:
        draft.candidates[split] = {**whole, **draft.candidates.get(split, {})}
    if draft.prepared:
        return []
    if whole and not shared:
        raise _foreign(draft.name, whole, [query for queries in tables.values() for query in queries])
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
        draft.candidates[split] = {query: listed.get(query, []) for query in queries}
    if "test" in draft.candidates and not draft.pool:
        draft.first_stage = GIVEN
    return notes


def _foreign(name: str, listed: Mapping[str, list[str]], queries: list[str]) -> DataError:
    return DataError(
        f"The candidates given with {name!r} are for none of its queries, or of none of its documents",
        value=list(listed)[:5],
        expected=f"documents of the collection for queries such as {queries[:5]}",
        remedy="check that the run, the topics and the documents belong to the same data set",
    )


def hashed_split(text: str, seed: int) -> str:
    """Return the split of a query by a hash of its `text_key`, so that equal texts fall into one split."""
    share = int(stable_hash(f"{seed}:{text_key(text)}")[:8], 16) / 16**8
    return "test" if share < TEST_SHARE else "dev" if share < TEST_SHARE + DEV_SHARE else "train"


def _with_candidates(data: RankingData, draft: Draft, count: int, truncate: bool) -> dict[str, Split]:
    identifiers = list(data.corpus)
    indices = {identifier: index for index, identifier in enumerate(identifiers)}
    reorder = draft.pool and not draft.prepared
    depth = count if truncate and not draft.pool else None

    @cache
    def bm25() -> Bm25Index:
        return Bm25Index([document.content for document in data.corpus.values()], data.language)

    splits = {}
    for name, split in data.splits.items():
        given = split.candidates if reorder else draft.candidates.get(name, {})
        missing = {query: data.queries[query] for query in split.candidates if query not in given}
        chosen = bm25().retrieve(missing, identifiers, count) if missing else {}
        if name == "train" and not draft.prepared:
            chosen = {query: _after_negatives(split.qrels.get(query, {}), found) for query, found in chosen.items()}
        for query, listed in split.candidates.items():
            if query in given:
                ordered = _ordered(bm25(), indices, data.queries[query], listed) if reorder else listed
                chosen[query] = ordered[:depth]
        splits[name] = Split(split.qrels, {query: chosen[query] for query in split.candidates})
    return splits


def _ordered(bm25: Bm25Index, indices: Mapping[str, int], query: str, listed: list[str]) -> list[str]:
    """Order documents by BM25, since the order of the source, often with relevant documents first, may leak labels."""
    scores = bm25.scores(query)
    return sorted(listed, key=lambda document: (-float(scores[indices[document]]), stable_hash(document)))


def _after_negatives(grades: Mapping[str, int], found: list[str]) -> list[str]:
    """Retrieved documents, behind those judged as not relevant."""
    negatives = [document for document, grade in grades.items() if grade == 0]
    return list(dict.fromkeys([*negatives, *found]))
