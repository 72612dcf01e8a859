from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core.expansion import expand, expand_all
from alc_backend.core.pool import pixelpick, representative_pixels
from alc_backend.core.statistics import ImageStatistics
from tests.core import reference
from tests.core.scenes import planted_image, scenes


@given(scenes(), st.sampled_from([0.0, 0.5, 0.999, 1.0]))
def test_agrees_with_the_formula(scene, epsilon):
    probabilities, _, superpixels = scene
    image = ImageStatistics(*scene)
    pool = representative_pixels(image)
    for number, *star in zip(
        pool.ids.tolist(), pool.rows.tolist(), pool.cols.tolist(), strict=True
    ):
        reached = expand(image, number, *star, epsilon)
        assert reached[tuple(star)]
        found = set(zip(*(axis.tolist() for axis in np.nonzero(reached)), strict=True))
        if epsilon == 1.0:  # the reference would be at the mercy of rounding
            equal = (probabilities == probabilities[(slice(None), *star)][:, None, None]).all(
                axis=0
            )
            same = set(zip(*np.nonzero(equal & (superpixels == number)), strict=True))
            assert same <= found
            at_star = probabilities[(slice(None), *star)]
            for pixel in found:
                assert reference.cosine(probabilities[(slice(None), *pixel)], at_star) > 1 - 1e-9
        elif not reference.on_the_edge(probabilities, superpixels, number, tuple(star), epsilon):
            expected = reference.reach(probabilities, superpixels, number, tuple(star), epsilon)
            assert found == set(expected)


@given(scenes(), st.sampled_from([0.0, 0.7, 1.0]), st.booleans())
def test_expand_all_is_every_expansion_at_once(scene, epsilon, several_in_a_superpixel):
    image = ImageStatistics(*scene)
    pool = (
        pixelpick(image, 6, seed=0, share=1.0)
        if several_in_a_superpixel
        else representative_pixels(image)
    )
    union = np.zeros(image.shape, dtype=bool)
    for number, row, col in zip(pool.ids, pool.rows, pool.cols, strict=True):
        alone = expand(image, int(number), int(row), int(col), epsilon)
        assert alone[row, col]
        union |= alone
    assert np.array_equal(expand_all(image, pool, epsilon), union)


def test_equal_predictions_are_reached_at_any_epsilon():
    image = planted_image()
    assert np.array_equal(expand(image, 2, 0, 2, 1.0), image.index.reshape(2, 4) == 2)


def test_pixels_of_other_superpixels_are_never_reached():
    probabilities = np.full((2, 2, 4), 0.5, dtype=np.float32)
    image = planted_image(probabilities=probabilities)
    assert expand(image, 1, 0, 0, 0.5).sum() == 4


@pytest.mark.parametrize(
    ("number", "row", "col"), [(1, 0, 2), (3, 0, 0), (0, 0, 0), (1, 2, 0), (1, 0, 4), (1, -1, 0)]
)
def test_a_pixel_outside_the_superpixel_is_an_error(number, row, col):
    with pytest.raises(ValueError, match=f"not in superpixel {number}"):
        expand(planted_image(), number, row, col)


def test_epsilon_outside_its_range_is_an_error():
    image = planted_image()
    for epsilon in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="epsilon must lie in"):
            expand(image, 1, 0, 0, epsilon)
        with pytest.raises(ValueError, match="epsilon must lie in"):
            expand_all(image, representative_pixels(image), epsilon)
