from __future__ import annotations

import numpy as np
import pytest

from alc_backend.labelstudio.regions import MAX_REGIONS, brush_regions, painted

CLASSES = ["background", "cat", "dog"]


def test_masks_come_back_exactly():
    superpixels = np.zeros((30, 41), dtype=np.int32)
    superpixels[2:20, 3:30], superpixels[5:9, 5:9] = 4, 9
    labels = np.where(superpixels == 4, 1, np.where(superpixels == 9, 2, 0)).astype(np.uint8)
    again = painted(brush_regions(labels, superpixels, CLASSES), CLASSES)
    assert np.array_equal(again[0], labels)
    assert np.array_equal(again[1] > 0, superpixels > 0)
    assert len(np.unique(again[1])) == 3


def test_many_superpixels_become_one_region_per_class():
    superpixels = np.arange(1, 10 * 10 + 1, dtype=np.int32).reshape(10, 10)
    labels = (superpixels % 3).astype(np.uint8)
    assert superpixels.max() > MAX_REGIONS
    regions = brush_regions(labels, superpixels, CLASSES)
    assert sorted(r["value"]["brushlabels"][0] for r in regions) == sorted(CLASSES)
    assert np.array_equal(painted(regions, CLASSES)[0], labels)


def test_small_regions_lie_on_top_and_hidden_ones_are_no_superpixels():
    def region(name, rows, cols):
        superpixels = np.zeros((20, 20), dtype=np.int32)
        superpixels[rows, cols] = 1
        labels = np.where(superpixels, CLASSES.index(name), 0).astype(np.uint8)
        return brush_regions(labels, superpixels, CLASSES)[0]

    small = region("cat", slice(5, 8), slice(5, 8))
    same = region("dog", slice(5, 8), slice(5, 8))
    large = region("dog", slice(0, 12), slice(0, 12))
    labels, superpixels = painted([small, same, large], CLASSES)
    assert (labels[5:8, 5:8] == 2).all()  # equal area: the later region wins
    assert labels[0, 0] == 2
    assert labels[19, 19] == superpixels[19, 19] == 0
    assert len(np.unique(superpixels)) == 3  # none, the large one, the one on top


def test_without_known_regions_there_is_nothing_to_paint():
    assert painted([], CLASSES) is None
    assert painted([{"type": "choices", "value": {"choices": ["cat"]}}], CLASSES) is None


def test_a_region_of_false_length_is_refused():
    labels = np.ones((8, 8), dtype=np.uint8)
    regions = brush_regions(labels, labels.astype(np.int32), CLASSES)
    regions[0]["original_width"] = 10_000
    with pytest.raises(ValueError, match="length"):
        painted(regions, CLASSES)
    del regions[0]["value"]["rle"]
    with pytest.raises(ValueError, match="'rle'"):
        painted(regions, CLASSES)
