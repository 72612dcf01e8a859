from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core.selection import Scored, ranked, spread, top


def identities(items):
    return [(item.key, item.superpixel) for item in items]


def test_ties_go_by_image_key_then_superpixel():
    items = [
        Scored(1.0, "b", 1, 9),
        Scored(1.0, "a", 10, 9),
        Scored(2.0, "z", 1, 9),
        Scored(1.0, "a", 9, 9),
    ]
    assert identities(ranked(items)) == [("z", 1), ("a", 9), ("a", 10), ("b", 1)]
    assert top(items, 2) == ranked(items)[:2]
    assert top(reversed(items), 9) == ranked(items)
    assert top(items, 0) == []


def test_a_cap_spreads_the_batch_over_images():
    items = [Scored(9.0 - number, "a", number, 5) for number in range(4)] + [
        Scored(1.0, "b", 1, 5),
        Scored(0.5, "c", 1, 5),
    ]
    assert identities(top(items, 3, per_image=1)) == [("a", 0), ("b", 1), ("c", 1)]
    assert identities(top(items, 4, per_image=2)) == [("a", 0), ("a", 1), ("b", 1), ("c", 1)]
    assert len(top(items, 9, per_image=1)) == 3


def test_superpixels_below_the_smallest_area_are_left_out():
    items = [Scored(9.0, "a", 1, 4), Scored(1.0, "a", 2, 5)]
    assert identities(top(items, 2, min_area=5)) == [("a", 2)]


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


def row(images):
    """Items of the images that the letters name, best first."""
    return [Scored(-index, image, index, 5) for index, image in enumerate(images)]


def letters(items):
    return "".join(item.key for item in items)


def test_queries_about_one_image_are_kept_apart():
    assert letters(spread(row("aaabbc"), 1)) == "ababac"
    assert letters(spread(row("aaabbc"), 2)) == "abcaba"
    assert letters(spread(row("abcabc"), 2)) == "abcabc"
    assert letters(spread(row("aaab"), 1)) == "abaa"  # nothing else is left
    assert letters(spread(row("aaab"), 0)) == "aaab"
    assert identities(spread(row("aab"), 1)) == [("a", 0), ("b", 2), ("a", 1)]
    assert spread([], 3) == []
    with pytest.raises(ValueError, match="gap"):
        spread([], -1)


@given(st.text(alphabet="abcd", max_size=30), st.integers(0, 4))
def test_spreading_keeps_all_items_and_each_images_order(images, gap):
    items = row(images)
    found = spread(items, gap)
    assert sorted(found) == sorted(items)
    for image in set(images):
        mine = [item.superpixel for item in found if item.key == image]
        assert mine == sorted(mine)
    for index, item in enumerate(found):
        if item.key in letters(found[max(0, index - gap) : index]):
            recent = letters(found[max(0, index - gap) : index])
            assert all(later.key in recent for later in found[index:])  # no other was left
