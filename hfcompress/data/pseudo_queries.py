"""Pseudo-queries: train queries made from documents, for a corpus without queries."""

from __future__ import annotations

import random
import re
from dataclasses import replace

from hfcompress.data.bm25 import retrieve
from hfcompress.data.document import Document, text_key
from hfcompress.data.ranking import RankingData, Split
from hfcompress.errors import DataError

PREFIX = "pseudo-query/"
MAX_WORDS = 32

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")


def add_pseudo_queries(data: RankingData, count: int, seed: int, candidates: int = 20) -> RankingData:
    """Add train queries made from documents: the title, or the first sentence of a document without title.

    The source document is the only relevant document of its query. It stays in the corpus unchanged and may be among
    the candidates. Documents with the same title or first sentence (`text_key`) give a single query, and none if it is
    the text of a query of the data. Pseudo-queries cannot replace real ones: they stay close to the wording of the
    documents.

    Args:
        data: Data with a corpus. Its train queries are kept.
        count: Maximum number of queries; fewer if fewer documents give one.
        seed: Seed of the selection of documents.
        candidates: BM25 candidates per query.

    Returns:
        The data with queries `pseudo-query/DOCUMENT ID` appended to its train split.

    Raises:
        DataError: No document gives a query.
    """
    identifiers = list(data.corpus)
    random.Random(seed).shuffle(identifiers)
    made: dict[str, str] = {}
    known = {text_key(text) for text in data.queries.values()}
    for document in identifiers:
        if len(made) == count:
            break
        text = _query(data.corpus[document])
        if text and (key := text_key(text)) not in known:
            known.add(key)
            made[document] = text
    if not made:
        raise DataError(
            f"No pseudo-query can be made from the corpus of {data.name!r}",
            value=f"{len(data.corpus)} documents, {count} queries wanted",
            expected="documents with words in a title or a first sentence, and a count of 1 or more",
            remedy="check the corpus, or give train queries",
        )
    queries = {f"{PREFIX}{document}": text for document, text in made.items()}
    train = data.splits.get("train", Split({}, {}))
    qrels = {query: {query.removeprefix(PREFIX): data.relevant_from} for query in queries}
    return replace(
        data,
        queries={**data.queries, **queries},
        splits={
            **data.splits,
            "train": Split(
                qrels={**train.qrels, **qrels},
                candidates={**train.candidates, **retrieve(queries, data.corpus, candidates, data.language)},
            ),
        },
        notes=(*data.notes, f"{len(queries)} train queries made from titles and first sentences of documents"),
    )


def has_pseudo_queries(data: RankingData) -> bool:
    """Whether the train split has pseudo-queries."""
    return any(query.startswith(PREFIX) for query in data.splits.get("train", Split({}, {})).candidates)


def _query(document: Document) -> str:
    text = document.title.strip() or _SENTENCE_END.split(document.text.strip(), maxsplit=1)[0]
    words = [word for word in text.split() if re.search(r"\w", word)]
    return " ".join(words[:MAX_WORDS])
