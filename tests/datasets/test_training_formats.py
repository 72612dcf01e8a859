"""Formats that are written for training alone: what their frameworks would read from them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from alc_backend.datasets.dataset import OutputImage
from alc_backend.datasets.layouts import FOR_TRAINING_ONLY, WRITERS
from alc_backend.errors import DatasetError
from tests.conftest import CLASSES
from tests.datasets.made import KEYS, SHAPE, output_image

COLOURS = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.fixture
def images(tmp_path):
    return [output_image(tmp_path, key, seed=number) for number, key in enumerate(sorted(KEYS))]


@pytest.fixture
def written(tmp_path, images):
    def write(layout, these=images, classes=CLASSES):
        root = tmp_path / "written"
        root.mkdir(exist_ok=True)
        WRITERS[layout](root, classes, iter(these))
        return root

    return write


def turned(tmp_path):
    """An image that lies on its side unless its EXIF is followed, and its maps."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(tmp_path / "turned.png", exif=exif)
    labels = np.zeros((6, 4), dtype=np.uint8)
    return OutputImage("turned", ".png", tmp_path / "turned.png", labels, labels.astype(np.int32))


def test_nnunet_finds_images_labels_and_their_names(written, images):
    root = written("nnunet")
    index = json.loads((root / "dataset.json").read_text())
    assert index["labels"] == {"background": 0, "cat": 1, "dog": 2, "ignore": 3}
    assert index["numTraining"] == len(images)
    with (root / "cases.csv").open(newline="", encoding="utf-8") as file:
        cases = {row["image"]: row["case"] for row in csv.DictReader(file)}
    assert sorted(cases) == sorted(KEYS)
    assert not any("/" in case for case in cases.values())
    for image in images:
        shown = np.asarray(Image.open(root / f"imagesTr/{cases[image.key]}_0000.png"))
        assert np.array_equal(shown, np.asarray(Image.open(image.path)))
        labels = np.asarray(Image.open(root / f"labelsTr/{cases[image.key]}.png"))
        assert np.array_equal(labels, np.where(image.labels == 255, 3, image.labels))


def test_nnunet_gets_background_first_and_ignore_only_where_there_is_void(written, tmp_path):
    image = output_image(tmp_path, "a", classes=["dog", "bg"])
    image.labels[image.labels == 255] = 0
    root = written("nnunet", [image], ["dog", "bg"])
    index = json.loads((root / "dataset.json").read_text())
    assert index["labels"] == {"background": 0, "dog": 1}
    labels = np.asarray(Image.open(root / "labelsTr/a.png"))
    assert np.array_equal(labels, 1 - image.labels)


def test_nnunets_cases_never_share_a_name(written, tmp_path):
    keys = ["a/b", "a__b", "A__B", "a__b-2"]
    root = written("nnunet", [output_image(tmp_path, key) for key in keys])
    assert len(list((root / "labelsTr").iterdir())) == len(keys)


def test_nnunet_holds_255_classes_without_background(written, tmp_path):
    image = output_image(tmp_path, "a")
    image.labels[:1, :41] = np.arange(214, 255)
    root = written("nnunet", [image], [f"class {n}" for n in range(255)])
    labels = np.asarray(Image.open(root / "labelsTr/a.png")).astype(int)
    assert np.array_equal(labels, image.labels.astype(int) + 1)
    assert json.loads((root / "dataset.json").read_text())["labels"]["ignore"] == 256


def test_nnunets_own_words_are_no_classes(written):
    with pytest.raises(DatasetError, match="'ignore'"):
        written("nnunet", [], ["cat", "ignore"])


def test_ultralytics_paints_the_masks_but_for_void(written, images):
    """As its loader does: each polygon filled with OpenCV, its corners cut to whole pixels."""
    cv2 = pytest.importorskip("cv2", reason="opencv comes with the extra grounded-sam")
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    root = written("yolo-seg")
    index = yaml.safe_load((root / "data.yaml").read_text())
    assert index["names"] == {0: "cat", 1: "dog"}
    for image in images:
        painted = np.zeros(SHAPE, dtype=np.uint8)
        for line in (root / f"labels/train/{image.key}.txt").read_text().splitlines():
            number, *shares = line.split()
            corners = np.array(shares, dtype=np.float32).reshape(-1, 2) * SHAPE[::-1]
            cv2.fillPoly(painted, [corners.astype(np.int32)], int(number) + 1)
        assert np.array_equal(painted, np.where(image.labels == 255, 0, image.labels))
        assert (root / f"images/train/{image.key}.png").is_file()


def test_a_folder_that_ultralytics_would_rename_is_refused(written, tmp_path):
    with pytest.raises(DatasetError, match="rename"):
        written("yolo-seg", [output_image(tmp_path, "images/a")])
    written("yolo-seg", [output_image(tmp_path, "my images/images")])


@pytest.mark.parametrize(("layout", "name"), [
    ("nnunet", "imagesTr/turned_0000.png"),
    ("mmseg", "img_dir/train/turned.jpg"),
    ("torchvision", "VOCdevkit/VOC2012/JPEGImages/turned.jpg"),
])  # fmt: skip
def test_readers_that_know_no_exif_get_upright_images(written, tmp_path, layout, name):
    root = written(layout, [turned(tmp_path)])
    with Image.open(root / name) as opened:
        assert opened.getexif().get(0x0112, 1) == 1
        shown = np.asarray(opened.convert("RGB"))
    assert np.array_equal(
        shown, np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "turned.png")))
    )


@pytest.mark.parametrize("layout", FOR_TRAINING_ONLY)
@pytest.mark.parametrize("key", ["../evil", "/evil", "a/../../evil", "a//b", "", "a\\b"])
def test_keys_that_lead_elsewhere_are_refused(written, tmp_path, layout, key):
    made = output_image(tmp_path, "a")
    strange = OutputImage(key, made.suffix, made.path, made.labels, made.superpixels)
    with pytest.raises(DatasetError, match="rename the image"):
        written(layout, [strange])


def test_torchvision_reads_what_is_written_for_it(written, images):
    datasets = pytest.importorskip("torchvision.datasets")
    root = written("torchvision")
    found = datasets.VOCSegmentation(str(root), image_set="train")
    assert len(found) == len(images)
    by_name = dict(zip(found.images, range(len(found)), strict=True))
    for image in images:
        name = str(root / "VOCdevkit/VOC2012/JPEGImages" / f"{image.key}.jpg")
        shown, mask = found[by_name[name]]
        assert np.array_equal(np.asarray(shown), np.asarray(Image.open(image.path)))
        assert np.array_equal(np.asarray(mask), image.labels)
