"""BM25 as a second teacher of the recovery, where dev queries are ranked better by both together."""

from __future__ import annotations

import logging
from statistics import mean, stdev

from hfcompress.compress.context import CompressContext
from hfcompress.compress.step_results import cached_value
from hfcompress.data.teachers import ensemble_scores
from hfcompress.evaluation.candidate import Candidate
from hfcompress.evaluation.metrics import scores_of_split, values_of_scores
from hfcompress.evaluation.results import primary_values
from hfcompress.evaluation.scores import split_scores
from hfcompress.rankers.bm25 import Bm25Ranker
from hfcompress.recipe import ScoreSource

logger = logging.getLogger(__name__)

WEIGHT = 0.25  # of BM25, beside 1 for the model


def add_bm25_teacher(context: CompressContext) -> None:
    """Let BM25 teach beside the model if both together rank dev queries better on average.

    A cross-encoder misses some exact matches that BM25 finds, and interpolating both scores usually ranks better than
    either (Askari et al., "Injecting the BM25 score as text improves BERT-based re-rankers", ECIR 2023). So no proof is
    asked for: of one weight, which hardly fits dev, the better side is taken. The student learns the mixture from text
    alone, and is still compared with the model alone.

    Args:
        context: The call, with the scores of the model on dev in its store; `supervision` changes.
    """
    data = context.data

    def measure() -> tuple[float, float]:
        teacher = split_scores(
            Candidate.teacher(context.teacher, "teacher"),
            data,
            "dev",
            max_length=context.max_length,
            options=context.options,
            progress=context.progress,
        )
        settings = data.score_text.settings if data.score_text else None
        lexical = scores_of_split(Bm25Ranker(data.corpus, settings, data.language), data, "dev")
        if all(len(set(scores)) == 1 for scores in lexical.values()):  # BM25 does not read these texts
            return 0.0, 0.0
        both = ensemble_scores([list(teacher.values()), [lexical[query] for query in teacher]], [1.0, WEIGHT])
        alone = primary_values(values_of_scores(teacher, data, "dev"))
        mixed = primary_values(values_of_scores(dict(zip(teacher, both, strict=True)), data, "dev"))
        gains = [mixed[query] - alone[query] for query in alone]
        return mean(gains), stdev(gains) / len(gains) ** 0.5

    gain, error = cached_value(context.workspace, "bm25", context.identity(), measure)
    if gain <= 0:
        return
    logger.info(
        f"teachers: with BM25 at a weight of {WEIGHT:g}, the teacher ranks dev queries better by {gain:.4f} (standard "
        f"error {error:.4f}): the recovery learns from both"
    )
    teachers = [ScoreSource(), ScoreSource(bm25=True, weight=WEIGHT)]
    context.supervision = context.supervision.model_copy(update={"teachers": teachers})
