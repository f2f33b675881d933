"""Reading data sets of ir_datasets, an optional package, by their ids."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from hfcompress.data.document import Document
from hfcompress.data.draft import ALL, DEFAULTS, Draft, ReadOptions, split_name
from hfcompress.data.judgements import add_judgement, clip_grades, drop_unknown
from hfcompress.data.values import as_text
from hfcompress.errors import DataError, MissingExtraError

IRDS = "irds:"
PARTS = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}


def read_ir_datasets(source: str | Path, options: ReadOptions = DEFAULTS) -> Draft:
    """Read `irds:ID`: a single split if the id ends with its name, else `ID/train`, `ID/dev` and `ID/test`.

    A set that has qrels and none of these subsets is split by hash.

    Raises:
        MissingExtraError: ir_datasets is not installed.
        DataError: There is no such set, or it has no documents, queries or qrels.
    """
    try:
        ir_datasets = importlib.import_module("ir_datasets")
    except ImportError as error:
        raise MissingExtraError("ir_datasets", "ir-datasets", f"Reading {source}") from error
    identifier = str(source).removeprefix(IRDS).strip("/")
    whole = _load(ir_datasets, identifier)
    last = split_name(identifier.rpartition("/")[2]) if "/" in identifier else None
    parts = {} if last else _parts(ir_datasets, identifier)
    if not parts and whole is not None and whole.has_qrels():
        parts = {last or ALL: whole}
    corpus = whole if whole is not None and whole.has_docs() else next(iter(parts.values()), None)
    if not parts or corpus is None or not corpus.has_docs():
        raise DataError(
            "ir_datasets has no such data set, or none with documents, queries and qrels",
            value=identifier,
            expected="an id such as beir/scifact or beir/scifact/test",
            remedy="choose one from https://ir-datasets.com",
        )
    try:
        return _read(identifier, corpus, parts)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"ir_datasets cannot read {identifier}",
            value=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            expected="files that it can download, or has",
            remedy="check the network, and what https://ir-datasets.com says on how to get this set",
        ) from error


def _read(identifier: str, corpus: Any, parts: dict[str, Any]) -> Draft:
    draft = Draft(identifier)
    for document in corpus.docs_iter():
        draft.corpus[document.doc_id] = Document(as_text(getattr(document, "title", None)) or "", _text(document))
    for split, part in parts.items():
        draft.queries |= {query.query_id: _text(query) for query in part.queries_iter()}
        where = f"The qrels of {identifier} ({split})"
        for judgement in part.qrels_iter():
            add_judgement(draft, split, judgement.query_id, judgement.doc_id, judgement.relevance, where)
        if part.has_scoreddocs():
            scored: dict[str, list[tuple[float, str]]] = {}
            for hit in part.scoreddocs_iter():
                scored.setdefault(hit.query_id, []).append((-float(hit.score), hit.doc_id))
            draft.candidates[split] = {
                query: [document for _, document in sorted(rows)] for query, rows in scored.items()
            }
    draft.language = str((corpus.docs_lang() if hasattr(corpus, "docs_lang") else "") or "")
    drop_unknown(draft)
    clip_grades(draft)
    return draft


def _load(ir_datasets: Any, identifier: str) -> Any:
    try:
        return ir_datasets.load(identifier)
    except KeyError:
        return None


def _parts(ir_datasets: Any, identifier: str) -> dict[str, Any]:
    found = {}
    for split, names in PARTS.items():
        for name in names:
            part = _load(ir_datasets, f"{identifier}/{name}")
            if part is not None and part.has_qrels():
                found[split] = part
                break
    return found


def _text(record: Any) -> str:
    """Return the text of a document or query, or its `default_text()` if the record has no text field."""
    return as_text(record.text if hasattr(record, "text") else record.default_text()) or ""
