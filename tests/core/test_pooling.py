"""The features of superpixels, compared with plain loops over pixels and squares."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core import pooling
from alc_backend.core.pooling import Prediction, pooled

STRIDE = 4


def plainly(features, index, shape, count):
    channels = len(features)
    found = np.zeros((count, 2 * channels))
    for number in range(1, count + 1):
        pixels = [divmod(place, shape[1]) for place in np.flatnonzero(index == number)]
        squares = [(row // STRIDE, col // STRIDE) for row, col in pixels]
        found[number - 1, :channels] = np.mean([features[:, r, c] for r, c in squares], axis=0)
        rows, cols = [r for r, _ in squares], [c for _, c in squares]
        box = [
            features[:, r, c]
            for r in range(min(rows), max(rows) + 1)
            for c in range(min(cols), max(cols) + 1)
        ]
        found[number - 1, channels:] = np.mean(box, axis=0)
    return found


@given(st.integers(1, 19), st.integers(1, 19), st.integers(1, 4), st.integers(0, 2**32))
def test_means_over_mask_and_box(height, width, count, seed):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, count + 1, height * width).astype(np.int32)
    present = np.unique(index[index > 0])
    index = np.searchsorted(present, index).astype(np.int32) + 1 * (index > 0)
    index[index > len(present)] = 0
    features = rng.normal(size=(3, -(-height // STRIDE), -(-width // STRIDE))).astype(np.float32)
    prediction = Prediction(np.zeros((2, height, width), np.float32), features, STRIDE)
    found = pooled(prediction, index, (height, width), len(present))
    expected = plainly(features, index, (height, width), len(present))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_many_pairs_are_counted_in_the_same_way(monkeypatch):
    rng = np.random.default_rng(0)
    index = rng.integers(0, 6, 33 * 47).astype(np.int32)
    features = rng.normal(size=(5, 9, 12)).astype(np.float32)
    prediction = Prediction(np.zeros((2, 33, 47), np.float32), features, STRIDE)
    few = pooled(prediction, index, (33, 47), 5)
    monkeypatch.setattr(pooling, "MOST_PAIRS", 0)
    assert np.array_equal(pooled(prediction, index, (33, 47), 5), few)


def test_without_a_network_there_are_no_features():
    nothing = Prediction(np.zeros((2, 4, 4), np.float32), np.zeros((0, 1, 1), np.float32), 1)
    index = np.ones(16, dtype=np.int32)
    assert pooled(nothing, index, (4, 4), 1).shape == (1, 0)
