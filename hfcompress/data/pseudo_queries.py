"""Pseudo-queries: train queries made from documents, for a corpus with few queries or none."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from hfcompress.data.bm25 import retrieve
from hfcompress.data.document import Document, text_key
from hfcompress.data.ranking import RankingData, Split
from hfcompress.data.sentences import SENTENCE_END
from hfcompress.errors import DataError

PREFIX = "pseudo-query/"
MAX_WORDS = 32
MIN_CHARACTERS, MAX_CHARACTERS = 16, 256  # the least is not asked of titles and first sentences


def add_pseudo_queries(
    data: RankingData, count: int, seed: int, candidates: int = 20, last: Collection[str] = ()
) -> RankingData:
    """Add train queries made from documents, as `make_queries` does.

    The source document is the only relevant document of its query. It stays in the corpus unchanged and may be among
    the candidates. No text of a query of the data is made again. Pseudo-queries cannot replace real ones: they stay
    close to the wording of the documents.

    Args:
        data: Data with a corpus. Its train queries are kept.
        count: Maximum number of queries; fewer if the documents have no more sentences.
        seed: Seed of the selection of documents and sentences.
        candidates: BM25 candidates per query.
        last: Ids of documents that are used only after all others, such as those that training lists have already.

    Returns:
        The data with queries `pseudo-query/DOCUMENT ID` appended to its train split; the second query made from a
        document is `pseudo-query/DOCUMENT ID#2`.

    Raises:
        DataError: No document gives a query.
    """
    made = make_queries(data.corpus, count, seed, known=data.queries.values(), last=last)
    if not made:
        raise DataError(
            f"No pseudo-query can be made from the corpus of {data.name!r}",
            value=f"{len(data.corpus)} documents, {count} queries wanted",
            expected="documents with words in a title or a first sentence, and a count of 1 or more",
            remedy="check the corpus, or give train queries",
        )
    queries = {query: text for query, (text, _) in made.items()}
    train = data.splits.get("train", Split({}, {}))
    qrels = {query: {document: data.relevant_from} for query, (_, document) in made.items()}
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
        notes=(*data.notes, f"{len(queries)} train queries made from titles and sentences of documents"),
    )


def make_queries(
    corpus: Mapping[str, Document],
    count: int,
    seed: int,
    *,
    known: Iterable[str] = (),
    last: Collection[str] = (),
    titles: bool = True,
) -> dict[str, tuple[str, str]]:
    """Make queries from documents: at first one from each document, then a second one from each, and so on.

    The first one is the title, or the first sentence of a document without title; the others are further sentences in
    random order. A text (`text_key`) is used once. With the same seed, a smaller count gives the first queries of a
    larger one.

    Args:
        corpus: `{document id: Document}`.
        count: Maximum number of queries; fewer if the documents have no more sentences.
        seed: Seed of the order of documents and sentences.
        known: Texts of queries that are not to be made.
        last: Ids of documents from which queries are made after those from all others.
        titles: Begin with titles and first sentences; otherwise any sentence is drawn, and a title only from a document
            without sentences of `MIN_CHARACTERS`.

    Returns:
        `{query id: (text, id of its document)}`; texts have at most `MAX_WORDS` words and `MAX_CHARACTERS` characters.
    """
    order = list(corpus)
    random.Random(seed).shuffle(order)
    later = set(last)
    order.sort(key=later.__contains__)  # stable: shuffled within both parts
    seen = {text_key(text) for text in known}
    made: dict[str, tuple[str, str]] = {}
    pending = {document: _texts(corpus[document], random.Random(f"{seed}:{document}"), titles) for document in order}
    number = 0
    while pending and len(made) < count:
        number += 1
        for document in list(pending):
            text = next(pending[document], None)
            if text is None:
                del pending[document]
                continue
            query = f"{PREFIX}{document}" + (f"#{number}" if number > 1 else "")
            if (key := text_key(text)) not in seen and query not in made:
                seen.add(key)
                made[query] = text, document
                if len(made) == count:
                    break
    return made


def has_pseudo_queries(data: RankingData) -> bool:
    """Whether the train split has pseudo-queries."""
    return any(query.startswith(PREFIX) for query in data.splits.get("train", Split({}, {})).candidates)


def _texts(document: Document, rng: random.Random, titles: bool) -> Iterator[str]:
    """Texts of queries that a document gives, in order."""
    first, *rest = (_shortened(each) for each in SENTENCE_END.split(document.text.strip()))
    title = _shortened(document.title)
    if titles and (title or first):
        yield title or first
        rest = [first, *rest] if title else rest
    else:
        rest = [first, *rest]
    rest = [each for each in rest if len(each) >= MIN_CHARACTERS]
    if not titles and not rest and (title or first):
        yield title or first
    rng.shuffle(rest)
    yield from rest


def _shortened(text: str) -> str:
    words = [word for word in text.split() if re.search(r"\w", word)]
    return " ".join(words[:MAX_WORDS])[:MAX_CHARACTERS].rstrip()
