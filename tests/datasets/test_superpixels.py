from __future__ import annotations

import sys

import cc3d
import numpy as np
import pytest

from alc_backend.core.arrays import VOID
from alc_backend.datasets.images import MAX_COLOUR_ID
from alc_backend.datasets.superpixels import component_boxes, fill, seeds
from alc_backend.errors import SettingsError


def noise(height=40, width=60):
    return (np.random.default_rng(0).random((height, width, 3)) * 255).astype(np.uint8)


def test_what_no_object_covers_is_filled_and_objects_stay():
    objects = np.zeros((40, 60), dtype=np.int32)
    objects[5:20, 10:30], objects[25:35, 40:50] = 1, 7
    filled = fill(objects, noise(), 40)
    assert filled.dtype == np.int32
    assert (filled > 0).all()
    assert np.array_equal(filled == 1, objects == 1)
    assert np.array_equal(filled == 7, objects == 7)
    new = np.unique(filled[objects == 0])
    assert new.min() == 8
    assert 15 <= len(new) <= 60


@pytest.mark.parametrize("bare", [0, 1, 2])
def test_hardly_anything_to_fill(bare):
    objects = np.ones((20, 30), dtype=np.int32)
    objects.flat[:bare] = 0
    assert (fill(objects, noise(20, 30), 100) > 0).all()
    assert (fill(objects, noise(20, 30), 100).flat[bare:] == 1).all()


@pytest.mark.parametrize("seed", range(8))
def test_what_is_filled_never_joins_an_object(seed):
    """Bare pixels in small islands, for which SLIC finds no piece, get pieces of their own."""
    rng = np.random.default_rng(seed)
    objects = np.kron(rng.integers(1, 5, (10, 12)), np.ones((8, 8), dtype=int)).astype(np.int32)
    objects[rng.random(objects.shape) < 0.01] = 0
    objects[20:60, 30:80] = 0
    filled = fill(objects, noise(*objects.shape), 30)
    bare = objects == 0
    assert np.array_equal(filled[~bare], objects[~bare])
    assert not set(np.unique(filled[bare])) & set(np.unique(objects))
    for number in np.unique(filled[bare]):
        part = (filled == number).astype(np.uint8)
        assert cc3d.connected_components(part, connectivity=4).max() == 1


def test_filling_finds_ids_where_the_largest_is_taken():
    objects = np.zeros((40, 60), dtype=np.int32)
    objects[5:20, 10:30], objects[25:35, 40:50] = 2, MAX_COLOUR_ID
    filled = fill(objects, noise(), 40)
    assert filled.min() == 1
    assert np.array_equal(filled == 2, objects == 2)
    assert np.array_equal(filled == MAX_COLOUR_ID, objects == MAX_COLOUR_ID)
    assert filled.max() == MAX_COLOUR_ID


def test_all_is_filled_where_there_are_no_objects():
    empty = np.zeros((40, 60), dtype=np.int32)
    assert (fill(empty, noise(), 50) > 0).all()


def test_boxes_lie_tight_around_the_parts_of_each_class():
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[2:5, 3:9], labels[10:12, 3:9], labels[12:14, 9:12] = 1, 2, 2  # two touch at a corner
    labels[0, 20:] = VOID
    assert component_boxes(labels, 0).tolist() == [[3, 2, 9, 5], [3, 10, 12, 14]]
    assert component_boxes(np.full((4, 4), VOID, dtype=np.uint8), 0).shape == (0, 4)


@pytest.fixture
def contrib():
    return pytest.importorskip("cv2.ximgproc", reason="the extra seeds is not installed")


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [(120, 180, 60), (60, 40, 1), (1, 1, 1), (2, 3, 100), (3, 200, 4), (5, 40, 50), (33, 17, 500)],
)
def test_seeds_divides_images_of_all_sizes(contrib, height, width, count):
    picture = noise(height, width)
    found = seeds(picture, count)
    assert (found.dtype, found.shape) == (np.int32, (height, width))
    assert np.array_equal(np.unique(found), np.arange(1, found.max() + 1))
    assert np.array_equal(found, seeds(picture, count))
    if height > 100:
        assert count / 2 <= found.max() <= count * 1.5


def test_seeds_follows_colours(contrib):
    picture = np.zeros((96, 128, 3), np.uint8)
    picture[:, :] = (40, 90, 160)
    picture[21:70, 33:101] = (220, 60, 40)
    found = seeds(picture, 48)
    inside = np.zeros((96, 128), bool)
    inside[21:70, 33:101] = True
    share = [inside[found == number].mean() for number in range(1, found.max() + 1)]
    assert np.mean([min(part, 1 - part) for part in share]) < 0.03


def test_seeds_says_what_it_needs_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SettingsError, match=r"alc-backend\[seeds\]"):
        seeds(noise(), 10)
