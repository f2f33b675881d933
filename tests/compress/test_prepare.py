"""As many queries as the time allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfcompress.compress.prepare import even_cap


@pytest.mark.parametrize(
    ("sizes", "total", "cap"),
    [
        ([478, 965], 1443, 965),  # all of them
        ([478, 965], 1200, 722),  # what the smaller one leaves, the larger one takes
        ([965, 478], 600, 300),
        ([100], 30, 30),
        ([5, 5, 5], 1, 1),  # never none
    ],
)
def test_what_small_sets_leave_goes_to_large_ones(sizes: list[int], total: int, cap: int) -> None:
    assert even_cap(sizes, total) == cap


@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), st.integers(1, 2000))
def test_it_is_the_largest_that_fits(sizes: list[int], total: int) -> None:
    cap = even_cap(sizes, total)
    assert sum(min(size, cap) for size in sizes) <= max(total, len(sizes))
    assert cap >= max(sizes) or sum(min(size, cap + 1) for size in sizes) > total
