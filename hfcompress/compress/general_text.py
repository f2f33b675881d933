"""General text in the recovery of `compress`, where train queries cannot give as many lists as there is time for."""

from __future__ import annotations

import logging
import time
from statistics import mean

from hfcompress.compress.budget import FULL_SHARE, GENERAL_SHARE, TYPICAL_MACS, full_recovery, pair_seconds
from hfcompress.compress.context import CompressContext
from hfcompress.compress.step_results import cached_value
from hfcompress.data.also import has_general_text, load_also
from hfcompress.data.load import API_SEARCH, GENERAL_TEXT
from hfcompress.data.ranking import RankingData
from hfcompress.recipe import PruneStep

logger = logging.getLogger(__name__)

LANGUAGES = ("", "en")  # of data that English text may join; unknown counts as English, as in BM25
CHARACTERS = 4  # of a token, in English
CALIBRATION_QUERIES: int = PruneStep.model_fields["calibration_queries"].default


def add_general_text(context: CompressContext) -> None:
    """Add general text to the supervision if there is time for more lists than train queries can give.

    Queries made from the data's own documents keep a student good in its domain, and make it forget others: part of the
    lists are of general text instead (`budget.GENERAL_SHARE`).

    This is decided before the search, since pruning is then calibrated on these texts too. How many of its lists are
    trained on is decided with the size of the recovery, when speeds are known.

    Args:
        context: The call; its `supervision`, `also`, `score_cost` and `loading` change.
    """
    sets, lists = context.recipe.data.sets, context.own_lists
    if context.data.language not in LANGUAGES or not has_general_text(sets) or API_SEARCH in context.zero_shot:
        return

    def has_time() -> bool:
        seconds, train_pair = FULL_SHARE * context.goal.seconds, pair_seconds(context.rate, TYPICAL_MACS)
        size = full_recovery(seconds, train_pair, 1 / context.rate, lists, context.real_queries, general=lists)
        return size.also > 0

    # Not by the budget of a resumed call: with other calibration queries, the search would start again.
    if not cached_value(context.workspace, "general", context.identity(), has_time):
        return
    began = time.perf_counter()
    context.also = load_also(
        [GENERAL_TEXT],
        context.recipe.data,
        max(lists, CALIBRATION_QUERIES),
        context.recipe.seed,
        context.data.queries.values(),
        context.progress,
    )
    context.supervision = context.supervision.model_copy(update={"also": [GENERAL_TEXT]})
    context.loading += time.perf_counter() - began  # the final run loads it again
    relative = _mean_length(context.also.data, context.max_length) / _mean_length(context.data, context.max_length)
    context.score_cost = 1 + GENERAL_SHARE * (relative - 1)
    logger.info(
        f"data: there is time for more lists than those of {context.real_queries:,} train queries; "
        f"{GENERAL_TEXT} is added"
    )


def _mean_length(data: RankingData, max_length: int) -> float:
    """Mean characters of a document, as far as an input of so many tokens can have them."""
    return mean(min(len(document.content), CHARACTERS * max_length) for document in data.corpus.values())
