"""Which models stay in the race, and which one is chosen."""

from __future__ import annotations

from report_samples import example_delta

from hfcompress.compress.halving import fastest_to_pass, survivors
from hfcompress.report.delta import Delta

QUERIES = 1000


def deltas(losses: dict[float, float]) -> dict[float, Delta]:
    """Comparisons on 400 dev queries, with a standard deviation of 0.036: a loss of 0.004 passes, one of 0.007 not."""
    return {
        speed: example_delta(-loss, "inconclusive").model_copy(update={"queries": 400, "queries_needed": 100})
        for speed, loss in losses.items()
    }


def test_half_of_a_family_goes_on() -> None:
    losses = deltas({1.5: 0.004, 2.0: 0.012, 3.0: 0.02, 4.0: 0.05, 6.0: 0.2})
    assert survivors(losses, QUERIES) == [3.0, 2.0, 1.5]
    assert survivors(losses, 10) == [3.0, 2.0, 1.5]  # none can pass: the most promising
    nearer = deltas({1.5: 0.0, 2.0: 0.001, 3.0: 0.004, 4.0: 0.05})
    assert survivors(nearer, QUERIES) == [4.0, 3.0]  # 1.5x and 2x are settled
    assert survivors(deltas({2.0: 0.0, 4.0: 0.001}), QUERIES) == [4.0]


def test_the_fastest_that_is_expected_to_pass_is_chosen() -> None:
    assert fastest_to_pass(deltas({1.5: 0.0, 2.0: 0.004, 3.0: 0.007}), QUERIES) == 2.0
    assert fastest_to_pass(deltas({2.0: 0.05, 3.0: 0.02, 4.0: 0.3}), QUERIES) == 3.0
    # Where the probability of all is zero in floating-point numbers, the difference decides.
    assert fastest_to_pass(deltas({2.0: 0.9, 3.0: 0.8, 4.0: 0.85}), QUERIES) == 3.0
