"""Label maps as masks of CVAT's API, and back, pixel for pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture

from alc_backend.cvat.client import Frame
from alc_backend.cvat.shapes import digest_of, record_of, shapes_of
from alc_backend.datasets.cvat import Cvat, classes_of
from alc_backend.errors import DatasetError

VOID = 255
FRAME = Frame(3, "deep/a.png", 31, 17)


def drawn(seed, classes):
    """A random label map with void, and a random superpixel map."""
    rng = np.random.default_rng(seed)
    shape = (FRAME.height, FRAME.width)
    labels = rng.choice([*range(len(classes)), VOID], shape).astype(np.uint8)
    blocks = np.kron(rng.integers(0, 5, (6, 8)), np.ones((3, 4), dtype=np.int64))
    return labels, blocks[: shape[0], : shape[1]].astype(np.int32)


def ids_of(classes):
    return {name: 10 + number for number, name in enumerate([*classes, "ignore"])}


def made(labels, superpixels, classes):
    found = shapes_of(labels, superpixels, FRAME.number, classes, ids_of(classes))
    return [{**shape, "id": number} for number, shape in enumerate(found)]


def read(shapes, classes, folder):
    """The sample that the reader makes of shapes."""
    path = folder / FRAME.name
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.new("RGB", (FRAME.width, FRAME.height)).save(path)
    names = {number: name for name, number in ids_of(classes).items()}
    record = record_of(FRAME, shapes, names)
    dataset = Cvat(folder, classes, records=[record], folders=[folder], source="CVAT's task 7")
    found = list(dataset.samples())
    return (found[0] if found else None), dataset.problems


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("classes", [["background", "cat", "dog"], ["cat", "dog"]])
def test_random_label_maps_come_back(tmp_path, seed, classes):
    labels, superpixels = drawn(seed, classes)
    sample, problems = read(made(labels, superpixels, classes), classes, tmp_path)
    assert problems == []
    assert sample.key == "deep/a"
    assert np.array_equal(sample.labels, labels)


def test_masks_are_those_of_cvats_own_library():
    masks = pytest.importorskip("cvat_sdk.masks", reason="cvat-sdk is not installed")
    classes = ["cat", "dog"]
    labels, superpixels = drawn(0, classes)
    painted = np.full(labels.shape, VOID, dtype=np.uint8)
    for shape in made(labels, superpixels, classes):
        mask = masks.decode_mask(
            shape["points"], image_width=FRAME.width, image_height=FRAME.height
        )
        painted[mask] = shape["label_id"] - 10
    assert np.array_equal(painted, labels)


@pytest.mark.parametrize(
    "points",
    [[], [1.0], [0, 4, 0, 0, 1, 1, 1], [4, 0, 0, 1, 1, 9], [0, 4, 30, 16, 31, 17],
     [0, 4, -1, 0, 0, 1]],
)  # fmt: skip
def test_a_damaged_mask_leaves_its_image_out(tmp_path, points):
    shape = {"type": "mask", "label_id": 10, "points": points, "id": 1, "group": None}
    sample, (problem,) = read([shape], ["cat", "dog"], tmp_path)
    assert sample is None
    assert "CVAT's task 7: image deep/a.png" in problem


def test_polygons_and_unknown_labels_and_other_kinds(tmp_path):
    classes = ["background", "cat"]
    corners = [2.0, 2.0, 8.0, 2.0, 8.0, 6.0, 2.0, 6.0]
    polygon = {"type": "polygon", "label_id": 11, "points": corners, "id": 1}
    box = {"type": "rectangle", "label_id": 11, "points": [1, 1, 2, 2], "id": 2}
    sample, (problem,) = read([box, polygon], classes, tmp_path)
    assert sample.labels.sum() == 24
    assert "1 shapes of the kind 'rectangle'" in problem
    sample, (problem,) = read([{**polygon, "label_id": 99}], classes, tmp_path)
    assert sample is None
    assert "none of the dataset's classes" in problem


def test_a_digest_tells_masks_apart_and_not_their_ids():
    classes = ["background", "cat", "dog"]
    labels, superpixels = drawn(1, classes)
    shapes = made(labels, superpixels, classes)
    moved = [{**shape, "id": shape["id"] + 50, "rotation": 0.0} for shape in reversed(shapes)]
    assert digest_of(shapes) == digest_of(moved)
    assert digest_of(shapes) != digest_of(shapes[1:])
    assert digest_of(shapes) != digest_of([{**shapes[0], "label_id": 99}, *shapes[1:]])
    assert digest_of([{"type": "rectangle", "points": []}]) == digest_of([])


def test_labels_that_cannot_be_classes_are_refused():
    assert classes_of(["cat", "ignore"], "it") == ["background", "cat"]
    with pytest.raises(DatasetError, match="'cat' twice"):
        classes_of(["cat", "cat"], "it")
