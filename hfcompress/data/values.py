"""Values of data as text and as grades, whichever type their file gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

from hfcompress.data.document import Document
from hfcompress.errors import DataError

TEXT_TYPES = "text, a number, a boolean or a date"
_SURROGATE = re.compile("[\ud800-\udfff]")
_GRADE = re.compile(r"[+-]?\d+(\.0*)?")


def plain(value: Any) -> Any:
    """Return NumPy arrays and scalars as lists and Python objects, tuples as lists, and other values unchanged."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def is_missing(value: Any) -> bool:
    """Whether a value stands for no value: None, NaN, NaT, an empty text or an empty list."""
    if isinstance(value, Real | Decimal | date):
        return bool(value != value)
    return value is None or (isinstance(value, str | list) and not value)


def as_text(value: Any) -> str | None:
    """Return a value as a person writes it; `""` if it is missing, and None if it is no text.

    Whole numbers have no decimal point, whatever their type: a column of integers with a missing value is often stored
    as floats. Booleans are `True` and `False`, and dates are in ISO 8601, without the time at midnight.
    """
    if type(value) is str:  # nearly all are, and a stream of pairs has many
        return value
    value = plain(value)
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | Integral):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else None
    if isinstance(value, Real):
        number = float(value)
        if not np.isfinite(number):
            return None
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    if isinstance(value, datetime):
        midnight = value.time() == time() and value.tzinfo is None
        return value.date().isoformat() if midnight else value.isoformat(sep=" ")
    return value.isoformat() if isinstance(value, date | time) else None


def as_identifier(value: Any) -> str | None:
    """Return an id as text without outer white space, e.g. `"7"` for 7; None if missing, or neither text nor number."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, str | Real):
        return None
    return (as_text(value) or "").strip() or None


def as_document(row: Mapping[str, Any]) -> tuple[str, Document] | None:
    """Return id and document of a row with `_id`, `text` and perhaps `title`, as in BEIR; missing texts are empty.

    Returns:
        None if a value is of a wrong type, or there is no id.
    """
    key, title, text = as_identifier(row.get("_id")), as_text(row.get("title")), as_text(row.get("text"))
    return None if key is None or title is None or text is None else (key, Document(title, text))


def as_number(value: Any) -> float | None:
    """Return a number, a boolean or a number in a text as a float; None if it is none of these, or not finite."""
    value = plain(value)
    try:
        number = float(value) if isinstance(value, str | Real | Decimal) else np.nan
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def as_grade(value: Any) -> int | None:
    """Return a relevance grade, e.g. 1 for `"1"`, `" 1.0 "` and 1.0; None if it is not a whole number."""
    if isinstance(value, str):
        return int(float(value)) if _GRADE.fullmatch(value.strip()) else None
    number = as_number(value)
    return int(number) if number is not None and number.is_integer() else None


def is_broken(text: str) -> bool:
    """Whether a text has a surrogate, half of a character, which neither UTF-8 nor tokenizers can represent."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def mended(text: str) -> str:
    """Return a text with U+FFFD, the replacement character, for lone surrogates, and a character for pairs of them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mend_texts(
    name: str, queries: Mapping[str, str], corpus: Mapping[str, Document]
) -> tuple[dict[str, str], dict[str, Document], list[str]]:
    """Replace lone surrogates in the texts of a data set.

    Args:
        name: Name of the set, for the error message.
        queries: `{query id: text}`.
        corpus: `{document id: Document}`.

    Returns:
        Queries and corpus, and a note with the number of texts changed, if any.

    Raises:
        DataError: An id has a lone surrogate. Ids are not changed, as two of them might become the same.
    """
    bad = [key for key in (*queries, *corpus) if is_broken(key)]
    if bad:
        raise DataError(
            f"{len(bad)} id(s) of {name!r} have a lone surrogate, half of a character",
            value=[ascii(key) for key in bad[:5]],
            expected="ids that can be written in UTF-8",
            remedy="write these ids again, from a text that is not cut inside a character",
        )
    broken_queries = {key: mended(text) for key, text in queries.items() if is_broken(text)}
    broken_documents = {
        key: Document(mended(each.title), mended(each.text)) for key, each in corpus.items() if is_broken(each.content)
    }
    ids = [*broken_queries, *broken_documents]
    note = f"{len(ids)} texts had a lone surrogate, replaced by U+FFFD: {', '.join(ids[:5])}" + " ..." * (len(ids) > 5)
    return {**queries, **broken_queries}, {**corpus, **broken_documents}, [note] if ids else []
