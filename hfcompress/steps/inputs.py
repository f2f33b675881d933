"""Inputs of the steps: the data of a run, the teachers of its recovery, and calibration pairs for int8."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from hfcompress.data.load import load_data
from hfcompress.data.pseudo_queries import add_pseudo_queries
from hfcompress.data.ranking import RankingData
from hfcompress.data.teachers import Teacher
from hfcompress.models.load import load_model, model_fingerprint
from hfcompress.rankers.base import Ranker
from hfcompress.rankers.bm25 import Bm25Ranker
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import Recipe, ScoreSource
from hfcompress.steps.context import RunContext
from hfcompress.steps.workspace import StepModel

RANKING_QUERIES, RANKING_DOCUMENTS = 32, 8  # mixed precision is chosen by their ranking


def load_run_data(recipe: Recipe, progress: bool) -> RankingData:
    """Load the data of a recipe, with pseudo-queries where the recipe wants them and no train query has labels."""
    recovery = recipe.recover
    data = load_data(recipe.data, progress, unlabelled=bool(recovery and recovery.unlabelled))
    train = data.splits.get("train")
    if recovery and recovery.pseudo_queries and not (train and train.labelled):
        data = with_pseudo_queries(recipe, data)
    if recipe.data.dev_from_train and not data.splits.get("dev"):
        data = data.with_dev(recipe.data.dev_from_train)
    return data


def with_pseudo_queries(recipe: Recipe, data: RankingData) -> RankingData:
    """Add as many pseudo-queries to the train split as the recipe asks for."""
    assert recipe.recover is not None
    return add_pseudo_queries(data, recipe.recover.pseudo_queries, recipe.seed, recipe.data.candidates)


def recovery_teachers(context: RunContext, teacher: StepModel) -> Iterator[Teacher]:
    """Yield the teachers of the recovery; each is loaded when it is needed.

    Args:
        context: A run whose recipe recovers; BM25 as a teacher scores with the corpus of its data.
        teacher: The run's own teacher.
    """
    recipe, data = context.recipe, context.data
    assert recipe.recover is not None
    for source in recipe.recover.teachers or [ScoreSource()]:
        if source.bm25:
            settings = data.score_text.settings if data.score_text else None
            ranker: Ranker = Bm25Ranker(data.corpus, settings, data.language)
            yield Teacher(ranker, f"{ranker.name} {data.fingerprint()}", source.weight)
        elif source.model is None:
            ranker = TorchRanker(load_model(teacher.name, dtype="float32"), context.tokenizer())
            yield Teacher(ranker, teacher.fingerprint, source.weight)
        else:
            length = source.max_length or recipe.teacher.max_length
            ranker = load_ranker(source.model, None if source.file else "torch", source.file, length)
            yield Teacher(ranker, f"{source_fingerprint(source)} at {length} tokens", source.weight)


def source_fingerprint(source: ScoreSource) -> str:
    """Fingerprint of an additional teacher; empty for BM25 and for the run's own teacher."""
    return model_fingerprint(source.model, source.file) if source.model else ""


def calibration_pairs(data: RankingData, count: int) -> list[tuple[str, str]]:
    """One pair a train query (test queries if there is no train split), with candidates of varying rank."""
    split = data.splits.get("train") or data.splits["test"]
    pairs = (
        data.pairs(query, [documents[number % len(documents)]])[0]
        for number, (query, documents) in enumerate(split.candidates.items())
        if documents
    )
    return list(islice(pairs, count))


def ranking_pairs(data: RankingData) -> list[tuple[str, str]]:
    """Pairs of a few train queries with several candidates each, of evenly spaced ranks."""
    split = data.splits.get("train") or data.splits["test"]
    pairs = []
    for query, documents in islice(split.candidates.items(), RANKING_QUERIES):
        if documents:
            pairs += data.pairs(query, documents[:: math.ceil(len(documents) / RANKING_DOCUMENTS)])
    return pairs
