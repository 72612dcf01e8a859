"""Pool, scores and expansion against the formulas, on small and adversarial inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core.acquisition import ACQUISITIONS, score
from alc_backend.core.expansion import expand, expand_all
from alc_backend.core.pool import representative_pixels
from tests.core import reference


@st.composite
def scenes(draw):
    """Probabilities, labels and superpixels of a small image; many ties, voids and pieces."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(2, 5))
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    logits = rng.normal(0, draw(st.sampled_from([0.0, 0.3, 2.0, 60.0])), (classes, *shape))
    if draw(st.booleans()):
        logits = logits.round()  # ties in mode and cosine
    exponentials = np.exp(logits - logits.max(axis=0))
    probabilities = (exponentials / exponentials.sum(axis=0)).astype(np.float32)
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    labels[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = 255
    ids = np.array(draw(st.sampled_from([[0, 1, 2], [0, 3, 300, 70_000], [1], [0]])))
    return probabilities, labels, rng.choice(ids, shape).astype(np.int32)


@given(scenes(), st.sampled_from([0.0, 0.5, 0.999, 1.0]))
def test_agrees_with_the_formulas(scene, epsilon):
    probabilities, labels, superpixels = scene
    pool = representative_pixels(probabilities, superpixels)
    assert list(pool.ids) == sorted(set(superpixels.ravel().tolist()) - {0})
    scores = {
        name: score(probabilities, labels, superpixels, pool, name, epsilon)
        for name in ("sim", "lcil")
    }
    for index, number in enumerate(pool.ids):
        expected = reference.pool_entry(probabilities, superpixels, number)
        star = (int(pool.rows[index]), int(pool.cols[index]))
        assert pool.dominant[index] == expected["dominant"]
        assert pool.sizes[index] == expected["size"]
        best = max(expected["cosines"].values())
        assert expected["cosines"][star] == pytest.approx(best, abs=1e-6)
        lcil = reference.lcil(probabilities, labels, superpixels, number)
        assert scores["lcil"][index] == pytest.approx(lcil, rel=1e-5, abs=1e-9)
        on_the_edge = any(
            abs(
                reference.cosine(probabilities[:, r, c], probabilities[:, star[0], star[1]])
                - epsilon
            )
            < 1e-6
            for r, c in reference.pixels_of(superpixels, number)
        )
        if epsilon == 0.0 or not on_the_edge:
            sim = reference.sim(probabilities, labels, superpixels, number, star, epsilon)
            assert scores["sim"][index] == pytest.approx(sim, rel=1e-5, abs=1e-9)
            reached = expand(probabilities, superpixels, int(number), *star, epsilon)
            expected_pixels = reference.reach(probabilities, superpixels, number, star, epsilon)
            assert sorted(zip(*np.nonzero(reached), strict=True)) == sorted(expected_pixels)


@given(scenes(), st.sampled_from([0.0, 0.7, 1.0]))
def test_expand_all_is_every_expansion_at_once(scene, epsilon):
    probabilities, _, superpixels = scene
    pool = representative_pixels(probabilities, superpixels)
    everything = expand_all(probabilities, superpixels, pool, epsilon)
    assert not everything[superpixels == 0].any()
    for number, row, col in zip(pool.ids, pool.rows, pool.cols, strict=True):
        alone = expand(probabilities, superpixels, int(number), int(row), int(col), epsilon)
        assert np.array_equal(everything & (superpixels == number), alone)
        assert alone[row, col]


def planted():
    """A 2 × 4 image, two classes: superpixel 1 on the left, 2 on the right."""
    first = np.array([[0.9, 0.8, 0.3, 0.3], [0.9, 0.2, 0.3, 0.3]], dtype=np.float32)
    superpixels = np.array([[1, 1, 2, 2], [1, 1, 2, 2]], dtype=np.int32)
    return np.stack([first, 1 - first]), np.zeros((2, 4), dtype=np.uint8), superpixels


def test_ties_go_to_the_first_pixel_and_the_lowest_class():
    probabilities, _, superpixels = planted()
    probabilities[:, :, 2:] = 0.5  # uniform: every class ties, every pixel ties
    pool = representative_pixels(probabilities, superpixels)
    assert (pool.rows[1], pool.cols[1]) == (0, 2)
    assert pool.dominant.tolist() == [0, 0]


def test_the_representative_has_the_dominant_class():
    probabilities, _, superpixels = planted()
    pool = representative_pixels(probabilities, superpixels)
    # three of the four pixels on the left are class 0; the odd one may not represent them
    assert (pool.rows[0], pool.cols[0]) != (1, 1)


def test_sim_prefers_the_superpixel_whose_labels_are_doubted():
    probabilities, labels, superpixels = planted()
    pool = representative_pixels(probabilities, superpixels)
    by_hand = 4 * 0.7
    scores = score(probabilities, labels, superpixels, pool)
    assert scores[1] == pytest.approx(by_hand, rel=1e-6)
    assert scores[1] > scores[0]


def test_nothing_to_ask():
    probabilities, labels, superpixels = planted()
    empty = np.zeros_like(superpixels)
    pool = representative_pixels(probabilities, empty)
    assert len(pool) == 0
    for name in ACQUISITIONS:
        assert score(probabilities, labels, empty, pool, name).shape == (0,)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p, y, s: (p[0], y, s), "probabilities"),
        (lambda p, y, s: ((p * 255).astype(np.uint8), y, s), "probabilities"),
        (lambda p, y, s: (p * 0.9, y, s), "probabilities"),
        (lambda p, y, s: (np.where(p > 0.8, np.nan, p), y, s), "probabilities"),
        (lambda p, y, s: (np.stack([p[0] + 1, -p[0]]), y, s), "probabilities"),
        (lambda p, y, s: (p, y.astype(np.int64), s), "labels"),
        (lambda p, y, s: (p, y[:1], s), "labels"),
        (lambda p, y, s: (p, y + 2, s), "labels"),
        (lambda p, y, s: (p, y, s.astype(float)), "superpixels"),
        (lambda p, y, s: (p, y, s[:, :2]), "superpixels"),
        (lambda p, y, s: (p, y, -s), "superpixels"),
        (lambda p, y, s: (p, y, np.where(s == 2, 0, s)), "pool"),
    ],
)
def test_wrong_arrays_are_named(change, named):
    probabilities, labels, superpixels = planted()
    pool = representative_pixels(probabilities, superpixels)
    with pytest.raises(ValueError, match=named):
        score(*change(probabilities, labels, superpixels), pool)


def test_wrong_choices_are_named():
    probabilities, labels, superpixels = planted()
    pool = representative_pixels(probabilities, superpixels)
    with pytest.raises(ValueError, match="acquisition"):
        score(probabilities, labels, superpixels, pool, "best")
    with pytest.raises(ValueError, match="epsilon"):
        score(probabilities, labels, superpixels, pool, epsilon=1.5)
    with pytest.raises(ValueError, match="not in superpixel 1"):
        expand(probabilities, superpixels, 1, 0, 2)


def test_other_floating_dtypes_and_strides_are_accepted():
    probabilities, labels, superpixels = planted()
    pool = representative_pixels(probabilities, superpixels)
    expected = score(probabilities, labels, superpixels, pool)
    strided = np.asfortranarray(probabilities.astype(np.float64))
    assert score(strided, labels, superpixels, pool) == pytest.approx(expected, rel=1e-6)
