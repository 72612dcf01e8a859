from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core.agreement import Agreement, agreement

PUBLISHED = [
    [1, 1, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4],
    [4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [5, 5, 5], [1, 1], [3],
]  # fmt: skip
"""Krippendorff (2011), section C: four observers, twelve units, missing values."""


def test_the_published_example_gives_the_published_alpha():
    found = agreement(PUBLISHED)
    assert found.alpha == pytest.approx(0.743, abs=5e-4)
    assert (found.items, found.unanimous) == (11, 8)


def test_two_annotators_by_hand():
    # coincidences: 00 twice, 01 and 10 once each; Do = 2/4, De = (3·1 + 1·3) / (4·3)
    assert agreement([[0, 0], [0, 1]]) == Agreement(2, 1, pytest.approx(0.0))
    assert agreement([[0, 0], [1, 1]]).alpha == pytest.approx(1.0)
    assert agreement([[0, 1], [1, 0]]).alpha == pytest.approx(1 - 1 / (8 / 12))


def pair_by_pair(votes):
    """Alpha as it is defined: observed over expected disagreement of pairs of votes."""
    votes = [item for item in votes if len(item) > 1]
    pool = [vote for item in votes for vote in item]
    observed = [(a != b) / (len(item) - 1) for item in votes for a, b in permutations(item, 2)]
    expected = [a != b for a, b in permutations(pool, 2)]
    if not any(expected):
        return None
    return 1 - (sum(observed) / len(pool)) / np.mean(expected)


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=8))
def test_alpha_is_that_of_counting_every_pair(votes):
    found = agreement(votes)
    expected = pair_by_pair(votes)
    assert found.alpha == (expected if expected is None else pytest.approx(expected))
    assert found.unanimous == sum(len(v) > 1 and len(set(v)) == 1 for v in votes)


@given(st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=6), st.randoms())
def test_neither_order_nor_names_of_classes_matter(votes, random):
    renamed = [[9 - vote for vote in random.sample(item, len(item))] for item in votes]
    random.shuffle(renamed)
    first, second = agreement(votes), agreement(renamed)
    assert (first.items, first.unanimous) == (second.items, second.unanimous)
    assert first.alpha == (second.alpha if second.alpha is None else pytest.approx(second.alpha))


@pytest.mark.parametrize("votes", [[], [[]], [[1]], [[1], [2], []]])
def test_without_shared_items_there_is_nothing_to_agree_about(votes):
    assert agreement(votes) == Agreement(0, 0, None)


def test_one_class_only_has_no_alpha():
    assert agreement([[1, 1], [1, 1, 1]]) == Agreement(2, 2, None)


def test_single_votes_change_nothing():
    shared = [[0, 1], [1, 1], [0, 0, 2]]
    assert agreement([*shared, [5], [0], []]) == agreement(shared)
