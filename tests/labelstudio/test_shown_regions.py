from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter import brush
from scipy.ndimage import distance_transform_edt, gaussian_filter

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import regions, shown_regions
from alc_backend.labelstudio.dataset_config import dataset_config, read_dataset_config
from alc_backend.labelstudio.regions import painted, read_regions
from alc_backend.labelstudio.shown_regions import MAX_REGIONS, mask_regions

CLASSES = ["background", "cat", "dog"]


def test_masks_come_back_exactly():
    superpixels = np.zeros((30, 41), dtype=np.int32)
    superpixels[2:20, 3:30], superpixels[5:9, 5:9] = 4, 9
    labels = np.where(superpixels == 4, 1, np.where(superpixels == 9, 2, 0)).astype(np.uint8)
    again = painted(mask_regions(labels, superpixels, CLASSES), CLASSES, labels.shape)
    assert np.array_equal(again[0], labels)
    assert np.array_equal(again[1] > 0, superpixels > 0)
    assert len(np.unique(again[1])) == 3


def test_many_superpixels_become_one_region_per_class():
    superpixels = np.arange(1, 10 * 10 + 1, dtype=np.int32).reshape(10, 10)
    labels = (superpixels % 3).astype(np.uint8)
    assert superpixels.max() > MAX_REGIONS
    made = mask_regions(labels, superpixels, CLASSES)
    assert sorted(r["value"]["brushlabels"][0] for r in made) == sorted(CLASSES)
    assert np.array_equal(painted(made, CLASSES, labels.shape)[0], labels)


@pytest.mark.parametrize("by_class", [False, True])
def test_regions_have_the_pixels_of_their_superpixel_and_class(by_class):
    rng = np.random.default_rng(0)
    superpixels = rng.integers(0, 5, (21, 17)).astype(np.int32)
    labels = rng.choice([0, 1, 2, 255], (21, 17)).astype(np.uint8)
    made = mask_regions(labels, superpixels, CLASSES, by_class=by_class, scores={2: 0.5})
    seen = np.zeros(labels.shape, dtype=bool)
    for region in made:
        number, class_id = (int(part) for part in region["id"][1:].split("c"))
        here = superpixels > 0 if by_class else superpixels == number
        expected = here & (labels == class_id)
        assert region["value"]["brushlabels"] == [CLASSES[class_id]]
        assert np.array_equal(brush.decode_rle(region["value"]["rle"]) > 0, expected.repeat(4))
        assert region.get("score") == (0.5 if number == 2 and not by_class else None)
        seen |= expected
    assert np.array_equal(seen, (superpixels > 0) & (labels < 3))
    assert len(made) == (3 if by_class else 12)


SHAPES = ["brush", "bitmask", "polygon"]


@st.composite
def maps(draw):
    """Label and superpixel maps of smooth pieces, with holes, islands and void."""
    height, width = draw(st.integers(3, 40)), draw(st.integers(3, 40))
    seed = draw(st.integers(0, 2**32 - 1))
    noise = np.random.default_rng(seed).normal(size=(2, height, width))
    smooth = gaussian_filter(noise, (0, *[draw(st.sampled_from([0.7, 2, 4]))] * 2))
    labels = np.digitize(smooth[0], np.quantile(smooth[0], [0.3, 0.6, 0.9]))
    superpixels = np.digitize(smooth[1], np.quantile(smooth[1], [0.3, 0.6]))
    return np.where(labels == 3, 255, labels).astype(np.uint8), superpixels.astype(np.int32)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_of_each_shape_are_read_back(shape):
    """Brushes and bitmasks exactly, polygons within a pixel."""

    @settings(max_examples=60, deadline=None)
    @given(maps())
    def read_back(made):
        labels, superpixels = made
        shown = mask_regions(labels, superpixels, CLASSES, shape=shape)
        parts: dict[str, np.ndarray] = {}
        for region in read_regions(shown, CLASSES, labels.shape):
            name = region.name.partition("p")[0]
            parts[name] = parts.get(name, np.zeros(labels.shape, dtype=bool)) | region.mask()
        wanted = {}
        for number in range(1, 3):
            for class_id in range(3):
                mask = (superpixels == number) & (labels == class_id)
                if mask.any():
                    wanted[f"s{number}c{class_id}"] = mask
        assert parts.keys() == wanted.keys()
        for name, mask in wanted.items():
            off = parts[name] ^ mask
            if shape == "polygon" and off.any():
                around = np.pad(mask, 2)
                border = np.minimum(
                    distance_transform_edt(around), distance_transform_edt(~around)
                )[2:-2, 2:-2]
                assert border[off].max() <= 1.5  # of centres; half a pixel is the border's
            else:
                assert not off.any()

    read_back()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_of_regions_that_label_studio_knows(shape):
    superpixels = np.ones((20, 30), dtype=np.int32)
    labels = np.ones((20, 30), dtype=np.uint8)
    labels[3:9, 4:8] = labels[12:15, 20:29] = 2
    shown = mask_regions(labels, superpixels, CLASSES, shape=shape, from_name="t")
    assert {one["type"] for one in shown} == {f"{shape}labels"}
    names = {"polygon": ["s1c1", "s1c2", "s1c2p1"]}.get(shape, ["s1c1", "s1c2"])
    assert [one["id"] for one in shown] == names
    config = dataset_config(CLASSES, shape).replace('"label"', '"t"')
    assert read_dataset_config(config).masks(shown) == shown


def test_more_bitmasks_than_brushes_are_fluent():
    superpixels = np.arange(1, 10 * 10 + 1, dtype=np.int32).reshape(10, 10)
    labels = (superpixels % 3).astype(np.uint8)
    assert len(mask_regions(labels, superpixels, CLASSES, shape="bitmask")) == 100
    assert len(mask_regions(labels, superpixels, CLASSES)) == 3


def test_polygons_that_are_too_intricate_are_refused(monkeypatch):
    monkeypatch.setattr(shown_regions, "MOST_CROSSINGS", 400)
    with pytest.raises(LabelStudioError, match=r"polygon regions .* crossings"):
        mask_regions(*checkers(), CLASSES, shape="polygon")


def test_nothing_to_show():
    labels = np.full((4, 5), 255, dtype=np.uint8)
    assert mask_regions(labels, np.ones((4, 5), dtype=np.int32), CLASSES) == []
    assert mask_regions(labels * 0, np.zeros((4, 5), dtype=np.int32), CLASSES) == []


def checkers(shape=(40, 40)):
    """Labels that change at every pixel, in two superpixels."""
    labels = (np.indices(shape).sum(axis=0) % 3).astype(np.uint8)
    superpixels = np.ones(shape, dtype=np.int32)
    superpixels[:, 20:] = 2
    return labels, superpixels


def test_regions_that_would_be_too_many_are_shown_by_class(monkeypatch):
    labels, superpixels = checkers()
    assert len(mask_regions(labels, superpixels, CLASSES)) == 6
    monkeypatch.setattr(shown_regions, "MAX_COUNT", 5)
    assert len(mask_regions(labels, superpixels, CLASSES)) == 3
    monkeypatch.undo()
    monkeypatch.setattr(shown_regions, "MAX_PAINTED", 5 * labels.size)
    assert len(mask_regions(labels, superpixels, CLASSES)) == 3


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_RUNS"])
def test_masks_that_would_not_be_read_back_are_refused(monkeypatch, limit):
    labels, superpixels = checkers()
    monkeypatch.setattr(shown_regions, limit, 400)
    with pytest.raises(LabelStudioError, match="change from pixel to pixel"):
        mask_regions(labels, superpixels, CLASSES)


def test_what_is_shown_is_within_the_limits_of_what_is_read(monkeypatch):
    labels, superpixels = checkers()
    made = mask_regions(labels, superpixels, CLASSES)
    size = sum(len(region["value"]["rle"]) for region in made)
    monkeypatch.setattr(shown_regions, "MOST_BYTES", size)
    monkeypatch.setattr(regions, "MAX_RLE_BYTES", size)
    assert mask_regions(labels, superpixels, CLASSES) == made
    assert len(read_regions(made, CLASSES, labels.shape)) == len(made)
    assert shown_regions.MAX_COUNT == regions.MAX_COUNT
    monkeypatch.undo()
    assert shown_regions.MOST_BYTES < regions.MAX_RLE_BYTES
