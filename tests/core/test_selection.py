from __future__ import annotations

import pytest

from alc_backend.core.selection import Scored, ranked, top


def places(items):
    return [(item.key, item.superpixel) for item in items]


def test_ties_go_by_image_key_then_superpixel():
    items = [
        Scored(1.0, "b", 1, 9),
        Scored(1.0, "a", 10, 9),
        Scored(2.0, "z", 1, 9),
        Scored(1.0, "a", 9, 9),
    ]
    assert places(ranked(items)) == [("z", 1), ("a", 9), ("a", 10), ("b", 1)]
    assert top(items, 2) == ranked(items)[:2]
    assert top(reversed(items), 9) == ranked(items)
    assert top(items, 0) == []


def test_a_cap_spreads_the_batch_over_images():
    items = [Scored(9.0 - number, "a", number, 5) for number in range(4)] + [
        Scored(1.0, "b", 1, 5),
        Scored(0.5, "c", 1, 5),
    ]
    assert places(top(items, 3, per_image=1)) == [("a", 0), ("b", 1), ("c", 1)]
    assert places(top(items, 4, per_image=2)) == [("a", 0), ("a", 1), ("b", 1), ("c", 1)]
    assert len(top(items, 9, per_image=1)) == 3


def test_superpixels_below_the_smallest_area_are_left_out():
    items = [Scored(9.0, "a", 1, 4), Scored(1.0, "a", 2, 5)]
    assert places(top(items, 2, min_area=5)) == [("a", 2)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"budget": -1}, "budget"),
        ({"budget": 1, "per_image": 0}, "per_image"),
        ({"budget": 1, "min_area": -1}, "min_area"),
    ],
)
def test_wrong_choices_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        top([], **arguments)
