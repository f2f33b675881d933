"""Sections on queries that the artifact ranks differently than the teacher, singly and by kind."""

from __future__ import annotations

import numpy as np

from hfcompress.card.wording import metric
from hfcompress.evaluation.explain import changed_queries
from hfcompress.recipe import TRUNCATED
from hfcompress.report.explanation import Explanation, MovedQuery, QueryGroup
from hfcompress.report.report import Artifact, RunReport
from hfcompress.utils import text as md

MOVED = 5  # queries with the largest losses, and with the largest gains, if the report names none


def moved(report: RunReport, subject: Artifact | None) -> str:
    """The queries with the largest losses and gains, with the ranks of their best document."""
    if subject is None:
        return ""
    before, after = report.teacher.per_query, subject.per_query
    losses, gains = changed_queries(before, after)
    common = len(before.keys() & after.keys())
    text = (
        f"In {metric(report)} {md.code(subject.name)} is better than the teacher on {len(gains):,} of the "
        f"{common:,} test queries, worse on {len(losses):,} and the same on {common - len(losses) - len(gains):,}."
    )
    if losses or gains:
        text += " The largest losses, then the largest gains:\n\n"
        if report.explanation and report.explanation.moved:
            text += _explained(report, report.explanation)
        else:
            rows = [
                [md.code(query), _change(before[query], after[query])] for query in (*losses[:MOVED], *gains[:MOVED])
            ]
            text += md.table(["Query", metric(report)], rows, right_from=1)
    return f"## Queries that moved most\n\n{text}"


def kinds(report: RunReport) -> str:
    """Difference to the teacher by length of the query and by number of relevant documents."""
    if report.explanation is None:
        return ""
    parts = [
        _groups(report, "Query length", "token", report.explanation.by_query_length),
        _groups(report, "Relevant documents", "document", report.explanation.by_relevant),
    ]
    if report.explanation.by_document_length:
        parts.append(_by_document_length(report, report.explanation.by_document_length))
    return "### By kind of query\n\n" + "\n\n".join(parts)


def _explained(report: RunReport, explanation: Explanation) -> str:
    saliency = [query.saliency for query in explanation.moved if query.saliency]
    head = ["Query", metric(report), "Rank of its best document", "Tokens"] + ["Same words"] * bool(saliency)
    rows = [_row(query, bool(saliency)) for query in explanation.moved]
    notes = [
        "Rank of its best document: by the teacher, then by the artifact, among the candidates; best is the relevant "
        "one with the highest grade.",
        f"Tokens: of the query, and of query and document together, of which {_read(report)}.",
    ]
    if saliency:
        averages = _averages(
            float(np.mean([each.correlation for each in saliency])), float(np.mean([each.overlap for each in saliency]))
        )
        if steady := explanation.steady_saliency:
            same = _averages(steady.correlation, steady.overlap)
            averages += f"; where nothing moved {same} ({md.count(steady.queries, 'pair')})"
        notes.append(
            "Same words: whether teacher and student (in PyTorch) weigh the words of the pair alike, by gradient x "
            "input: Spearman's correlation, and how many of the teacher's 5 weightiest words are among the student's. "
            f"On average {averages}."
        )
    listed = "\n".join(f"- {note}" for note in notes)
    return f"{md.table(head, rows, right_from=1)}\n\n{listed}"


def _read(report: RunReport) -> str:
    """How many tokens of a pair are read, in words."""
    chunks = report.long_documents is not None and report.long_documents.chunks
    return f"{report.max_length} are read" + " at a time" * chunks


def _by_document_length(report: RunReport, groups: list[QueryGroup]) -> str:
    """The table by length of the relevant documents, and what happens to those that are too long."""
    how = report.long_documents or TRUNCATED
    table = _groups(report, "Relevant documents with their query", "token", groups)
    return f"{table}\n\nPairs of more than {report.max_length} tokens were {how}."


def _averages(correlation: float, overlap: float) -> str:
    return f"{correlation:.2f}, {md.percent(overlap)}"


def _row(query: MovedQuery, with_saliency: bool) -> list[str]:
    name = md.code(query.query) + (f" {md.plain(query.text)}" if query.text else "")
    row = [name, _change(query.teacher, query.artifact)]
    if query.documents:
        best = query.documents[0]
        length = f"{query.tokens}, {best.tokens}{' (cut)' if best.truncated else ''}"
        row += [f"{best.teacher_rank} → {best.artifact_rank} of {query.candidates}", length]
    else:
        row += ["", str(query.tokens)]
    if with_saliency:
        found = query.saliency
        row.append(_averages(found.correlation, found.overlap) if found else "")
    return row


def _groups(report: RunReport, title: str, noun: str, groups: list[QueryGroup]) -> str:
    if len(groups) == 1:
        (only,) = groups
        return f"{title}: all test queries have {_range(only, noun)}."
    rows = [
        [
            _range(group, noun),
            f"{group.queries:,}",
            md.fixed(group.teacher),
            md.signed(group.difference)
            + (f" ± {group.standard_error:.4f}" if group.standard_error is not None else ""),
        ]
        for group in groups
    ]
    return md.table([title, "Queries", f"{metric(report)} of the teacher", "Difference ± standard error"], rows, 1)


def _range(group: QueryGroup, noun: str) -> str:
    if group.least == group.most:
        return md.count(group.least, noun)
    return f"{group.least:,} to {md.count(group.most, noun)}"


def _change(before: float, after: float) -> str:
    return f"{md.fixed(before)} → {md.fixed(after)} ({md.signed(after - before)})"
