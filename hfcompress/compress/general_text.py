"""General text in the recovery of `compress`, where the data cannot give as many lists as there is time for."""

from __future__ import annotations

import logging
import time

from hfcompress.compress.budget import FULL_SHARE, TYPICAL_MACS, full_recovery, pair_seconds
from hfcompress.compress.context import CompressContext
from hfcompress.compress.step_results import cached_value
from hfcompress.data.also import has_general_text, load_also
from hfcompress.data.load import API_SEARCH, GENERAL_TEXT
from hfcompress.recipe import PruneStep

logger = logging.getLogger(__name__)

LANGUAGES = ("", "en")  # of data that English text may join; unknown counts as English, as in BM25
CALIBRATION_QUERIES: int = PruneStep.model_fields["calibration_queries"].default


def add_general_text(context: CompressContext) -> None:
    """Add general text to the supervision if there is time for more lists than the data can give.

    This is decided before the search, since pruning is then calibrated on these texts too. How many of its lists are
    trained on is decided with the size of the recovery, when speeds are known.

    Args:
        context: The call; its `supervision`, `also` and `loading` change.
    """
    sets, lists = context.recipe.data.sets, context.own_lists
    if context.data.language not in LANGUAGES or not has_general_text(sets) or API_SEARCH in context.zero_shot:
        return

    def has_time() -> bool:
        seconds, train_pair = FULL_SHARE * context.goal.seconds, pair_seconds(context.rate, TYPICAL_MACS)
        return full_recovery(seconds, train_pair, 1 / context.rate, lists, general=lists).also > 0

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
    logger.info(f"data: there is time for more lists than the {lists:,} that it can give; {GENERAL_TEXT} is added")
