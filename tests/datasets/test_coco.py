"""COCO as others read it, and COCO as it comes from elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from alc_backend.datasets import rle
from alc_backend.datasets.layouts import WRITERS, open_dataset
from alc_backend.datasets.segments import segments
from alc_backend.errors import DatasetError
from tests.conftest import CLASSES
from tests.datasets.made import KEYS, SHAPE, output_image, read

HEIGHT, WIDTH = 20, 30


def written(tmp_path, layout):
    images = [output_image(tmp_path, key, seed=number) for number, key in enumerate(KEYS)]
    root = tmp_path / "written"
    WRITERS[layout](root, CLASSES, iter(images))
    return root, images


def expected_segments(made, *, left_out=()):
    """(superpixel, class) → its pixels, found one by one."""
    return {
        (number, class_id): where
        for number in np.unique(made.superpixels).tolist()
        for class_id in range(len(CLASSES))
        if (where := (made.superpixels == number) & (made.labels == class_id)).any()
        and class_id not in left_out
    }


def box_of(where):
    rows, cols = np.nonzero(where)
    return [
        int(cols.min()),
        int(rows.min()),
        int(np.ptp(cols)) + 1,
        int(np.ptp(rows)) + 1,
    ]


def test_instances_are_what_pycocotools_reads(tmp_path):
    root, originals = written(tmp_path, "coco-instances")
    coco = COCO(root / "annotations/instances_train.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["cat", "dog"]
    images = {image["file_name"]: image for image in coco.loadImgs(coco.getImgIds())}
    assert sorted(images) == sorted(f"{key}.png" for key in KEYS)
    for made in originals:
        image = images[f"{made.key}.png"]
        assert (image["height"], image["width"]) == SHAPE
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=False))
        expected = expected_segments(made, left_out=[0])
        names = [(a["superpixel"], coco.loadCats(a["category_id"])[0]["name"]) for a in found]
        assert names == [(number, CLASSES[class_id]) for number, class_id in expected]
        for annotation, where in zip(found, expected.values(), strict=True):
            assert np.array_equal(coco.annToMask(annotation), where)
            assert annotation["area"] == coco_mask.area(annotation["segmentation"]) == where.sum()
            assert annotation["bbox"] == box_of(where)
            packed = coco_mask.encode(np.asfortranarray(where.astype(np.uint8)))
            assert annotation["segmentation"]["counts"] == packed["counts"].decode()
        assert np.array_equal(coco_mask.decode(image["void"]), made.labels == 255)


def test_panoptic_images_are_what_panoptic_readers_decode(tmp_path):
    root, originals = written(tmp_path, "coco-panoptic")
    index = json.loads((root / "annotations/panoptic_train.json").read_text("utf-8"))
    categories = {category["id"]: category for category in index["categories"]}
    assert [categories[n]["name"] for n in sorted(categories)] == CLASSES
    assert [categories[n]["isthing"] for n in sorted(categories)] == [0, 1, 1]
    described = {annotation["file_name"]: annotation for annotation in index["annotations"]}
    images = {image["id"]: image["file_name"] for image in index["images"]}
    for made in originals:
        annotation = described[f"{made.key}.png"]
        assert images[annotation["image_id"]] == f"{made.key}.png"
        with Image.open(root / "annotations/panoptic_train" / f"{made.key}.png") as opened:
            assert opened.mode == "RGB"
            colours = np.asarray(opened).astype(np.int64)
        ids = colours[..., 0] + 256 * colours[..., 1] + 256**2 * colours[..., 2]
        assert np.array_equal(ids == 0, made.labels == 255)
        expected = expected_segments(made)
        assert len(annotation["segments_info"]) == len(expected) == len(np.unique(ids)) - 1
        for info, ((number, class_id), where) in zip(
            annotation["segments_info"], expected.items(), strict=True
        ):
            assert np.array_equal(ids == info["id"], where)
            assert (info["superpixel"], info["category_id"]) == (number, class_id + 1)
            assert (info["area"], info["bbox"]) == (where.sum(), box_of(where))
            assert info["iscrowd"] == 0


@given(
    arrays.arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 7, 255])),
    arrays.arrays(np.int32, (4, 5), elements=st.sampled_from([0, 1, 2, 70_000])),
)
def test_segments_and_run_lengths_cover_every_pixel_once(labels, superpixels):
    index, found = segments(labels, superpixels)
    masks = [coco_mask.decode(lengths) > 0 for lengths in rle.encode(index, len(found))]
    covered = np.zeros(labels.shape, dtype=int)
    for segment, mask in zip(found, masks, strict=True):
        assert (labels[mask] == segment.class_id).all()
        assert (superpixels[mask] == segment.superpixel).all()
        assert mask.sum() == segment.area > 0
        assert list(segment.box) == box_of(mask)
        assert np.array_equal(
            rle.decode(rle.encode(index, len(found))[segment.id - 1], (4, 5)), mask
        )
        covered += mask
    assert np.array_equal(covered, labels != 255)
    assert len({(segment.superpixel, segment.class_id) for segment in found}) == len(found)


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_run_lengths_of_pycocotools_are_read(mask):
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = {"size": list(mask.shape), "counts": packed["counts"].decode()}
    assert np.array_equal(rle.decode(text, mask.shape), mask)


@pytest.mark.parametrize(
    ("segmentation", "named"),
    [
        (None, "neither"),
        ([], "empty"),
        ("text", "neither"),
        ({}, "size None"),
        ({"size": [HEIGHT, WIDTH]}, "numbers"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "size"),
        ({"size": [HEIGHT, WIDTH], "counts": [10**12]}, "pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [600, 10**30]}, "pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [700, -100]}, "numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [True] * 600}, "numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [600.0]}, "numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": "PPYo1"}, "pixels|numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": "o"}, "cut short"),
        ({"size": [HEIGHT, WIDTH], "counts": "oooooooooooooo0"}, "damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x00é"}, "damaged"),
        ([[1, 2, 3, 4]], "polygon"),
        ([[1, 2, 3, 4, 5, 6, 7]], "polygon"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "far outside"),
        ([[0, 0, 10**400, 0, 9, 9]], "outside"),
        ([[0, 0, WIDTH, HEIGHT] * 200_000], "outline"),
        ([[0, 0, float("nan"), 0, 9, 9]], "outside"),
        ([[0, 0, "9", 0, 9, 9]], "numbers"),
        ([7], "polygon"),
    ],
)
def test_false_segmentations_are_refused_before_memory_is_taken(segmentation, named):
    with pytest.raises(ValueError, match=named):
        rle.decode(segmentation, (HEIGHT, WIDTH))


class Foreign:
    """A dataset as COCO comes: sparse ids, polygons, run lengths of both kinds, crowds."""

    def __init__(self, root):
        self.root = root
        self.index = {
            "images": [{"id": 397133, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
            "categories": [
                {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
                {"id": 18, "name": "dog"},
            ],
            "annotations": [],
        }
        self.add_image("a")

    def add_image(self, name, folder="train2017"):
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(self.root / folder / f"{name}.jpg")

    def annotate(self, category, segmentation, **changes):
        self.index["annotations"].append(
            {
                "id": len(self.index["annotations"]) + 1,
                "image_id": 397133,
                "category_id": category,
                "segmentation": segmentation,
                **changes,
            }
        )

    def write(self, name="annotations/instances_train2017.json"):
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(self.index))
        return self.root


@pytest.fixture
def foreign(tmp_path):
    return Foreign(tmp_path / "coco")


def test_polygons_and_run_lengths_are_painted_in_their_order(foreign):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[5:9, 10:20] = 1
    packed = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    counts = [0, 3 * HEIGHT, (WIDTH - 3) * HEIGHT]  # the first three columns
    foreign.annotate(18, [[2.0, 2.0, 28.0, 2.0, 28.0, 12.0, 2.0, 12.0], [0, 16, 5, 16, 5, 19]])
    foreign.annotate(90, {"size": [HEIGHT, WIDTH], "counts": packed})
    foreign.annotate(90, {"size": [HEIGHT, WIDTH], "counts": counts}, iscrowd=1)
    dataset, samples = read(foreign.write())
    assert dataset.problems == []
    assert dataset.classes == ["background", "dog", "toothbrush"]  # by category id
    labels = samples["a"].labels
    assert (labels[:, :3] == 2).all()
    assert (labels[5:9, 10:20] == 2).all()
    assert (labels[3, 4:27] == 1).all()
    assert labels[18, 4] == 1
    assert (labels[13:, 6:] == 0).all()
    assert samples["a"].superpixels.min() == 1  # SLIC


def test_a_category_named_background_stays_where_it_is(foreign):
    foreign.index["categories"].append({"id": 7, "name": "dirt"})
    foreign.index["categories"].append({"id": 99, "name": "background"})
    foreign.annotate(18, [[2, 2, 9, 2, 9, 9]])
    dataset, samples = read(foreign.write())
    assert dataset.classes == ["dirt", "dog", "toothbrush", "background"]
    assert set(np.unique(samples["a"].labels)) == {1, 3}


@pytest.mark.parametrize(
    ("category", "segmentation", "named"),
    [
        (18, {"size": [9, 9], "counts": [81]}, "size"),
        (18, {"size": [HEIGHT, WIDTH], "counts": [10**12]}, "pixels"),
        (18, [[2, 2]], "three pairs"),
        (77, [[2, 2, 9, 2, 9, 9]], "category 77"),
        ([], [[2, 2, 9, 2, 9, 9]], "category"),
    ],
)
def test_one_bad_annotation_costs_its_image(foreign, category, segmentation, named):
    foreign.index["images"].append({"id": 2, "file_name": "b.jpg"})
    foreign.add_image("b")
    foreign.annotate(category, segmentation)
    dataset, samples = read(foreign.write())
    assert list(samples) == ["b"]
    (problem,) = dataset.problems
    assert named in problem
    assert "instances_train2017.json" in problem
    assert "annotation 1 of a" in problem


@pytest.mark.parametrize("empty", [[], [[]], None, {}])
def test_an_annotation_without_a_segmentation_costs_itself_alone(foreign, empty):
    foreign.annotate(18, [[2, 2, 9, 2, 9, 9]])
    foreign.annotate(18, empty)
    dataset, samples = read(foreign.write())
    assert (samples["a"].labels == 1).any()
    (problem,) = dataset.problems
    assert "annotation 2 of a has no segmentation" in problem


def test_boxes_alone_are_no_masks(foreign):
    foreign.annotate(18, [])
    with pytest.raises(DatasetError, match="boxes are no masks"):
        read(foreign.write())


@pytest.mark.parametrize("size", [(WIDTH * 2, HEIGHT * 2), (HEIGHT, WIDTH)])
def test_an_image_of_another_size_than_was_annotated_is_left_out(foreign, size):
    foreign.index["images"][0].update(width=size[0], height=size[1])
    foreign.annotate(18, [[2, 2, 9, 2, 9, 9]])
    dataset, samples = read(foreign.write())
    assert samples == {}
    assert f"{size[0]}×{size[1]}, but it is {WIDTH}×{HEIGHT}" in dataset.problems[0]


def test_two_images_with_one_id_are_left_out(foreign):
    foreign.add_image("b")
    foreign.add_image("c")
    number = foreign.index["images"][0]["id"]
    foreign.index["images"].append({"id": number, "file_name": "b.jpg"})
    foreign.index["images"].append({"id": number + 1, "file_name": "c.jpg"})
    foreign.annotate(18, [[2, 2, 9, 2, 9, 9]])
    dataset, samples = read(foreign.write())
    assert list(samples) == ["c"]
    assert f"2 images have the id {number}" in dataset.problems[0]


def test_annotations_of_images_that_are_not_listed_are_reported(foreign):
    foreign.annotate(18, [[2, 2, 9, 2, 9, 9]])
    for number in (77, "77"):
        stray = {**foreign.index["annotations"][0], "id": 9, "image_id": number}
        foreign.index["annotations"].append(stray)
    dataset, samples = read(foreign.write())
    assert list(samples) == ["a"]
    assert (
        "annotates 2 images that it does not list (the first has the id 77)"
        in (dataset.problems[0])
    )


def test_images_that_cannot_be_found_are_reported(foreign):
    (foreign.root.parent / "secret.jpg").write_bytes(
        (foreign.root / "train2017/a.jpg").read_bytes()
    )
    names = ["missing.jpg", "../../secret.jpg", "/etc/passwd", None, 7, "notes.txt"]
    for number, name in enumerate(names):
        foreign.index["images"].append({"id": number, "file_name": name})
    (foreign.root / "train2017/notes.txt").write_text("no image")
    dataset, samples = read(foreign.write())
    assert list(samples) == ["a"]
    assert len(dataset.problems) == len(names)


def test_two_images_of_one_name_are_reported(foreign):
    foreign.index["images"].append({"id": 2, "file_name": "a.png"})
    Image.new("RGB", (WIDTH, HEIGHT)).save(foreign.root / "train2017/a.png")
    dataset, samples = read(foreign.write())
    assert samples == {}
    assert "share the name 'a'" in dataset.problems[0]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("annotations/instances_default.json", "images"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("result.json", "images"),
        ("_annotations.coco.json", ""),
    ],
)
def test_indexes_and_images_are_found_where_tools_put_them(foreign, name, folder):
    (foreign.root / "train2017/a.jpg").unlink()
    foreign.add_image("a", folder)
    foreign.annotate(18, [[2, 2, 9, 2, 9, 9]])
    dataset, samples = read(foreign.write(name))
    assert (list(samples), dataset.problems) == (["a"], [])


def test_each_split_has_its_own_index(foreign):
    foreign.annotate(18, [[2, 2, 9, 2, 9, 9]])
    foreign.write()
    foreign.write("annotations/captions_train2017.json")
    foreign.write("annotations/instances_test2017.json")
    foreign.add_image("b", "val2017")
    foreign.index["images"][0]["file_name"] = "b.jpg"
    foreign.write("annotations/instances_val2017.json")
    dataset, samples = read(foreign.root)
    assert list(samples) == ["a"]
    held_out = open_dataset(foreign.root, validation=True)
    held_out.classes = dataset.classes
    (sample,) = held_out.validation_samples()
    assert (sample.key, sample.labels) == ("b", None)
    assert set(np.unique(sample.truth)) == {0, 1}
    foreign.write("annotations/panoptic_train2017.json")
    with pytest.raises(DatasetError, match="leave one"):
        open_dataset(foreign.root)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda index: index.pop("images"), "'images'"),
        (lambda index: index.update(annotations=7), "'annotations'"),
        (lambda index: index["categories"].append(7), "'categories'"),
        (lambda index: index["categories"].append({"id": "x", "name": "cow"}), "category"),
        (lambda index: index["categories"].append({"id": 5, "name": " "}), "category"),
        (lambda index: index["categories"].append({"id": 18, "name": "cow"}), "18"),
        (lambda index: index["categories"].append({"id": 5, "name": "dog"}), "'dog' twice"),
        (lambda index: index["images"].append({"file_name": "b.jpg"}), "image has no id"),
        (lambda index: index["annotations"].append({"id": 1}), "no image_id"),
        (lambda index: index["annotations"].append({"image_id": []}), "no image_id"),
    ],
)
def test_an_index_that_is_not_coco_is_refused(foreign, spoil, named):
    spoil(foreign.index)
    with pytest.raises(DatasetError, match=named) as raised:
        open_dataset(foreign.write())
    assert "instances_train2017.json" in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 100_000, "\xff", '{"images": 1' + "0" * 5000 + "}"]
)
def test_a_damaged_index_is_refused(foreign, text):
    (foreign.write() / "annotations/instances_train2017.json").write_text(text, "latin-1")
    with pytest.raises(DatasetError, match=r"instances_train2017\.json"):
        open_dataset(foreign.root)


@pytest.fixture
def panoptic(foreign):
    """Segments 26 and 4711 in an image, as panoptic COCO comes."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    ids[2:9, 3:12], ids[10:, :] = 26, 4711
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
    folder = foreign.root / "panoptic_train2017"
    folder.mkdir()
    Image.fromarray(colours.astype(np.uint8)).save(folder / "a.png")
    infos = [{"id": 26, "category_id": 90}, {"id": 4711, "category_id": 18}]
    foreign.index["annotations"] = [
        {"image_id": 397133, "file_name": "a.png", "segments_info": infos}
    ]
    return foreign


def test_panoptic_coco_is_read(panoptic):
    dataset, samples = read(panoptic.write("annotations/panoptic_train2017.json"))
    assert (dataset.classes, dataset.problems) == (["dog", "toothbrush"], [])
    labels = samples["a"].labels
    assert (labels[2:9, 3:12] == 1).all()
    assert (labels[10:] == 0).all()
    assert (labels[:2] == 255).all()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"segments_info": [{"id": 26, "category_id": 90}]}, "segment 4711"),
        ({"segments_info": [{"id": 26, "category_id": 91}]}, "category 91"),
        ({"segments_info": [{"id": [], "category_id": 90}]}, "segment 26"),
        ({"segments_info": None}, "segments_info"),
        ({"file_name": "../a.png"}, "'../a.png'"),
        ({"file_name": "b.png"}, "b.png"),
        ({"image_id": 5}, "0 annotations for a"),
    ],
)
def test_false_panoptic_annotations_cost_their_image(panoptic, changes, named):
    panoptic.index["annotations"][0].update(changes)
    dataset, samples = read(panoptic.write("annotations/panoptic_train2017.json"))
    assert samples == {}
    assert named in dataset.problems[-1]
