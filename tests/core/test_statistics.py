from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings

from alc_backend.core import kernels_numba, kernels_numpy
from alc_backend.core.acquisition import ACQUISITIONS, measure
from alc_backend.core.arrays import TOLERANCE
from alc_backend.core.pool import pixelpick, representative_pixels
from alc_backend.core.statistics import ImageStatistics
from tests.core.scenes import planted, planted_image, scenes


@given(scenes(most_classes=30, longest_side=60))
@settings(max_examples=40, deadline=None)
def test_both_kernels_give_the_same_numbers_to_the_last_bit(scene):
    compiled, plain = (
        ImageStatistics(*scene, kernels=kernels) for kernels in (kernels_numba, kernels_numpy)
    )
    for name in ("predicted", "self_confidence", "squares", "dominant", "sizes", "rivalry"):
        assert np.array_equal(getattr(compiled, name), getattr(plain, name)), name
    for epsilon in (0.0, 0.9):
        for name in ACQUISITIONS:
            one, other = (
                measure(image, representative_pixels(image), name, epsilon=epsilon)
                for image in (compiled, plain)
            )
            assert np.array_equal(one, other), name
    assert np.array_equal(compiled.mean_probabilities(), plain.mean_probabilities())
    one, other = (pixelpick(image, 5, seed=1) for image in (compiled, plain))
    assert (one.rows.tolist(), one.cols.tolist()) == (other.rows.tolist(), other.cols.tolist())


def test_images_larger_than_a_block_and_more_classes_than_are_taken_at_once():
    rng = np.random.default_rng(0)
    raw = rng.random((19, 70, 61), dtype=np.float32)
    scene = (
        raw / raw.sum(axis=0),
        rng.integers(0, 19, (70, 61)).astype(np.uint8),
        np.repeat(np.arange(7), 10)[:, None].repeat(61, axis=1),
    )
    one, other = (ImageStatistics(*scene, kernels=k) for k in (kernels_numba, kernels_numpy))
    assert np.array_equal(one.representatives, other.representatives)
    assert np.array_equal(one.pixel_sims(), other.pixel_sims())
    assert np.array_equal(one.mean_probabilities(), other.mean_probabilities())
    inside = scene[0][:, scene[2] == 3].mean(axis=1, dtype=np.float64)
    assert np.allclose(one.mean_probabilities()[2], inside)


@pytest.mark.parametrize("pixels", [1, 2, 1000, 262_144])
def test_terms_that_are_rounded_add_up_exactly_in_any_order(pixels):
    terms = np.random.default_rng(pixels).random(pixels)
    terms[: max(1, pixels // 10)] = 1 + TOLERANCE  # the most that a probability may be
    rounder = kernels_numpy.rounder_for(pixels)
    rounded = kernels_numpy.exact(terms, rounder)
    assert rounded.sum() == rounded.cumsum()[-1] == rounded[::-1].cumsum()[-1]
    assert rounded.sum() == math.fsum(rounded)
    assert np.abs(rounded - terms).max() <= np.spacing(rounder) / 2 <= pixels * 2.0**-52


@pytest.mark.parametrize("kernels", [kernels_numba, kernels_numpy])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p, y, s: (p[0], y, s), "probabilities must have shape"),
        (lambda p, y, s: (p[:1], y, s), "probabilities must have shape"),
        (lambda p, y, s: (np.repeat(p, 128, axis=0), y, s), "probabilities must have shape"),
        (lambda p, y, s: ((p * 255).astype(np.uint8), y, s), "probabilities must be floating"),
        (lambda p, y, s: (p * 0.9, y, s), "probabilities must sum to 1"),
        (lambda p, y, s: (np.where(p > 0.8, np.nan, p), y, s), "probabilities must sum to 1"),
        (lambda p, y, s: (np.where(p > 0.8, np.inf, p), y, s), "probabilities must sum to 1"),
        (lambda p, y, s: (np.zeros_like(p), y, s), "probabilities must sum to 1"),
        (lambda p, y, s: (p.astype(np.float64) * 1e300, y, s), "probabilities must sum to 1"),
        (lambda p, y, s: (p * np.float32(1.0011), y, s), "probabilities must sum to 1"),
        (lambda p, y, s: (p * np.float32(0.9989), y, s), "probabilities must sum to 1"),
        (lambda p, y, s: (np.stack([p[0] + 1, -p[0]]), y, s), "probabilities must not be neg"),
        (lambda p, y, s: (p, y.astype(np.int64), s), "labels must be uint8"),
        (lambda p, y, s: (p, y[:1], s), "labels must have shape"),
        (lambda p, y, s: (p, y + 2, s), "labels holds class id 2"),
        (lambda p, y, s: (p, y, s.astype(float)), "superpixels must be an integer"),
        (lambda p, y, s: (p, y, s[:, :2]), "superpixels must have shape"),
        (lambda p, y, s: (p, y, -s), "superpixels must hold ids from 0"),
        (lambda p, y, s: (p, y, s.astype(np.int64) << 40), "superpixels must hold ids from 0"),
    ],
)
def test_wrong_arrays_are_named(kernels, change, named):
    with pytest.raises(ValueError, match=named):
        ImageStatistics(*change(*planted()), kernels=kernels)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_other_floating_dtypes_and_strides_are_accepted(dtype):
    probabilities, labels, superpixels = planted()
    expected = planted_image()
    image = ImageStatistics(
        np.asfortranarray(probabilities.astype(dtype)),
        np.asfortranarray(labels),
        superpixels.astype(np.uint16)[::-1][::-1],
    )
    assert image.probabilities.dtype == np.float32
    scores = measure(image, representative_pixels(image))
    assert scores == pytest.approx(
        measure(expected, representative_pixels(expected)),
        rel=1e-3 if dtype == np.float16 else 1e-6,
    )


@pytest.mark.parametrize("factor", [1.0009, 0.9991])
def test_sums_may_be_off_as_half_precision_is(factor):
    assert len(planted_image(probabilities=planted()[0] * np.float32(factor))) == 2


@pytest.mark.parametrize("kernels", [kernels_numba, kernels_numpy])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("classes", [2, 255])
def test_the_smallest_and_the_most(kernels, shape, classes):
    probabilities = np.full((classes, *shape), 1 / classes, dtype=np.float32)
    labels = np.full(shape, classes - 1, dtype=np.uint8)
    image = ImageStatistics(probabilities, labels, np.ones(shape, np.int32), kernels=kernels)
    pool = representative_pixels(image)
    for name in ACQUISITIONS:
        assert len(measure(image, pool, name, epsilon=0.5)) == shape[0] * shape[1]
    assert len(pixelpick(image, 3, seed=0)) == shape[0] * shape[1]


def test_arrays_written_to_afterwards_change_nothing():
    probabilities, labels, superpixels = planted()
    image = ImageStatistics(probabilities, labels, superpixels)
    labels[:], superpixels[:] = 200, 2**30
    expected = planted_image()
    assert np.array_equal(image.representatives, expected.representatives)
    assert representative_pixels(image).pseudo.tolist() == [0, 0]
    with pytest.raises(ValueError, match="read-only"):
        image.index[0] = 7


def test_contiguous_float32_is_not_copied():
    probabilities, labels, superpixels = planted()
    image = ImageStatistics(probabilities, labels, superpixels)
    assert np.shares_memory(image.probabilities, probabilities)


def test_arrays_that_may_not_be_written_are_accepted():
    arrays = planted()
    for array in arrays:
        array.setflags(write=False)
    assert len(ImageStatistics(*arrays)) == 2


def test_the_compiled_libraries_load_only_where_images_are_scored():
    code = (
        "import sys, alc_backend.core.acquisition, alc_backend.loop.rounds.lifecycle\n"
        "assert not {'numba', 'cc3d', 'skimage', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_numba_scoring_says_that_it_is_slow(monkeypatch, caplog):
    from alc_backend.core.kernels import fastest_kernels

    monkeypatch.delitem(sys.modules, "alc_backend.core.kernels_numba")
    monkeypatch.delattr("alc_backend.core.kernels_numba")
    monkeypatch.setitem(sys.modules, "numba", None)
    fastest_kernels.cache_clear()
    try:
        assert fastest_kernels() is kernels_numpy
    finally:
        fastest_kernels.cache_clear()
    assert "many times slower" in caplog.text
