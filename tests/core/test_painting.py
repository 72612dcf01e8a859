from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.core.arrays import VOID
from alc_backend.core.painting import paint

SHAPE = (12, 16)


def box(top, bottom, left, right, shape=SHAPE):
    mask = np.zeros(shape, dtype=np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def test_of_nested_masks_the_smaller_lies_on_top_in_any_order():
    outer, inner = (box(0, 10, 0, 10), 1), (box(2, 5, 2, 5), 2)
    for masks in ([outer, inner], [inner, outer]):
        painting = paint(masks, SHAPE, uncovered=0)
        assert (painting.labels[2:5, 2:5] == 2).all()
        assert np.count_nonzero(painting.labels == 1) == 100 - 9
        assert painting.superpixels.dtype == np.int32
        assert [masks[source] for source in painting.sources] == masks
        assert sorted(painting.areas) == [9, 100]


def test_of_equal_areas_the_later_lies_on_top():
    masks = [(box(0, 4, 0, 4), 1), (box(2, 6, 0, 4), 2)]
    painting = paint(masks, SHAPE, uncovered=0)
    assert (painting.labels[2:4, :4] == 2).all()
    assert (painting.labels[:2, :4] == 1).all()
    assert (painting.superpixels[2:6, :4] == 2).all()


def test_what_is_hidden_or_empty_is_counted_and_no_superpixel():
    pieces = [(box(0, 4, 0, 2), 1), (box(0, 4, 2, 4), 2)]
    painting = paint([(box(0, 4, 0, 4), 3), *pieces, (box(0, 0, 0, 0), 4)], SHAPE, uncovered=0)
    assert (painting.hidden, painting.empty) == (1, 1)
    assert painting.sources == [1, 2]
    assert set(np.unique(painting.superpixels)) == {0, 1, 2}
    assert 3 not in painting.labels


def test_without_masks_everything_is_uncovered():
    painting = paint([], SHAPE, uncovered=VOID)
    assert (painting.labels == VOID).all()
    assert not painting.superpixels.any()
    assert painting.sources == []


def test_a_mask_over_everything_leaves_no_zero():
    painting = paint([(box(0, 12, 0, 16), 1)], SHAPE, uncovered=0)
    assert (painting.superpixels == 1).all()


def test_three_hundred_detections_keep_their_numbers():
    shape = (30, 40)
    masks = [
        (box(row, row + 1, 4 * k, 4 * k + 4, shape), 1) for row in range(30) for k in range(10)
    ]
    painting = paint(masks, shape, uncovered=0)
    assert painting.sources == list(range(300))
    assert painting.superpixels.max() == 300
    for number in (1, 255, 256, 257, 300):
        assert np.array_equal(painting.superpixels == number, masks[number - 1][0])


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="mask 1 is"):
        paint([(np.zeros((3, 3), dtype=np.bool_), 1)], SHAPE, uncovered=0)


@given(
    st.lists(
        st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(0, 16)] * 2, st.integers(0, 5)),
        max_size=12,
    )
)
def test_as_painting_one_after_another_by_descending_area(edges):
    masks = [(box(a, b, c, d), label) for a, b, c, d, label in edges]
    labels, owner = np.zeros(SHAPE, dtype=np.uint8), np.zeros(SHAPE, dtype=np.int64)
    for number, (mask, label) in sorted(
        enumerate(masks, start=1), key=lambda entry: -int(entry[1][0].sum())
    ):
        labels[mask], owner[mask] = label, number
    painting = paint(masks, SHAPE, uncovered=0)
    assert np.array_equal(painting.labels, labels)
    numbers = np.array([0, *(source + 1 for source in painting.sources)])
    assert np.array_equal(numbers[painting.superpixels], owner)
    assert painting.hidden + painting.empty + len(painting.sources) == len(masks)
