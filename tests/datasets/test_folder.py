from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from alc_backend.datasets.classes import read_classes
from alc_backend.datasets.folder import open_folder
from alc_backend.datasets.images import encode_label_map, read_image, read_mask
from alc_backend.errors import DatasetError
from tests.conftest import CLASSES


def read(root, **options):
    folder = open_folder(root, **options)
    return {sample.key: sample for sample in folder.samples()}, folder.problems


def test_a_sound_folder_is_read_whole(dataset):
    samples, problems = read(dataset)
    assert problems == []
    assert list(samples) == ["a", "b", "c"]
    sample = samples["a"]
    assert (sample.height, sample.width) == (48, 64)
    assert sample.labels.dtype == np.uint8
    assert sample.superpixels.dtype == np.int32
    assert set(np.unique(sample.superpixels)) == {0, 1, 2}
    assert set(np.unique(sample.truth)) == {0, 1, 2}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda root: truncate(root / "images/b.png"), ["b.png", "intact"]),
        (lambda root: (root / "images/b.png").write_text("no image"), ["b.png", "intact"]),
        (lambda root: (root / "pseudo_labels/b.png").unlink(), ["pseudo_labels/b.png", "add"]),
        (lambda root: (root / "objects/b.png").unlink(), ["objects/b.png", "add"]),
        (
            lambda root: Image.new("L", (64, 47)).save(root / "pseudo_labels/b.png"),
            ["pseudo_labels/b.png", "64×47", "64×48"],
        ),
        (
            lambda root: Image.new("L", (64, 48), 9).save(root / "pseudo_labels/b.png"),
            ["pseudo_labels/b.png", "class id 9", "renumber"],
        ),
        (
            lambda root: Image.new("RGB", (64, 48)).save(root / "pseudo_labels/b.png"),
            ["pseudo_labels/b.png", "class ids instead of colours"],
        ),
    ],
)
def test_one_bad_file_costs_one_image(dataset, spoil, named):
    spoil(dataset)
    samples, problems = read(dataset)
    assert list(samples) == ["a", "c"]
    assert len(problems) == 1
    assert all(word in problems[0] for word in named), problems


def test_files_without_an_image_are_reported(dataset):
    (dataset / "images/b.png").unlink()
    samples, problems = read(dataset)
    assert list(samples) == ["a", "c"]
    assert sorted(problem.split(":")[0] for problem in problems) == [
        "ground_truth/b.png",
        "objects/b.png",
        "pseudo_labels/b.png",
    ]


def test_two_images_of_one_name_are_reported(dataset):
    Image.new("RGB", (64, 48)).save(dataset / "images/b.jpg")
    samples, problems = read(dataset)
    assert list(samples) == ["a", "c"]
    assert any("share the name 'b'" in problem for problem in problems)


def test_without_objects_slic_makes_superpixels(dataset):
    for path in (dataset / "objects").iterdir():
        path.unlink()
    (dataset / "objects").rmdir()
    samples, problems = read(dataset, superpixel_count=20)
    assert problems == []
    superpixels = samples["a"].superpixels
    assert superpixels.min() == 1
    assert 10 <= len(np.unique(superpixels)) <= 30


def test_superpixel_ids_above_255_survive(dataset):
    ids = np.zeros((48, 64), dtype=np.uint16)
    ids[0, 0], ids[5:9] = 300, 65_000
    Image.fromarray(ids).save(dataset / "objects/a.png")
    samples, _ = read(dataset)
    assert set(np.unique(samples["a"].superpixels)) == {0, 300, 65_000}


@pytest.mark.parametrize(
    ("text", "named"),
    [("", "0 classes"), ("one\n", "1 classes"), ("a\nb\na\n", "'a' twice"), (None, "not found")],
)
def test_a_wrong_class_list_is_refused(dataset, text, named):
    path = dataset / "classes.txt"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DatasetError, match=named):
        read_classes(path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="is not a folder"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="images/"):
        open_folder(tmp_path)


def test_validation_images_need_only_truth(dataset):
    for name in ("pseudo_labels", "objects"):
        for path in (dataset / name).iterdir():
            path.unlink()
    (dataset / "classes.txt").unlink()
    folder = open_folder(dataset, validation=True)
    folder.classes = CLASSES
    samples = list(folder.validation_samples())
    assert [sample.key for sample in samples] == ["a", "b", "c"]
    assert samples[0].labels is None


def test_images_are_turned_as_browsers_show_them(tmp_path):
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # rotate by 90°
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (40, 20, 3)


def test_label_maps_keep_their_ids_and_get_voc_colours(tmp_path):
    labels = np.array([[0, 1, 2], [3, 20, 255]], dtype=np.uint8)
    encode_label_map(tmp_path / "map.png", labels)
    assert np.array_equal(read_mask(tmp_path / "map.png"), labels)
    colours = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))
    assert colours[0].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert colours[1, 1].tolist() == [0, 64, 128]
    assert colours[1, 2].tolist() == [224, 224, 192]


def test_a_dataset_may_get_other_superpixels_than_its_objects(dataset):
    opened = open_folder(dataset)
    opened.segment = lambda image, labels, objects: objects + 5 * (objects > 0)
    for sample in opened.samples():
        assert set(np.unique(sample.superpixels)) == {0, 6, 7}
