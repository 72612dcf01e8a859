from __future__ import annotations

import numpy as np
import pytest

from alc_backend.labelstudio import regions, shapes
from alc_backend.labelstudio.regions import UnknownClassError, painted, read_regions
from alc_backend.labelstudio.shown_regions import mask_regions

CLASSES = ["background", "cat", "dog"]


def test_small_regions_lie_on_top_and_hidden_ones_are_no_superpixels():
    def region(name, rows, cols):
        superpixels = np.zeros((20, 20), dtype=np.int32)
        superpixels[rows, cols] = 1
        labels = np.where(superpixels, CLASSES.index(name), 0).astype(np.uint8)
        return mask_regions(labels, superpixels, CLASSES)[0]

    small = region("cat", slice(5, 8), slice(5, 8))
    same = region("dog", slice(5, 8), slice(5, 8))
    large = region("dog", slice(0, 12), slice(0, 12))
    labels, superpixels = painted([small, same, large], CLASSES, (20, 20))
    assert (labels[5:8, 5:8] == 2).all()  # equal area: the later region wins
    assert labels[0, 0] == 2
    assert labels[19, 19] == superpixels[19, 19] == 0
    assert len(np.unique(superpixels)) == 3  # none, the large one, the one on top


def test_without_regions_there_is_nothing_to_paint():
    assert painted([], CLASSES, (20, 20)) is None


def test_a_region_is_compared_with_the_image_itself():
    labels = np.ones((8, 8), dtype=np.uint8)
    (region,) = mask_regions(labels, labels.astype(np.int32), CLASSES)
    with pytest.raises(ValueError, match="for 8×8 pixels, and the image has 12×9"):
        painted([region], CLASSES, (9, 12))
    with pytest.raises(ValueError, match="for 10000×8 pixels"):
        painted([{**region, "original_width": 10_000}], CLASSES, (8, 8))
    with pytest.raises(ValueError, match="length"):
        painted([{**region, "original_width": 10_000}], CLASSES, (8, 10_000))
    del region["value"]["rle"]
    with pytest.raises(ValueError, match="'rle'"):
        painted([region], CLASSES, (8, 8))


def test_too_many_regions_and_pixels_are_refused(monkeypatch):
    labels = np.ones((8, 8), dtype=np.uint8)
    (region,) = mask_regions(labels, labels.astype(np.int32), CLASSES)
    monkeypatch.setattr(regions, "MAX_COUNT", 5)
    assert len(read_regions([region] * 5, CLASSES, (8, 8))) == 5
    with pytest.raises(ValueError, match=r"there are 6 regions; .* may have 5"):
        read_regions([region] * 6, CLASSES, (8, 8))
    monkeypatch.setattr(regions, "MAX_PAINTED", 3 * 64)
    with pytest.raises(ValueError, match="may have 3"):
        read_regions([region] * 4, CLASSES, (8, 8))
    monkeypatch.setattr(regions, "MAX_RLE_BYTES", 2 * len(region["value"]["rle"]))
    assert len(read_regions([region] * 2, CLASSES, (8, 8))) == 2
    with pytest.raises(ValueError, match=r"run lengths .* too long"):
        read_regions([region] * 3, CLASSES, (8, 8))


def test_outlines_must_not_be_too_intricate(monkeypatch):
    points = [[0, 0], [10, 100], [20, 0]]
    region = {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["cat"]}}
    monkeypatch.setattr(regions, "MAX_CROSSINGS", 3 * 16)
    assert len(read_regions([region] * 3, CLASSES, (8, 8))) == 3
    with pytest.raises(ValueError, match="too intricate"):
        read_regions([region] * 4, CLASSES, (8, 8))
    monkeypatch.setattr(shapes, "MOST_CROSSINGS", 15)
    with pytest.raises(ValueError, match="too intricate"):
        read_regions([region], CLASSES, (8, 8))


def test_an_unknown_class_is_named_with_its_region():
    labels = np.ones((8, 8), dtype=np.uint8)
    (region,) = mask_regions(labels, labels.astype(np.int32), CLASSES)
    said = r"region 's1c1' .*'cat', which is not among .*background, dog.*alc classes add"
    with pytest.raises(UnknownClassError, match=said):
        read_regions([region], ["background", "dog"], (8, 8))


def test_regions_know_their_area():
    labels = np.zeros((8, 9), dtype=np.uint8)
    labels[2:5, 3:7] = 1
    (region,) = mask_regions(labels, labels.astype(np.int32), CLASSES)
    (found,) = read_regions([region], CLASSES, (8, 9))
    assert (found.area, found.class_id) == (12, 1)
    assert np.array_equal(found.mask(), labels == 1)
    canvas = np.zeros((8, 9), dtype=np.uint8)
    found.paint(canvas, 7)
    assert np.array_equal(canvas, labels * 7)
