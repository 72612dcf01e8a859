from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core.pool import pixelpick, representative_pixels
from alc_backend.core.statistics import ImageStatistics
from tests.core import reference
from tests.core.scenes import planted, planted_image, scenes


@given(scenes())
def test_agrees_with_the_formulas(scene):
    probabilities, labels, superpixels = scene
    pool = representative_pixels(ImageStatistics(*scene))
    assert list(pool.ids) == sorted(set(superpixels.ravel().tolist()) - {0})
    for index, number in enumerate(pool.ids):
        expected = reference.pool_entry(probabilities, superpixels, number)
        star = (int(pool.rows[index]), int(pool.cols[index]))
        assert pool.dominant[index] == expected["dominant"]
        assert pool.sizes[index] == expected["size"]
        best = max(expected["cosines"].values())
        assert expected["cosines"][star] == pytest.approx(best, abs=1e-6)
        assert pool.pseudo[index] == reference.given_at(probabilities, labels, star)


def test_ties_go_to_the_first_pixel_and_the_lowest_class():
    probabilities, _, _ = planted()
    probabilities[:, :, 2:] = 0.5  # uniform: every class ties, every pixel ties
    pool = representative_pixels(planted_image(probabilities=probabilities))
    assert (pool.rows[1], pool.cols[1]) == (0, 2)
    assert pool.dominant.tolist() == [0, 0]


def test_a_tie_between_two_modes_goes_to_the_lower_class():
    probabilities = np.array([[[0.1, 0.9]], [[0.9, 0.1]]], dtype=np.float32)
    image = ImageStatistics(probabilities, np.zeros((1, 2), np.uint8), np.ones((1, 2), np.int32))
    pool = representative_pixels(image)
    assert (pool.dominant.tolist(), pool.cols.tolist()) == ([0], [1])


def test_the_representative_has_the_dominant_class():
    pool = representative_pixels(planted_image())
    # three of the four pixels on the left are class 0; the odd one may not represent them
    assert (pool.rows[0], pool.cols[0]) != (1, 1)


def test_a_void_representative_has_the_predicted_class_as_pseudo_label():
    labels = np.full((2, 4), 255, dtype=np.uint8)
    assert representative_pixels(planted_image(labels=labels)).pseudo.tolist() == [0, 1]


def test_ids_with_gaps():
    superpixels = planted()[2] * 70_000
    superpixels[0, 0] = 0
    pool = representative_pixels(planted_image(superpixels=superpixels))
    assert pool.ids.tolist() == [70_000, 140_000]
    assert pool.sizes.tolist() == [3, 4]


@given(scenes(), st.integers(0, 12), st.sampled_from([0.05, 0.5, 1.0]))
def test_pixelpick_draws_from_the_best_pixels_by_their_own_sim(scene, count, share):
    probabilities, labels, superpixels = scene
    image = ImageStatistics(*scene)
    pool = pixelpick(image, count, seed=3, share=share)
    queryable = list(zip(*(axis.tolist() for axis in np.nonzero(superpixels)), strict=True))
    sims = {
        pixel: reference.sim(probabilities, labels, superpixels, superpixels[pixel], pixel)
        for pixel in queryable
    }
    eligible = int(np.ceil(share * len(queryable)))
    drawn = list(zip(pool.rows.tolist(), pool.cols.tolist(), strict=True))
    assert len(drawn) == len(set(drawn)) == min(count, eligible)
    if drawn:
        least = sorted(sims.values(), reverse=True)[eligible - 1]
        assert min(sims[pixel] for pixel in drawn) >= least - 1e-5
    assert [superpixels[pixel] for pixel in drawn] == pool.ids.tolist()


def test_pixelpick_is_decided_by_the_seed():
    rng = np.random.default_rng(0)
    raw = rng.random((3, 30, 30), dtype=np.float32)
    image = ImageStatistics(
        raw / raw.sum(axis=0), np.zeros((30, 30), np.uint8), np.ones((30, 30), np.int32)
    )
    draws = [pixelpick(image, 5, seed=seed).cols.tolist() for seed in (1, 1, 2, (1, 5))]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 3


def test_pixelpick_draws_every_eligible_pixel_as_often():
    image = planted_image()
    best = set(np.argsort(-image.pixel_sims(), kind="stable")[:4].tolist())
    drawn = [
        row * 4 + col
        for seed in range(600)
        for pool in [pixelpick(image, 2, seed=seed, share=0.5)]
        for row, col in zip(pool.rows.tolist(), pool.cols.tolist(), strict=True)
    ]
    times = [drawn.count(pixel) for pixel in best]
    assert sum(times) == len(drawn) == 1200
    assert min(times) > 240  # 300 each, give or take four standard deviations


def test_wrong_choices_are_named():
    image = planted_image()
    with pytest.raises(ValueError, match="count"):
        pixelpick(image, -1, seed=0)
    with pytest.raises(ValueError, match="share"):
        pixelpick(image, 1, seed=0, share=0.0)


def test_layers_ask_about_each_superpixel_once():
    image = planted_image()
    pool = pixelpick(image, 8, seed=0, share=1.0)
    layers = pool.layers()
    assert sorted(np.concatenate(layers).tolist()) == list(range(8))
    for layer in layers:
        assert len(set(pool.ids[layer].tolist())) == len(layer)
    assert representative_pixels(image).layers()[0].tolist() == [0, 1]
