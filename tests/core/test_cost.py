from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core.cost import classification_cost, correction_cost, saving


def test_by_hand():
    assert classification_cost(2) == 1.0
    assert classification_cost(16) == 4.0
    assert correction_cost(16, 0.75) == pytest.approx(0.75 + 0.25 * 4)
    assert saving(16, 0.75) == pytest.approx((1 - 1 / 4) * 0.75)
    assert correction_cost(21, 1.0) == 1.0


@given(st.integers(2, 10_000), st.floats(0, 1))
def test_the_saving_is_that_of_the_theorem(classes, accept_rate):
    expected = (1 - 1 / classification_cost(classes)) * accept_rate
    assert saving(classes, accept_rate) == pytest.approx(expected, abs=1e-12)
    assert -1e-12 <= saving(classes, accept_rate) < 1


def test_with_two_classes_nothing_is_saved():
    assert saving(2, 0.9) == pytest.approx(0.0)


def test_wrong_values_are_named():
    with pytest.raises(ValueError, match="classes must be at least 2"):
        saving(1, 0.5)
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="accept_rate"):
            correction_cost(5, rate)
