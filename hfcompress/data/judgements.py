"""Adding judgements to a draft, for every reader: grades, repeated ones, and those that refer to nothing."""

from __future__ import annotations

from typing import Any

from hfcompress.data.draft import Draft
from hfcompress.data.values import as_grade
from hfcompress.errors import DataError


def add_judgement(draft: Draft, split: str, query: str, document: str, grade: Any, where: str) -> None:
    """Add a judgement. One that is there already, with the same grade, is counted in `draft.repeated`.

    Args:
        draft: The draft.
        split: The split.
        query: Id of the query.
        document: Id of the document.
        grade: A whole number of any type, or as text, such as `1.0`.
        where: Where it was read, e.g. a file and a line, for the error message.

    Raises:
        DataError: The grade is not a whole number, or contradicts an earlier one.
    """
    value = as_grade(grade)
    if value is None:
        raise DataError(
            where,
            value=str(grade),
            expected="a grade that is an integer",
            remedy="correct or remove this judgement; for grades with decimals, give rows with labels and set "
            "data.label_threshold",
        )
    grades = draft.qrels.setdefault(split, {}).setdefault(query, {})
    if grades.get(document, value) != value:
        raise DataError(
            where,
            value=f"{query} {document}: {value}, and {grades[document]} before",
            expected="one grade for each document of a query",
            remedy="remove one of the judgements that contradict each other",
        )
    draft.repeated += document in grades
    grades[document] = value


def drop_unknown(draft: Draft) -> None:
    """Drop judgements and candidates whose query or document is missing, as in subsets of collections; add a note."""
    dropped = 0
    for split, table in draft.qrels.items():
        draft.qrels[split] = known = {
            query: {document: grade for document, grade in grades.items() if document in draft.corpus}
            for query, grades in table.items()
            if query in draft.queries
        }
        dropped += sum(map(len, table.values())) - sum(map(len, known.values()))
    for listed in draft.candidates.values():
        for query, documents in listed.items():
            listed[query] = [document for document in documents if document in draft.corpus]
    if dropped:
        draft.notes.append(f"{dropped} judgements left out, whose topic or document is not in the files")


def clip_grades(draft: Draft) -> None:
    """Set grades below 0, TREC's mark for junk, to 0 (not relevant), and add a note on their number."""
    clipped = 0
    for table in draft.qrels.values():
        for grades in table.values():
            for document, grade in grades.items():
                if grade < 0:
                    grades[document] = 0
                    clipped += 1
    if clipped:
        draft.notes.append(f"{clipped} judgements with a grade below 0 count as 0")
