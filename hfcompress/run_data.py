"""What the steps of a run read: its data, the teachers of its recovery, and pairs for int8."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from transformers import PreTrainedTokenizerFast

from hfcompress.data.load import load_data
from hfcompress.data.pseudo import pseudo_queries
from hfcompress.data.ranking import RankingData
from hfcompress.data.teachers import Teacher
from hfcompress.models import load_model, model_fingerprint
from hfcompress.rankers.base import Ranker
from hfcompress.rankers.bm25 import Bm25Ranker
from hfcompress.rankers.load import load_ranker
from hfcompress.rankers.pytorch import TorchRanker
from hfcompress.recipe import Recipe, ScoreSource

RANKING_QUERIES, RANKING_DOCUMENTS = 32, 8  # by which mixed precision is chosen


def load_run_data(recipe: Recipe, progress: bool) -> RankingData:
    """Data of the recipe; where it has no labelled train queries and some are to be made, with those."""
    recovery = recipe.recover
    data = load_data(recipe.data, progress, unlabelled=bool(recovery and recovery.unlabelled))
    train = data.splits.get("train")
    if recovery and recovery.pseudo_queries and not (train and train.labelled):
        data = with_pseudo_queries(recipe, data)
    if recipe.data.dev_from_train and not data.splits.get("dev"):
        data = data.with_dev(recipe.data.dev_from_train)
    return data


def with_pseudo_queries(recipe: Recipe, data: RankingData) -> RankingData:
    """The data, and train queries made of its documents, as many as the recipe asks for."""
    assert recipe.recover is not None
    return pseudo_queries(data, recipe.recover.pseudo_queries, recipe.seed, recipe.data.candidates)


def recovery_teachers(
    recipe: Recipe, data: RankingData, teacher: str, teacher_of: str, tokenizer: PreTrainedTokenizerFast
) -> Iterator[Teacher]:
    """The teachers of the recovery, each loaded when its turn comes.

    Args:
        recipe: The recipe; recovers.
        data: Its data, by whose corpus BM25 scores.
        teacher: Name of the run's own teacher.
        teacher_of: Its fingerprint.
        tokenizer: Its tokenizer.
    """
    assert recipe.recover is not None
    for source in recipe.recover.teachers or [ScoreSource()]:
        if source.bm25:
            settings = data.score_text.settings if data.score_text else None
            ranker: Ranker = Bm25Ranker(data.corpus, settings, data.language)
            yield Teacher(ranker, f"{ranker.name} {data.fingerprint()}", source.weight)
        elif source.model is None:
            ranker = TorchRanker(load_model(teacher, dtype="float32"), tokenizer, lambda logits: logits)
            yield Teacher(ranker, teacher_of, source.weight)
        else:
            length = source.max_length or recipe.teacher.max_length
            ranker = load_ranker(source.model, None if source.file else "torch", source.file, length)
            yield Teacher(ranker, f"{source_fingerprint(source)} at {length} tokens", source.weight)


def source_fingerprint(source: ScoreSource) -> str:
    """Fingerprint of a further teacher; empty for BM25 and the run's own."""
    return model_fingerprint(source.model, source.file) if source.model else ""


def calibration_pairs(data: RankingData, count: int) -> list[tuple[str, str]]:
    """Pairs of train queries (test queries only where there is no train split) with candidates spread over the list."""
    split = data.splits.get("train") or data.splits["test"]
    pairs = (
        data.pairs(query, [documents[number % len(documents)]])[0]
        for number, (query, documents) in enumerate(split.candidates.items())
        if documents
    )
    return list(islice(pairs, count))


def ranking_pairs(data: RankingData) -> list[tuple[str, str]]:
    """Pairs of a few train queries with several candidates each, spread over the list."""
    split = data.splits.get("train") or data.splits["test"]
    pairs = []
    for query, documents in islice(split.candidates.items(), RANKING_QUERIES):
        if documents:
            pairs += data.pairs(query, documents[:: math.ceil(len(documents) / RANKING_DOCUMENTS)])
    return pairs
