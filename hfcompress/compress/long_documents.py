"""Whether truncation, chunks or a longer input is worth it for the teacher: measured on dev, and logged as advice."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hfcompress.compress.context import CompressContext
from hfcompress.compress.step_results import cached_value
from hfcompress.data.ranking import RankingData, Split, first_queries
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metrics import PRIMARY_METRIC, values_of_scores
from hfcompress.evaluation.reading import reading_cost
from hfcompress.evaluation.scores import split_scores
from hfcompress.models.load import load_config, load_tokenizer, model_fingerprint
from hfcompress.models.positions import position_limit
from hfcompress.recipe import LongDocuments

logger = logging.getLogger(__name__)

MANY_TRUNCATED = 0.1  # share of the dev pairs from which on the ways of reading are measured
QUERIES, FEWEST_QUERIES = 100, 20  # of dev that are scored
PAIRS = 2_000  # that are tokenized for the shares
TIME = 0.02  # of the time budget
LONGER = 4  # times the longest input, at most
STANDARD_ERRORS = 2.0  # that a gain must exceed to be worth its time


@dataclass(frozen=True)
class Reading:
    """A way of reading long documents.

    Attributes:
        name: Its name in the log.
        option: What asks for it on the command line.
        max_length: Longest input in tokens.
        long_documents: The setting.
    """

    name: str
    option: str
    max_length: int
    long_documents: LongDocuments


def advise(context: CompressContext) -> None:
    """Log whether another way of reading long documents ranks better on dev, where many dev pairs are truncated.

    The choice of the user is not changed. Scores in fp32 are known afterwards to all that asks for the same.

    Args:
        context: The call of `compress`.
    """
    dev = context.data.splits.get("dev")
    if dev is None or not dev.labelled or context.recipe.data.score_text:
        return
    readings = _readings(context)
    known: list[Any] = [model_fingerprint(context.teacher), context.data.fingerprint()]
    known += [[each.max_length, each.long_documents.model_dump(mode="json")] for each in readings]
    line = cached_value(context.workspace, "long-documents", known, lambda: _measured(context, dev, readings))
    if line:
        logger.info(f"long documents: {line}")


def _readings(context: CompressContext) -> list[Reading]:
    """Truncation, chunks and, if the model has the positions, truncation at a longer input."""
    length, chosen = context.max_length, context.recipe.evaluate.long_documents
    chunks = chosen if chosen.chunks else LongDocuments(mode="chunk", max_tokens_per_doc=chosen.max_tokens_per_doc)
    whole = LongDocuments(max_tokens_per_doc=chosen.max_tokens_per_doc)
    found = [
        Reading("truncated", "--long-documents truncate", length, whole),
        Reading("in chunks", "--long-documents chunk", length, chunks),
    ]
    if (longer := min(LONGER * length, position_limit(load_config(context.teacher)))) > length:
        found.append(Reading(f"truncated at {longer} tokens", f"--max-length {longer}", longer, whole))
    return found


def _measured(context: CompressContext, dev: Split, readings: list[Reading]) -> str:
    """The result in words; empty if few pairs are truncated."""
    tokenizer = load_tokenizer(context.teacher, context.max_length)
    judged = [query for query in dev.candidates if dev.relevant(query) and dev.candidates[query]]
    queries = first_queries(judged, QUERIES)
    pairs = [pair for query in queries for pair in context.data.pairs(query, dev.candidates[query])][:PAIRS]
    if not pairs:
        return ""
    costs = [reading_cost(pairs, tokenizer, each.max_length, each.long_documents) for each in readings]
    share = costs[0].truncated_pairs
    if share <= MANY_TRUNCATED:
        return ""
    ratios = [cost.read_mean / costs[0].read_mean for cost in costs]
    listed = sum(len(dev.candidates[query]) for query in queries) / len(queries)
    per_query = listed * sum(ratios) / context.rate
    affordable = int(min(len(queries), TIME * context.goal.seconds / per_query))
    begun = f"{share:.0%} of the dev pairs are longer than {context.max_length} tokens"
    if affordable < FEWEST_QUERIES:
        return f"{begun}; the time is too short to measure whether chunks or a longer input would rank better"
    data = _sample(context.data, dev, queries[:affordable])
    values = [_values(context, data, each) for each in readings]
    return f"{begun}. {_in_words(readings, values, ratios)}. {_choice_in_words(context)}"


def _sample(data: RankingData, dev: Split, queries: list[str]) -> RankingData:
    chosen = Split({query: dev.qrels[query] for query in queries}, {query: dev.candidates[query] for query in queries})
    return replace(data, splits={"dev": chosen})


def _values(context: CompressContext, data: RankingData, reading: Reading) -> np.ndarray:
    """The teacher's primary metric of each dev query."""
    scores = split_scores(
        Candidate.teacher(context.teacher, f"teacher, {reading.name}"),
        data,
        "dev",
        max_length=reading.max_length,
        options=replace(context.options, long_documents=reading.long_documents),
        progress=context.progress,
    )
    return np.array([each[PRIMARY_METRIC] for each in values_of_scores(scores, data, "dev").values()])


def _in_words(readings: list[Reading], values: list[np.ndarray], ratios: list[float]) -> str:
    base = values[0]
    parts = [f"The teacher's {PRIMARY_METRIC} on {len(base)} dev queries is {base.mean():.4f} truncated"]
    gains = {}
    for reading, found, ratio in zip(readings[1:], values[1:], ratios[1:], strict=True):
        differences = found - base
        error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
        parts.append(
            f"{found.mean():.4f} {reading.name} ({differences.mean():+.4f} ± {error:.4f}, {ratio:.1f}x tokens)"
        )
        if differences.mean() > STANDARD_ERRORS * error:
            gains[reading.option] = float(differences.mean())
    best = max(gains, key=gains.__getitem__, default=None)
    worth = f"{best} is worth it where quality counts" if best else "Truncation is good enough"
    return f"{', '.join(parts)}. {worth}"


def _choice_in_words(context: CompressContext) -> str:
    return f"As chosen, documents are {context.recipe.evaluate.long_documents}"
