from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from alc_backend.core import arrays as core_arrays
from alc_backend.core.runs import SuperpixelRuns, runs

MAPS = arrays.arrays(
    np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)
)


@pytest.fixture(params=[1, 7, 2**18])
def strip(request, monkeypatch):
    """About so many pixels of a map are worked on at once."""
    monkeypatch.setattr(core_arrays, "STRIP", request.param)


@pytest.mark.usefixtures("strip")
@pytest.mark.parametrize("seed", range(5))
def test_runs_put_together_are_the_map(seed):
    values = np.random.default_rng(seed).integers(-1, 2, (13, 5))
    begins, found = runs(values.shape, lambda rows: values[rows])
    assert np.array_equal(np.repeat(found, np.diff(begins, append=values.size)), values.ravel())
    assert (found[1:] != found[:-1]).all()


def test_too_many_runs_are_none():
    values = np.arange(12).reshape(3, 4)
    assert runs(values.shape, lambda rows: values[rows], most=11) is None
    assert len(runs(values.shape, lambda rows: values[rows], most=12)[0]) == 12


@given(MAPS)
def test_the_pixels_of_each_superpixel(superpixels):
    found = SuperpixelRuns(superpixels)
    for number in range(6):
        assert np.array_equal(found.pixels(number), np.flatnonzero(superpixels == number))


@given(MAPS)
def test_the_part_of_the_map_that_a_superpixel_takes(superpixels):
    found = SuperpixelRuns(superpixels)
    for number in np.unique(superpixels):
        mask, top, left = found.part(int(number))
        whole = np.zeros(superpixels.shape, dtype=bool)
        whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        assert np.array_equal(whole, superpixels == number)
        assert all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    assert found.part(99)[0].size == 0


def test_an_empty_map_has_no_runs():
    empty = np.empty((0, 4), dtype=np.int32)
    assert len(runs((0, 4), lambda rows: empty[rows])[0]) == 0
    assert len(SuperpixelRuns(empty).pixels(0)) == 0
