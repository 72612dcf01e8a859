"""What active learning's baselines do to superpixels and labels, on cases small enough to check."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alc_backend.core.arrays import VOID
from alc_backend.simulate.baselines.merging import jensen_shannon, merged, neighbours
from alc_backend.simulate.baselines.partial_labels import ClassSets, pseudo_labels
from alc_backend.simulate.baselines.sieving import knee, sieved

CAT, DOG, BOTH = [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]


def test_the_divergence_of_what_is_equal_is_0_and_of_what_is_disjoint_log_2():
    assert jensen_shannon(np.array(CAT), np.array(CAT)) == 0
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(math.log(2))
    assert jensen_shannon(np.array(CAT), np.array(BOTH)) == pytest.approx(
        jensen_shannon(np.array(BOTH), np.array(CAT))
    )


def test_superpixels_touch_along_edges_not_at_corners():
    index = np.array([[1, 1, 2], [0, 3, 2], [4, 0, 5]], np.int32)
    assert neighbours(index) == {0: [1, 2], 1: [0, 2, 4], 2: [0, 1], 4: [1]}


def test_like_neighbours_are_merged_from_the_most_uncertain_one():
    """A row of six: cat, cat, dog, cat, both, dog."""
    means = np.array([CAT, CAT, DOG, CAT, BOTH, DOG])
    row = {n: [m for m in (n - 1, n + 1) if 0 <= m < 6] for n in range(6)}
    rivalry = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.1])
    near, far = jensen_shannon(means[4], means[3]), jensen_shannon(means[4], means[5])
    assert near < 0.1 < far
    assert merged(means, row, rivalry).tolist() == [2, 2, 1, 0, 0, 3]
    assert merged(means, row, rivalry, threshold=0.0).tolist() == [4, 3, 2, 1, 0, 5]
    assert merged(means, {}, rivalry).tolist() == [4, 3, 2, 1, 0, 5]
    assert set(merged(means, row, rivalry, threshold=1.0).tolist()) == {0}


def test_what_joins_is_compared_with_the_first_and_not_with_its_neighbour():
    """Each is like the next one, and the last one is not like the first."""
    shares = np.linspace(0.95, 0.05, 8)
    means = np.stack([shares, 1 - shares], axis=1)
    row = {n: [m for m in (n - 1, n + 1) if 0 <= m < 8] for n in range(8)}
    steps = [jensen_shannon(means[n], means[n + 1]) for n in range(7)]
    assert max(steps) < 0.1
    group = merged(means, row, np.arange(8)[::-1] / 8)
    assert group[0] == 0
    assert group[7] > 0


def test_the_knee_is_where_the_sorted_curve_begins_to_fall():
    curve = np.array([0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.5, 0.1])
    assert knee(np.random.default_rng(0).permutation(curve)) == 0.94
    assert knee(np.full(5, 0.7)) == 0.7
    assert knee(np.array([1.0, 0.2, 0.1, 0.0])) == 0.0  # falls at once: all are kept


def test_only_large_superpixels_are_sieved():
    confidence = np.array([[0.99, 0.97, 0.95], [0.93, 0.2, 0.1]])
    mask = np.ones((2, 3), bool)
    mask[1, 2] = False
    assert np.array_equal(sieved(confidence, mask, large=5), mask)
    assert sieved(confidence, mask, large=4).tolist() == [[True] * 3, [True, False, False]]


def test_a_set_of_classes_gets_an_id_of_its_own():
    sets = ClassSets(3)
    assert [sets.id_of([2]), sets.id_of([2, 0]), sets.id_of([1, 2]), sets.id_of([0, 2])] == [
        2, 3, 4, 3,
    ]  # fmt: skip
    assert sets.table.tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [True, False, True],
        [False, True, True],
    ]


def test_when_ids_run_out_a_set_is_void():
    sets = ClassSets(254)
    assert sets.id_of([0, 1]) == 254
    assert sets.id_of([0, 2]) == VOID
    assert sets.id_of([1, 0]) == 254


def test_pixels_get_the_class_whose_prototype_they_resemble():
    seen = np.zeros((3, 1, 6))
    seen[0] = [0.9, 0.7, 0.1, 0.2, 0.4, 0.0]
    seen[1] = [0.05, 0.2, 0.1, 0.1, 0.2, 1.0]
    seen[2] = [0.05, 0.1, 0.8, 0.7, 0.4, 0.0]
    mask = np.array([[True, True, True, True, True, False]])
    found = pseudo_labels(seen, mask, [2, 0])
    assert found.tolist()[:4] == [0, 0, 2, 2]
    assert set(pseudo_labels(seen, mask, [1]).tolist()) == {1}
    assert found.dtype == np.uint8
