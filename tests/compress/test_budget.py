"""What fits into the time budget."""

from __future__ import annotations

import pytest

from hfcompress.compress import budget
from hfcompress.compress.budget import RecoverySize


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


def test_its_evaluations_on_dev_fit_too() -> None:
    """So that the epochs which were planned are those that `stages_for` finds time for, when scores are there."""
    dev_pairs = 3000
    found = budget.full_recovery(1000, 0.05, 0.01, 3000, dev_pairs=dev_pairs)
    assert found.lists < budget.full_recovery(1000, 0.05, 0.01, 3000).lists and found.epochs == budget.EPOCHS
    left = 1000 - 8 * found.lists * 0.01
    assert budget.epochs_for(left, budget.epoch_pairs(found.lists, 8, dev_pairs), 0.05) == found.epochs


def test_no_recovery_where_it_would_teach_nothing() -> None:
    assert budget.full_recovery(10, 0.05, 0.01, 3000).lists == 0
    assert budget.full_recovery(1000, 0.05, 0.01, 20).lists == 0
    assert budget.short_recoveries(10, [0.05, 0.03], 500) == 0
    assert budget.short_recoveries(100, [0.05, 0.03], 500) == 156
    assert budget.short_recoveries(1000, [0.05, 0.03], 500) == 500


def test_new_queries_come_before_new_documents_and_both_before_further_epochs() -> None:
    def size(seconds: float, general: int = 400, documents: int = 20) -> tuple[int, ...]:
        found = budget.full_recovery(seconds, 0.05, 0.01, 400, 400, general, documents)
        return found.lists, found.also, found.documents, found.epochs

    list_seconds = 8 * (0.01 + 2 * 0.05)
    assert size(399 * list_seconds + 0.1) == (399, 0, 8, 2)
    assert size(500 * list_seconds + 0.1) == (400, 100, 8, 2)
    assert size(900 * list_seconds) == (400, 400, 8, 2)  # at most half of the lists are of general text
    assert size(910 * list_seconds, general=50) == (400, 50, 16, 2)
    assert size(1601 * list_seconds) == (400, 400, 16, 2)
    assert size(3001 * list_seconds) == (400, 400, 16, 3)  # no more documents than there are candidates
    assert size(3001 * list_seconds, documents=30) == (400, 400, 30, 2)
    assert size(3001 * list_seconds, general=0, documents=8) == (400, 0, 8, 16)


def test_queries_made_from_documents_share_the_time_with_general_text() -> None:
    def size(lists: int, general: int = 5000) -> tuple[int, int]:
        found = budget.full_recovery(lists * 8 * (0.01 + 2 * 0.05) + 0.1, 0.05, 0.01, 3000, 800, general)
        return found.lists, found.also

    assert size(800) == (800, 0)
    assert size(900) == (800, 100)  # never in place of train queries
    assert size(2000) == (1400, 600)
    assert size(2000, general=200) == (1800, 200)
    assert size(4000) == (2800, 1200)
    assert size(5000) == (3000, 2000)  # documents give no more queries
    assert size(9000) == (3000, 3000)


def test_many_lists_need_one_epoch_in_a_stage() -> None:
    def stages(lists: int) -> tuple[int, int]:
        return budget.stages_for(3.2 * lists * 8 * 0.05, RecoverySize(lists, 1), 0, 8.0, lambda way: 0.05, 0.0)

    assert stages(budget.ONE_EPOCH_LISTS) == (3, 1) and stages(budget.ONE_EPOCH_LISTS - 1) == (1, 3)


def test_stages_take_the_time_of_all_lists_of_all_documents_and_of_dev() -> None:
    """A pass over 1,000 lists of 8 documents takes 400 s."""

    def stages(also: int = 0, documents: int = 8, dev_pairs: int = 0) -> tuple[int, int]:
        size = RecoverySize(1000, 1, also, documents)
        return budget.stages_for(2400, size, dev_pairs, 1.0, lambda way: 0.05, 0.0)

    assert [stages(), stages(also=1000), stages(documents=16)] == [(1, 6), (1, 3), (1, 3)]
    assert stages(dev_pairs=12_000) == (1, 3)  # two evaluations of 12,000 pairs are as much as 8,000 trained pairs


def test_epochs_for() -> None:
    assert budget.epochs_for(1000, 4000, 0.05) == 5
    assert budget.epochs_for(1, 4000, 0.05) == 1  # less than a pass is none
    assert budget.epochs_for(-1, 4000, 0.05) == 0
    assert budget.epochs_for(1e6, 4000, 0.05) == budget.MOST_EPOCHS


def test_an_epoch_counts_its_evaluations() -> None:
    assert budget.epoch_pairs(500, 8, 0) == 4000
    assert budget.epoch_pairs(500, 8, 3000) == 4000 + 2 * 1000  # two evaluations, a third of a training step each


def test_a_long_recovery_is_more_patient() -> None:
    """Its learning rate is high for longer, and most of the gain comes when it is low."""
    assert [budget.patience(epochs) for epochs in (1, 4, 6, 30)] == [3, 3, 4, 20]


def test_rounds_of_pruning_and_recovery() -> None:
    """A pass over the lists takes 400 s at the end of the way, more on the way there, and a search 100 s."""

    def stages(seconds: float, pruning_speedup: float = 4.0) -> tuple[int, int]:
        return budget.stages_for(seconds, RecoverySize(1000, 1), 0, pruning_speedup, lambda way: 0.05 * (2 - way), 100)

    assert stages(300) == (1, 1) and stages(900) == (1, 2)
    # Two rounds have passes of 500 s on average, and three of 533 s.
    assert stages(2100) == (1, 5) and stages(2200) == (2, 2)
    assert stages(3400) == (2, 3) and stages(3501) == (3, 2)
    # All of the time is planned for, up to a bound.
    assert stages(10_000) == (3, 6) and stages(1e6) == (3, 10)
    assert stages(1e6, pruning_speedup=1.5) == (2, 15) and stages(1e6, pruning_speedup=1.3) == (1, 30)


def test_a_smaller_model_trains_faster() -> None:
    assert budget.pair_seconds(100, 1.0) == pytest.approx(0.03)
    assert budget.pair_seconds(100, 0.5) < budget.pair_seconds(100, 1.0)
