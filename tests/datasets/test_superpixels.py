from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from alc_backend.core.arrays import VOID
from alc_backend.datasets.images import open_images
from alc_backend.datasets.superpixels import component_boxes, fill, slic
from alc_backend.errors import DatasetError, FoundationError, SettingsError, WeightsError
from alc_backend.foundation.warm_start import Warmer, WarmStart
from alc_backend.settings import Settings
from tests.conftest import write_dataset
from tests.foundation.tiny import write_models

CLASSES = ["background", "cat", "dog"]


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


def test_all_is_filled_where_there_are_no_objects():
    empty = np.zeros((40, 60), dtype=np.int32)
    assert (fill(empty, noise(), 50) > 0).all()


def test_boxes_lie_tight_around_the_parts_of_each_class():
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[2:5, 3:9], labels[10:12, 3:9], labels[12:14, 9:12] = 1, 2, 2  # two touch at a corner
    labels[0, 20:] = VOID
    assert component_boxes(labels, 0).tolist() == [[3, 2, 9, 5], [3, 10, 12, 14]]
    assert component_boxes(np.full((4, 4), VOID, dtype=np.uint8), 0).shape == (0, 4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    models = write_models(tmp_path_factory.mktemp("models"))
    return Settings(model_dir=models, detector="swin-b", segmenter="vit-b", _env_file=None)


def warmer(settings, classes=CLASSES, synonyms=None, **start):
    start = {"detector": settings.detector, "segmenter": settings.segmenter, **start}
    return Warmer(WarmStart(**start), classes, settings, synonyms)


def test_without_models_an_image_is_background_in_slic_superpixels(tmp_path):
    settings = Settings(data_dir=tmp_path, _env_file=None)
    maps = warmer(settings, count=30).from_image(noise())
    assert not maps.labels.any()
    assert np.array_equal(maps.superpixels, slic(noise(), 30))
    assert maps.found == {}
    with pytest.raises(DatasetError, match="no class named background"):
        warmer(settings, classes=["cat", "dog"]).from_image(noise())


def test_grounded_sam_begins_an_image_and_slic_fills_it(tiny):
    plain = warmer(tiny, superpixels="grounded-sam").from_image(noise())
    assert (plain.superpixels == 0).any()
    assert plain.found
    filled = warmer(tiny, superpixels="grounded-sam", fill=True, count=20).from_image(noise())
    assert (filled.superpixels > 0).all()
    assert filled.found == plain.found
    assert np.array_equal(filled.labels, plain.labels)
    assert (filled.labels[plain.superpixels == 0] == 0).all()


def test_synonyms_are_what_is_looked_for(tiny):
    with pytest.raises(FoundationError, match="knows no word of the prompt '猫'"):
        warmer(tiny, superpixels="grounded-sam", synonyms={"cat": ["猫"]})


def test_without_a_background_what_is_bare_is_void(tiny):
    start = {"classes": ["cat", "dog"], "superpixels": "grounded-sam"}
    maps = warmer(tiny, **start).from_image(noise())
    assert (maps.labels[maps.superpixels == 0] == VOID).all()
    with pytest.raises(DatasetError, match="--fill slic"):
        warmer(tiny, fill=True, **start)


def test_masks_keep_their_superpixels_unless_sam_makes_them(tiny):
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[5:20, 10:30] = 1
    given = labels.astype(np.int32)
    assert warmer(tiny).from_masks(noise(), labels, given) is given
    assert (warmer(tiny, fill=True).from_masks(noise(), labels, given) > 0).all()
    assert np.array_equal(warmer(tiny).from_masks(noise(), labels), slic(noise()))
    segmented = warmer(tiny, superpixels="sam").from_masks(noise(), labels, given)
    assert set(np.unique(segmented)) <= {0, 1}


def test_models_that_are_not_there_are_named(tmp_path):
    settings = Settings(data_dir=tmp_path, _env_file=None)
    with pytest.raises(WeightsError, match="sam_vit_h_4b8939") as caught:
        warmer(settings, superpixels="grounded-sam")
    assert "groundingdino_swint_ogc" in str(caught.value)
    assert str(tmp_path / "models") in str(caught.value)
    with pytest.raises(SettingsError, match="no model 'vit-x'"):
        warmer(settings, superpixels="sam", segmenter="vit-x")
    with pytest.raises(SettingsError, match="not 'felzenszwalb'"):
        WarmStart(superpixels="felzenszwalb")


def test_a_warm_start_is_kept_with_its_project():
    start = WarmStart("grounded-sam", 50, True, 0.05, "swin-b", "vit-l")
    assert WarmStart.of(start.as_dict()) == start
    assert WarmStart.of(None) == WarmStart()
    assert WarmStart.of({"count": 7, "of a later version": 1}) == WarmStart(count=7)


def test_a_folder_of_plain_images(tmp_path):
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    for name in ("a.png", "more/b.jpg", "twin.png", "twin.jpg"):
        Image.fromarray(noise()).save(images / name)
    (images / "notes.txt").write_text("no image")
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(CLASSES))
    found = open_images(images, classes, blank=True)
    samples = list(found.samples())
    assert [sample.key for sample in samples] == ["a", "more/b"]
    assert all(not sample.labels.any() and sample.superpixels.min() == 1 for sample in samples)
    assert any("notes.txt: not an image" in problem for problem in found.problems)
    assert any("share the name 'twin'" in problem for problem in found.problems)
    classes.write_text("cat\ndog")
    with pytest.raises(DatasetError, match="names no class background"):
        open_images(images, classes, blank=True)
    assert open_images(images, classes, blank=False).classes == ["cat", "dog"]
    for wrong, reason in ((tmp_path / "nothing", "is not a folder"), (tmp_path, "")):
        if reason:
            with pytest.raises(DatasetError, match=reason):
                open_images(wrong, classes, blank=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no images"):
        open_images(tmp_path / "empty", classes, blank=False)


def test_a_dataset_may_get_other_superpixels_than_its_objects(tmp_path):
    from alc_backend.datasets.layouts import open_dataset

    root = write_dataset(tmp_path / "data", ["a"])
    opened = open_dataset(root)
    opened.segment = lambda image, labels, objects: objects + 5 * (objects > 0)
    (sample,) = opened.samples()
    assert set(np.unique(sample.superpixels)) == {0, 6, 7}
