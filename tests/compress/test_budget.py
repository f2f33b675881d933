"""What fits into the time budget, and which models get a longer recovery."""

from __future__ import annotations

import pytest

from hfcompress.compress import budget
from hfcompress.compress.budget import fastest_within, survivors


def test_half_of_a_family_goes_on() -> None:
    losses = {1.5: 0.004, 2.0: 0.012, 3.0: 0.02, 4.0: 0.05, 6.0: 0.2}
    assert survivors(losses, 0.005) == [3.0, 2.0, 1.5]
    assert survivors(losses, 0.001) == [3.0, 2.0, 1.5]  # none is good enough: those that lose least
    assert survivors({1.5: 0.0, 2.0: 0.001, 3.0: 0.004, 4.0: 0.05}, 0.005) == [4.0, 3.0]  # 1.5x and 2x are settled
    assert survivors({2.0: 0.0, 4.0: 0.001}, 0.005) == [4.0]


def test_the_fastest_that_is_good_enough_is_chosen() -> None:
    assert fastest_within({1.5: 0.0, 2.0: 0.009, 3.0: 0.02}, 0.01) == 2.0
    assert fastest_within({2.0: 0.05, 3.0: 0.02, 4.0: 0.3}, 0.01) == 3.0


@pytest.mark.parametrize("seconds", [60, 300, 1000, 5000, 50_000])
def test_a_full_recovery_fits(seconds: float) -> None:
    training = budget.full_recovery(seconds, train_pair=0.05, score_pair=0.01, available=3000)
    assert 8 * training.lists * (0.01 + training.epochs * 0.05) <= seconds and 0 <= training.lists <= 3000
    if seconds == 60:  # 60 / (8 * (0.01 + 2 * 0.05))
        assert (training.lists, training.epochs) == (68, 2)
    if seconds == 5000:
        assert (training.lists, training.epochs) == (3000, 3)  # no more lists, so a further pass
    if seconds == 1000:
        assert training.epochs == budget.EPOCHS and training.lists == 1136
    if seconds == 50_000:
        assert training.epochs == budget.MOST_EPOCHS


def test_no_recovery_where_it_would_teach_nothing() -> None:
    assert budget.full_recovery(10, 0.05, 0.01, 3000).lists == 0
    assert budget.full_recovery(1000, 0.05, 0.01, 20).lists == 0
    assert budget.short_recoveries(10, [0.05, 0.03], 500) == 0
    assert budget.short_recoveries(100, [0.05, 0.03], 500) == 156
    assert budget.short_recoveries(1000, [0.05, 0.03], 500) == 500


def test_new_queries_come_before_new_documents_and_both_before_further_epochs() -> None:
    def size(seconds: float, general: int = 400, documents: int = 20) -> tuple[int, ...]:
        found = budget.full_recovery(seconds, 0.05, 0.01, 400, general, documents)
        return found.lists, found.also, found.documents, found.epochs

    list_seconds = 8 * (0.01 + 2 * 0.05)
    assert size(399 * list_seconds + 0.1) == (399, 0, 8, 2)
    assert size(500 * list_seconds + 0.1) == (400, 100, 8, 2)
    assert size(900 * list_seconds) == (400, 400, 8, 2)  # at most half of the lists are of general text
    assert size(910 * list_seconds, general=50) == (400, 50, 16, 2)
    assert size(1601 * list_seconds) == (400, 400, 16, 2)
    assert size(3001 * list_seconds) == (400, 400, 16, 3)  # no more documents than there are candidates
    assert size(3001 * list_seconds, documents=30) == (400, 400, 30, 2)
    assert size(3001 * list_seconds, general=0, documents=8) == (400, 0, 8, 6)


def test_many_lists_need_one_epoch_in_a_stage() -> None:
    def stages(lists: int) -> tuple[int, int]:
        return budget.stages_for(3.2 * lists * 8 * 0.05, lists, 8.0, lambda way: 0.05, 0.0)

    assert stages(budget.ONE_EPOCH_LISTS) == (3, 1) and stages(budget.ONE_EPOCH_LISTS - 1) == (1, 3)


def test_epochs_for() -> None:
    assert budget.epochs_for(1000, 500, 0.05) == 5
    assert budget.epochs_for(1, 500, 0.05) == 1  # less than a pass is none
    assert budget.epochs_for(-1, 500, 0.05) == 0
    assert budget.epochs_for(1e6, 500, 0.05) == budget.MOST_EPOCHS


def test_rounds_of_pruning_and_recovery() -> None:
    """A pass over the lists takes 400 s at the end of the way, more on the way there, and a search 100 s."""

    def stages(seconds: float, pruning_speedup: float = 4.0) -> tuple[int, int]:
        return budget.stages_for(seconds, 1000, pruning_speedup, lambda way: 0.05 * (2 - way), 100)

    assert stages(300) == (1, 1) and stages(900) == (1, 2)
    # Two rounds have passes of 500 s on average, and three of 533 s.
    assert stages(2100) == (1, 5) and stages(2200) == (2, 2)
    assert stages(3400) == (2, 3) and stages(3501) == (3, 2)
    assert (
        stages(1e6) == (3, 2)
        and stages(1e6, pruning_speedup=1.5) == (2, 3)
        and stages(1e6, pruning_speedup=1.3) == (1, 6)
    )


def test_a_smaller_model_trains_faster() -> None:
    assert budget.pair_seconds(100, 1.0) == pytest.approx(0.03)
    assert budget.pair_seconds(100, 0.5) < budget.pair_seconds(100, 1.0)
