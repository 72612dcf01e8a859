from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core.intervals import clopper_pearson_low, wilson


def test_by_hand():
    # z = 2: centre (p + 2/n)/(1 + 4/n), reach 2·√(p(1-p)/n + 1/n²)/(1 + 4/n)
    low, high = wilson(9, 12, z=2.0)
    centre, reach = (0.75 + 2 / 12) / (1 + 4 / 12), 2 * math.sqrt(0.1875 / 12 + 1 / 144)
    assert (low, high) == pytest.approx((centre - reach / (4 / 3), centre + reach / (4 / 3)))


def test_as_published():
    """Newcombe (1998), Table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(1, 10_000), st.data())
def test_the_interval_holds_the_share_and_mirrors(trials, data):
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(hits, trials)
    assert 0.0 <= low <= hits / trials <= high <= 1.0
    assert wilson(trials - hits, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_named(hits, trials):
    with pytest.raises(ValueError, match=f"not {hits} of {trials}"):
        wilson(hits, trials)


def test_the_exact_bound_by_hand():
    # The bound p is where so many hits or more have a chance of 5 %.
    assert clopper_pearson_low(99, 99) == pytest.approx(0.05 ** (1 / 99))
    assert clopper_pearson_low(1, 20) == pytest.approx(1 - 0.95 ** (1 / 20))
    assert clopper_pearson_low(0, 20) == clopper_pearson_low(0, 0) == 0.0


@given(st.integers(1, 60), st.data())
def test_at_the_exact_bound_the_tail_has_the_rest_of_the_confidence(trials, data):
    hits = data.draw(st.integers(1, trials))
    low = clopper_pearson_low(hits, trials)
    tail = sum(
        math.comb(trials, n) * low**n * (1 - low) ** (trials - n) for n in range(hits, trials + 1)
    )
    assert tail == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(("hits", "trials"), [(-1, 5), (6, 5)])
def test_impossible_counts_have_no_exact_bound(hits, trials):
    with pytest.raises(ValueError, match=f"not {hits} of {trials}"):
        clopper_pearson_low(hits, trials)
