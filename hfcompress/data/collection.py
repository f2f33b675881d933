"""Queries and documents by id, without judgements: the texts that the lines of a run file stand for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hfcompress.data.bm25 import ENGLISH
from hfcompress.data.document import Document
from hfcompress.data.draft import ReadOptions
from hfcompress.data.load import BUILT_IN, load_built_in, reader_of
from hfcompress.data.ranking import SPLITS
from hfcompress.data.trec import DOCUMENTS, TOPICS, files_named, read_texts
from hfcompress.data.values import mend_texts
from hfcompress.errors import DataError


@dataclass(frozen=True)
class Collection:
    """Texts by id.

    Attributes:
        queries: `{query id: text}`.
        corpus: `{document id: Document}`.
        language: Language of the texts, as in `RankingData`.
    """

    queries: Mapping[str, str]
    corpus: Mapping[str, Document]
    language: str = ENGLISH

    def fingerprint(self) -> str:
        """SHA-256 over all ids and texts, in their order."""
        digest = hashlib.sha256(self.language.encode())
        for key, text in self.queries.items():
            digest.update(f"\0q\0{key}\0{text}".encode())
        for key, document in self.corpus.items():
            digest.update(f"\0d\0{key}\0{document.title}\0{document.text}".encode())
        return digest.hexdigest()


def read_collection(corpus: str, queries: Path | None = None, progress: bool = True) -> Collection:
    """Read the texts of a corpus and of queries. Lone surrogates become U+FFFD.

    Args:
        corpus: A file with documents: JSON lines, `id TAB text` or `id TAB title TAB text` lines, or TREC's `<DOC>`
            blocks, plain or gzipped. Or a data set that also has the queries: a folder with such files, as in BEIR's
            and TREC's layouts, or another source that `load_data` reads. Judgements are not needed.
        queries: A file with queries in one of these formats; by default those of the data set.
        progress: Show progress bars.

    Raises:
        DataError: A text cannot be read, or the queries are missing.
        MissingExtraError: The data set needs a package that is not installed.
    """
    found = _read(corpus, queries, progress)
    if queries is not None:
        found = Collection({key: text for key, _, text in read_texts(queries)}, found.corpus, found.language)
    mended_queries, mended_corpus, _ = mend_texts(corpus, found.queries, found.corpus)
    return Collection(mended_queries, mended_corpus, found.language)


def _read(name: str, queries: Path | None, progress: bool) -> Collection:
    if name in BUILT_IN:
        data = load_built_in(name, dict.fromkeys(SPLITS), 1, progress)
        return Collection(data.queries, data.corpus, data.language)
    path = Path(os.path.expanduser(name))
    if path.is_file() and queries is None:
        raise DataError(
            "A file with documents needs a file with queries",
            value=name,
            expected="--queries, or a data set that has both, such as a folder in BEIR's layout",
            remedy="add --queries FILE",
        )
    documents = [path] if path.is_file() else files_named(path, DOCUMENTS) if path.is_dir() else []
    topics = files_named(path, TOPICS) if path.is_dir() else []
    if documents and (topics or queries is not None):
        texts = {key: Document(title, text) for each in documents for key, title, text in read_texts(each)}
        return Collection({key: text for each in topics for key, _, text in read_texts(each)}, texts)
    draft = reader_of(name)(os.path.expanduser(name), ReadOptions(unlabelled=True))
    return Collection(draft.queries, draft.corpus, draft.language or ENGLISH)
