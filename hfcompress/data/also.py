"""Additional texts of a recovery: unlabelled queries and documents, mostly of other domains, scored by the teacher.

Distillation needs no labels, and a student that sees only one domain forgets what the teacher knew of others. The lists
made here are a *transfer set* in the sense of Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from pathlib import Path

from datasets import Dataset, concatenate_datasets

from hfcompress.data.bm25 import retrieve
from hfcompress.data.document import text_key
from hfcompress.data.draft import ALL, Draft, ReadOptions, finish
from hfcompress.data.lists import training_lists
from hfcompress.data.load import API_SEARCH, BUILT_IN, GENERAL_TEXT, load_built_in, reader_of
from hfcompress.data.plain_text import first_documents, is_text_file, read_documents
from hfcompress.data.pseudo_queries import make_queries
from hfcompress.data.ranking import RankingData, Split, merge
from hfcompress.data.wordnet import LICENSE, find_wordnet, read_wordnet
from hfcompress.errors import DataError
from hfcompress.recipe import DataStep

PREFIX = "also/"  # of the ids of queries in lists
WORDNET = "wordnet"  # a part of the general text


@dataclass(frozen=True)
class AlsoPart:
    """One of several additional texts.

    Attributes:
        name: Its name.
        queries: Number of its queries that are used.
        documents: Number of its documents.
        license: Its licence; empty if unknown.
    """

    name: str
    queries: int
    documents: int
    license: str


@dataclass(frozen=True)
class AlsoTexts:
    """Queries and documents of all additional texts.

    Attributes:
        data: The texts. Its only split is `train`, in the order of use, in which the texts take turns. The only
            judgements are the source documents of queries that were made from sentences.
        fingerprint: SHA-256 over documents and given queries. It does not depend on the number of queries: fewer are
            the first of more.
        documents: Number of documents of each text, by its name.
        licenses: Licence of each text; empty if unknown.
    """

    data: RankingData
    fingerprint: str
    documents: Mapping[str, int]
    licenses: Mapping[str, str]

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.data.splits["train"])

    def lists(self, documents: int, random_negatives: int, seed: int, queries: int) -> Dataset:
        """Lists of the first queries, as `training_lists` makes them, with labels of 0.

        A list of a query made from a sentence begins with its source document, and neighbours by BM25 follow.

        Args:
            documents: Documents per list.
            random_negatives: Documents per list to sample from all additional texts.
            seed: Random seed.
            queries: Maximum number of lists.

        Raises:
            DataError: There are not enough documents for a list.
        """
        rows = training_lists(self.data, documents, random_negatives, seed, queries=queries, unlabelled=True)
        return Dataset.from_list(
            [{**row, "query_id": PREFIX + row["query_id"], "labels": [0.0] * len(row["documents"])} for row in rows]
        )

    def parts(self, queries: int) -> list[AlsoPart]:
        """What each text gives to the first `queries` queries."""
        names = self.data.sets or (self.data.name,)
        chosen = Counter(map(self.data.set_of, islice(self.data.splits["train"].candidates, queries)))
        return [AlsoPart(name, chosen[name], self.documents[name], self.licenses[name]) for name in names]


def also_count(lists: int, share: float) -> int:
    """Number of lists of additional texts beside `lists` others, so that `share` of all lists are additional."""
    return round(lists * share / (1 - share))


def mixed(lists: Dataset, also: Dataset) -> Dataset:
    """Both in one, spread evenly: every part of it from the start has the same share of both."""
    places = [(number + 0.5) / len(part) for part in (lists, also) for number in range(len(part))]
    order = sorted(range(len(places)), key=places.__getitem__)
    return concatenate_datasets([lists, also]).select(order)


def load_also(
    names: Sequence[str], step: DataStep, queries: int, seed: int, known: Iterable[str] = (), progress: bool = True
) -> AlsoTexts:
    """Load additional texts, and make queries of sentences where a text has too few.

    Given queries come first: the train queries of a data set, or all of a set without judgements. Judgements are not
    used, and the dev and test queries of a set are left alone, so that it can still be evaluated on.

    Args:
        names: Data sets as in `data.sets`, plain text files (`.txt`, `.txt.gz`; see `read_documents`), or
            `general-text`.
        step: Section `data` of the recipe: its `candidates`, `split_seed`, `label_threshold` and `score_text` apply. A
            part of the general text that is among its sets is left out.
        queries: Number of queries of all texts together; each gives an equal part, or fewer if it has no more.
        seed: Seed of the queries made from documents.
        known: Texts of queries that must not be used, such as those of dev and test.
        progress: Show progress bars.

    Raises:
        DataError: A text cannot be used, or gives no query.
        MissingExtraError: A set needs a package that is not installed.
    """
    parts = [part for name in names for part in (_general_parts(step.sets) if name == GENERAL_TEXT else [name])]
    each = math.ceil(queries / max(1, len(parts)))
    taken = {text_key(text) for text in known}
    digest = hashlib.sha256(f"{seed} {step.candidates} {step.split_seed} {step.score_text}".encode())
    loaded = []
    for part in parts:
        data = _load(part, step, each, taken, progress)
        given = () if part in BUILT_IN else data.queries.values()  # of a built-in set only as many as are asked for
        for text in chain((document.content for document in data.corpus.values()), given, data.notes):
            digest.update(text.encode() + b"\x00")
        loaded.append(_with_queries(data, each, seed, taken, step.candidates))
    joined = replace(merge([replace(data, relevant_from=1) for data in loaded]), pool=False)
    train = joined.splits["train"]
    by_set: dict[str, list[str]] = {}
    for query in train.candidates:
        by_set.setdefault(joined.set_of(query), []).append(query)
    turns = [query for turn in zip_longest(*by_set.values()) for query in turn if query is not None]
    ordered = {query: train.candidates[query] for query in turns[:queries]}
    joined = replace(joined, splits={"train": Split({q: train.qrels.get(q, {}) for q in ordered}, ordered)})
    return AlsoTexts(
        joined.with_score_text(step.score_text) if step.score_text else joined,
        digest.hexdigest(),
        documents={data.name: len(data.corpus) for data in loaded},
        licenses={data.name: data.license for data in loaded},
    )


def has_general_text(sets: Sequence[str]) -> bool:
    """Whether `general-text` has anything beside the data sets of a recipe."""
    return API_SEARCH not in sets or find_wordnet() is not None


def _general_parts(sets: Sequence[str]) -> list[str]:
    """Parts of the general text that are installed, without those that are among the sets of the recipe.

    Raises:
        DataError: There is none.
    """
    parts = [API_SEARCH] * (API_SEARCH not in sets) + [WORDNET] * (find_wordnet() is not None)
    if not parts:
        raise DataError(
            f"{GENERAL_TEXT} has nothing beside data.sets",
            value=list(sets),
            expected=f"other sets than {API_SEARCH}, or WordNet's data files",
            remedy="install WordNet (Debian: wordnet-base), or name other texts in recover.also",
        )
    return parts


def _load(name: str, step: DataStep, queries: int, known: set[str], progress: bool) -> RankingData:
    """Load a text; its train split has given queries only, with candidates and without judgements."""
    limits = {"train": queries, "dev": 0, "test": 0}
    if name == WORDNET and (found := find_wordnet()):
        return RankingData(WORDNET, {}, first_documents(read_wordnet(found)), {}, license=LICENSE)
    if is_text_file(name):
        path = Path(name).expanduser()
        return RankingData(path.name.partition(".")[0] or path.name, {}, read_documents(path), {}, language="")
    if name in BUILT_IN:
        data = load_built_in(name, limits, step.candidates, progress)
    else:
        draft = reader_of(name)(os.path.expanduser(name), ReadOptions(step.label_threshold, unlabelled=True))
        if not any(grades for table in draft.qrels.values() for grades in table.values()):
            draft.qrels, draft.prepared = {"train": {query: {} for query in draft.queries}}, True  # all of them
        _leave_out(draft, known)
        data = finish(draft, limits, step.candidates, step.split_seed, unlabelled=bool(draft.queries))
    train = data.splits.get("train", Split({}, {}))
    listed = {query: documents for query, documents in train.candidates.items() if documents}
    return replace(data, splits={"train": Split({}, listed)})


def _leave_out(draft: Draft, known: set[str]) -> None:
    """Remove queries with known texts from the train split, where they would be drawn."""
    dropped = {query for query, text in draft.queries.items() if text_key(text) in known}
    for split in ("train", ALL):
        if split in draft.qrels:
            draft.qrels[split] = {query: each for query, each in draft.qrels[split].items() if query not in dropped}


def _with_queries(data: RankingData, count: int, seed: int, known: set[str], candidates: int) -> RankingData:
    """Take `count` queries: those given, without known ones, and then queries made from sentences."""
    train = data.splits.get("train", Split({}, {}))
    given = {query: listed for query, listed in train.candidates.items() if text_key(data.queries[query]) not in known}
    given = dict(list(given.items())[:count])
    texts = known | {text_key(data.queries[query]) for query in given}
    made = make_queries(data.corpus, count - len(given), seed, known=texts, titles=False) if count > len(given) else {}
    if not given and not made:
        raise DataError(
            f"No query can be made from {data.name!r} of recover.also",
            value=f"{len(data.corpus)} documents",
            expected="train queries, or documents with sentences",
            remedy="remove it from recover.also, or check the file",
        )
    queries = {query: text for query, (text, _) in made.items()}
    found = retrieve(queries, data.corpus, candidates, data.language or "en")
    return replace(
        data,
        queries={**{query: data.queries[query] for query in given}, **queries},
        splits={
            "train": Split(
                qrels={query: {document: 1} for query, (_, document) in made.items()},
                candidates={**given, **found},
            )
        },
    )
