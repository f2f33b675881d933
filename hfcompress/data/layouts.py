"""The roles of columns: which one has the queries, which ones the documents, which one the labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from hfcompress.data.values import is_missing, plain
from hfcompress.errors import DataError

QUERY_COLUMNS = ("query", "question", "anchor", "sentence1", "sentence_1", "text1", "search_query")
LABEL_COLUMNS = ("label", "labels", "relevance", "grade", "score", "scores", "similarity", "margin", "margins")
TEACHER_COLUMNS = ("score", "scores", "margin", "margins")
LAYOUTS = (
    "query, document, label; query, positive; query, positive, negative (or negative_1 ..., or lists); "
    "query, docs, labels (lists)"
)
_ROLES = {
    "query": "|".join(QUERY_COLUMNS),
    "label": "|".join(LABEL_COLUMNS),
    "positive": r"pos(itive)?s?([_-]?\d+)?",
    "negative": r"(hard[_-]?)?neg(ative)?s?([_-]?\d+)?",
    "id": r"(.*[_-])?(id|ids|idx|index)|qid|pid|docid|__index_level_0__",
    "title": "title",
    "document": r"doc(ument)?s?|passages?|texts?|text2|sentence_?2|body|contents?",
    "answer": "answers?|responses?|context",  # a document, or a remark on another column that is one
}
_NUMBER = re.compile(r"\s*([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|true|false)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """The roles of the columns.

    Attributes:
        kind: Rows of `pairs` have one document and a label, those of `tuples` relevant and other documents, those of
            `lists` a list of documents, with or without a list of labels.
        query: Column of the query.
        documents: Column of the document or of the list; for tuples, the columns of relevant documents.
        negatives: Columns of documents that are not relevant.
        label: Column of the labels.
        title: Column of the document's title.
        unused: Column with the scores or margins of a teacher, which are not labels.
        guessed: Columns whose role follows from their position, since their name is no role.
        unread: Columns with text that have no role.
    """

    kind: Literal["pairs", "tuples", "lists"]
    query: str
    documents: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    label: str | None = None
    title: str | None = None
    unused: str | None = None
    guessed: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"query from {self.query!r}", f"documents from {_listed(self.documents)}"]
        if self.negatives:
            parts.append(f"not relevant from {_listed(self.negatives)}")
        if self.label:
            parts.append(f"labels from {self.label!r}")
        if self.unused:
            parts.append(f"scores in {self.unused!r} unused: the run's own teachers score")
        if self.unread:
            parts.append(f"not read: {_listed(self.unread)}")
        if self.guessed:
            parts.append(f"by position, as the name is no role: {_listed(self.guessed)}")
        return "columns: " + ", ".join(parts)


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(map(repr, columns))


def example_row(rows: Iterable[Mapping[str, Any]], columns: Iterable[str], typed: bool = False) -> dict[str, Any]:
    """Return a typical value of every column: the first text that is no number, else the first value that is there.

    Args:
        rows: The rows.
        columns: Names of the columns.
        typed: Whether all values of a column have one type, so that a number tells that there is no text.
    """
    found: dict[str, Any] = {}
    waiting = list(columns)
    for row in rows:
        if not waiting:
            break
        for column in tuple(waiting):
            value = plain(row.get(column))
            if column not in found and not is_missing(value):
                found[column] = value
            if _is_worded(value):
                found[column] = value
            known = role_of(column) or _is_worded(value) or (typed and not isinstance(found.get(column), str | list))
            if column in found and known:
                waiting.remove(column)
    return found


def detect_layout(columns: Iterable[str], example: Mapping[str, Any], name: str = "the data") -> Layout:
    """Detect the layout from the names of the columns and the types of their values.

    A column whose name is a role has that role, whatever its values are. Only where no name says which column has the
    queries, or the documents, it is the first one with text. Ids, and numbers in columns of other names, are ignored.

    Args:
        columns: Names of the columns, in their order.
        example: A value of each column.
        name: Name of the data, for the error message.

    Raises:
        DataError: The columns fit no layout.
    """
    columns = list(columns)
    layout = _layout(columns, example)
    if layout is None:
        raise DataError(
            f"The columns of {name} fit no layout that is known",
            value=columns,
            expected=LAYOUTS,
            remedy="rename the columns (datasets: rename_column), and remove those that are neither text nor label",
        )
    return layout


def _layout(columns: Sequence[str], example: Mapping[str, Any]) -> Layout | None:
    texts = _texts(columns, example)
    labels = [column for column in columns if role_of(column) == "label"]
    scored = next((column for column in labels if column.lower() in TEACHER_COLUMNS), None)
    label = next((column for column in labels if column != scored), scored)
    positives = tuple(column for column in texts if role_of(column) == "positive")
    negatives = tuple(column for column in texts if role_of(column) == "negative")
    query = _query(texts, example, bool(positives))
    if query is None or (negatives and not positives):
        return None
    others = [column for column in texts if column not in (query, *positives, *negatives)]
    lists = [column for column in others if isinstance(example.get(column), list)]
    unread: Sequence[str] = others
    title = None
    kind: Literal["pairs", "tuples", "lists"] = "tuples"
    if positives:
        documents: tuple[str, ...] = positives
        if label and not negatives and len(positives) == 1 and not isinstance(example.get(positives[0]), list):
            kind, scored = "pairs", None
    elif lists:
        unread = [column for column in others if column not in lists]
        if len(lists) != 1 or any(role_of(column) == "document" for column in unread):
            return None
        kind, documents, label = "lists", (lists[0],), None if label == scored else label
    else:
        title = next((column for column in others if column.lower() == "title"), None) if len(others) == 2 else None
        documents = tuple(column for column in others if column != title)
        if len(documents) != 1:
            return None
        kind, scored, unread = "pairs" if label else "tuples", None, ()
    guessed = [query] if role_of(query) != "query" else []
    guessed += [column for column in documents if role_of(column) not in ("positive", "document", "answer")]
    return Layout(
        kind,
        query,
        documents,
        negatives,
        label=label if kind != "tuples" else None,
        title=title,
        unused=scored,
        guessed=tuple(guessed),
        unread=tuple(column for column in unread if _is_worded(example.get(column))),
    )


def _texts(columns: Sequence[str], example: Mapping[str, Any]) -> list[str]:
    """Return columns with text, and those whose name says that their values are read as text."""
    named = {"query", "positive", "negative", "title", "document"}
    if not any(role_of(column) == "document" for column in columns):
        named.add("answer")
    return [
        column
        for column in columns
        if role_of(column) not in ("id", "label")
        and (_is_worded(example.get(column)) or (role_of(column) in named and not _is_struct(column, example)))
    ]


def _query(texts: Sequence[str], example: Mapping[str, Any], positives: bool) -> str | None:
    """Return the column of the query: by its name, else the first of single texts, or with positives the only one."""
    named = next((column for column in texts if role_of(column) == "query"), None)
    if named:
        return named
    single = [
        column
        for column in texts
        if role_of(column) not in ("positive", "negative") and not isinstance(example.get(column), list)
    ]
    return single[0] if single and not (positives and len(single) > 1) else None


@cache
def role_of(column: str) -> str | None:
    """Return the role that the name of a column has: `query`, `document`, `label` and others; None for no role."""
    return next((role for role, names in _ROLES.items() if re.fullmatch(names, column, re.IGNORECASE)), None)


def _is_struct(column: str, example: Mapping[str, Any]) -> bool:
    """Whether a title or an answer is an object with parts, as in SQuAD, which is no text."""
    return role_of(column) in ("title", "answer") and isinstance(example.get(column), dict)


def _is_worded(value: Any) -> bool:
    """Whether a value is a text other than a number, or a list that begins with such a text."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, str) and not _NUMBER.fullmatch(first) and bool(first.strip())
