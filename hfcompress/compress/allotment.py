"""How the time that is left is shared out: lists to score, short recoveries, rounds of the full one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hfcompress.compress import spending
from hfcompress.compress.measured import remembered
from hfcompress.compress.work import Work

ROUNDS = 2  # of short recoveries
SEARCH = 0.5  # of the time for a family goes into pruning once


@dataclass(frozen=True)
class Allotment:
    """Shares of the time that is left, each found once and recalled by a resumed call with the same time budget.

    Attributes:
        work: What is to be done.
        made_of: What distinguishes the family from those of another search.
    """

    work: Work
    made_of: str

    @property
    def left(self) -> float:
        """Seconds for training, and for scoring what it learns from.

        The last run needs time beside it: it loads, prunes again, exports, and measures on the test split.
        """
        work = self.work
        dev, test = len(work.data.splits["dev"]), len(work.data.splits["test"])
        measuring = self._seconds("unpruned") * (1 + test / dev) / 2
        return work.left - (work.loading + self._search + measuring)

    def lists(self, rates: dict[float, float]) -> int:
        """How many lists to score: what the full recovery of a middling member will have time for.

        Args:
            rates: Seconds of training on one pair, of each member.
        """
        middling = sorted(rates.values())[len(rates) // 2]
        share = (1 - spending.SHORT_SHARE) ** (ROUNDS if len(rates) > 1 else 0) * spending.FULL_SHARE
        available, seconds = len(self.work.data.splits["train"]), share * self.left
        found = spending.full_recovery(seconds, middling, 1 / self.work.rate, available).lists
        return int(self._remembered("lists", [self.work.supervision.model_dump(mode="json")], found))

    def short(self, number: int, rates: list[float], most: int) -> int:
        """Lists of a round of short recoveries, 0 for none."""
        found = spending.short_recoveries(spending.SHORT_SHARE * self.left, rates, most)
        return int(self._remembered(f"round{number}", [len(rates), most], found))

    def stages(self, ratio: float, flops_kept: float, rate: float, lists: int) -> tuple[int, int]:
        """Rounds of pruning and recovery that there is time for, and passes in each.

        Args:
            ratio: Speed-up by pruning.
            flops_kept: Share of the encoder's multiply-adds that it leaves.
            rate: Seconds of training on one pair then.
            lists: Lists to train on.
        """
        expected = spending.pair_seconds(self.work.rate, flops_kept)

        def train_pair(way: float) -> float:
            return rate / expected * spending.pair_seconds(self.work.rate, flops_kept**way)

        found = spending.stages_for(spending.FULL_SHARE * self.left, lists, ratio, train_pair, self._search)
        stages, epochs = self._remembered("stages", [ratio, lists], found)
        return stages, epochs

    @property
    def _search(self) -> float:
        return SEARCH * self._seconds("family")

    def _seconds(self, step: str) -> float:
        return next(each.seconds for each in self.work.workspace.steps if each.name == step)

    def _remembered(self, name: str, inputs: list[Any], found: Any) -> Any:
        return remembered(self.work.workspace, name, [self.made_of, self.work.goal.seconds, *inputs], lambda: found)
