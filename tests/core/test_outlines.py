"""Outlines of masks: painted by the rules of others, they give the masks again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_backend.core.outlines import outlines, rings


@st.composite
def masks(draw):
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.array(bits).reshape(height, width)


def inside(polygons, shape):
    """How often outlines wind around the centre of each pixel: the plain rule, pixel by pixel."""
    winding = np.zeros(shape, dtype=int)
    rows, cols = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
    for polygon in polygons:
        for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y1 == y2:
                continue
            at = x1 + (rows - y1) / (y2 - y1) * (x2 - x1)
            crosses = (min(y1, y2) <= rows) & (rows < max(y1, y2)) & (at <= cols)
            winding += np.where(crosses, 1 if y2 > y1 else -1, 0)
    return winding


@settings(max_examples=200, deadline=None)
@given(masks())
def test_what_an_outline_winds_around_is_the_mask(mask):
    found = outlines(mask)
    assert np.array_equal(np.abs(inside(found, mask.shape)), mask)  # once, and holes not at all
    borders = rings(mask)
    assert np.array_equal(inside(borders, mask.shape) != 0, mask)


@settings(max_examples=200, deadline=None)
@given(masks())
def test_opencv_paints_outlines_through_centres_as_the_mask(mask):
    cv2 = pytest.importorskip("cv2", reason="opencv comes with the extra grounded-sam")
    painted = np.zeros(mask.shape, dtype=np.uint8)
    for outline in outlines(mask, centres=True):
        one = np.zeros(mask.shape, dtype=np.uint8)
        cv2.fillPoly(one, [outline.astype(np.int32)], 1)
        painted |= one
    assert np.array_equal(painted, mask)


def test_an_outline_has_corners_where_it_turns_and_nowhere_else():
    mask = np.zeros((6, 9), dtype=bool)
    mask[1:4, 2:8] = True
    (outline,) = outlines(mask)
    assert sorted(map(tuple, outline.tolist())) == [(2, 1), (2, 4), (8, 1), (8, 4)]
    (outline,) = outlines(mask, centres=True)
    assert sorted(map(tuple, outline.tolist())) == [(2.5, 1.5), (2.5, 3.5), (7.5, 1.5), (7.5, 3.5)]


def test_an_empty_mask_has_none():
    assert outlines(np.zeros((3, 3), dtype=bool)) == []
    assert outlines(np.zeros((0, 3), dtype=bool)) == []
