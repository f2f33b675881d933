"""The columns of query and document in an input, by the names that the readers of data know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hfcompress.data.document import Document
from hfcompress.data.layouts import role_of
from hfcompress.data.values import TEXT_TYPES, as_text, is_broken
from hfcompress.errors import DataError

DOCUMENT_ROLES = ("document", "positive", "answer")  # the first one that a column has
Fault = Callable[[Any, str], DataError]  # makes the error of a row from a value and what was expected


@dataclass(frozen=True)
class Columns:
    """Names of columns, or of fields in JSON.

    Attributes:
        query: Column of the query.
        document: Column of the document.
        title: Column of the document's title, which is prepended as BEIR's readers do; None for documents without.
        score: Name of the new column.
    """

    query: str
    document: str
    title: str | None
    score: str

    def pair(self, values: dict[str, Any], fault: Fault) -> tuple[str, str]:
        """Query and document of a row.

        Args:
            values: Values of the row by column; others than those of query, document and title are ignored.
            fault: Makes the error.

        Raises:
            DataError: A value is missing, or is no text.
        """
        query, document = _text(values, self.query, fault), _text(values, self.document, fault)
        if self.title is None:
            return query, document
        return query, Document(_text(values, self.title, fault, required=False), document).content


@dataclass(frozen=True)
class ColumnNames:
    """Names that a user gives.

    Attributes:
        query: Column of the query; None for the one whose name says so.
        document: Column of the document; None for the one whose name says so.
        title: Column of the document's title; None for documents without.
        score: Name of the new column.
    """

    query: str | None = None
    document: str | None = None
    title: str | None = None
    score: str = "score"

    def among(self, names: Sequence[str], source: str) -> Columns:
        """Choose the columns of an input.

        Args:
            names: All its columns.
            source: Name of the input, for the error message.

        Raises:
            DataError: A column does not exist or is repeated, its name does not say what it has, or there is a column
                with the name of the new one.
        """
        query = self.query or _only(names, ("query",), "query", source)
        document = self.document or _only(names, DOCUMENT_ROLES, "document", source)
        for option, column in (("query", query), ("document", document), ("title", self.title)):
            if column is not None and list(names).count(column) != 1:
                raise DataError(
                    f"{source} has {'no column' if column not in names else 'several columns'} {column!r}",
                    value=list(names),
                    expected=f"one column with this name for --{option}-column",
                    remedy=f"correct --{option}-column, or rename the columns",
                )
        if self.score in names:
            raise DataError(
                f"{source} has a column {self.score!r} already",
                value=list(names),
                expected="a new name for the column with the scores",
                remedy="choose another one with --score-column",
            )
        return Columns(query, document, self.title, self.score)


def _only(names: Sequence[str], roles: Sequence[str], what: str, source: str) -> str:
    for role in roles:
        found = [name for name in names if role_of(name) == role]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise DataError(
        f"The names of the columns of {source} do not say which one has the {what}",
        value=list(names),
        expected=f"one column named like {'query or question' if what == 'query' else 'document, passage or text'}",
        remedy=f"name it with --{what}-column",
    )


def _text(values: dict[str, Any], column: str, fault: Fault, required: bool = True) -> str:
    if column not in values and required:
        raise fault(list(values), f"a field {column!r}")
    value = values.get(column)
    text = as_text(value)
    if text is None or (required and not text.strip()):
        raise fault(value if value is not None else "null", f"{TEXT_TYPES} that is not empty, in {column!r}")
    if is_broken(text):
        raise fault(ascii(text), f"UTF-8 without lone surrogates, in {column!r}")
    return text
