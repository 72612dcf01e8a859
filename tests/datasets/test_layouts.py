"""Every layout is read as it was written, by us and by the readers that others use."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from alc_backend.datasets import cityscapes, voc
from alc_backend.datasets.dataset import OutputImage
from alc_backend.datasets.images import voc_palette
from alc_backend.datasets.layouts import WRITERS, open_dataset
from alc_backend.errors import DatasetError
from tests.conftest import CLASSES
from tests.datasets.made import KEYS, READABLE, SHAPE, output_image, read


@pytest.fixture
def images(tmp_path):
    return [output_image(tmp_path, key, seed=number) for number, key in enumerate(sorted(KEYS))]


@pytest.fixture(params=READABLE)
def layout(request):
    return request.param


def written(tmp_path, layout, images, classes=CLASSES):
    root = tmp_path / "written"
    root.mkdir()
    WRITERS[layout](root, classes, iter(images))
    return root


def assert_same(samples, images):
    assert sorted(samples) == sorted(image.key for image in images)
    for expected in images:
        sample = samples[expected.key]
        assert np.array_equal(sample.labels, expected.labels)
        assert np.array_equal(sample.superpixels, expected.superpixels)
        assert sample.labels.dtype == np.uint8
        assert sample.superpixels.dtype == np.int32
        assert sample.path.read_bytes() == expected.path.read_bytes()


def test_what_is_written_is_read_again(tmp_path, layout, images):
    dataset, samples = read(written(tmp_path, layout, images))
    assert dataset.problems == []
    assert dataset.classes == CLASSES
    assert_same(samples, images)


@pytest.mark.parametrize(
    "classes",
    [["cat", "Background", "dog"], ["cat", "dog"], ["sofa", "road", "bus"], CLASSES[::-1]],
)
def test_classes_keep_their_names_and_ids(tmp_path, layout, classes):
    made = [output_image(tmp_path, "a", classes=classes)]
    dataset, samples = read(written(tmp_path, layout, made, classes))
    assert (dataset.classes, dataset.problems) == (classes, [])
    assert_same(samples, made)


def test_255_classes_fit_into_every_layout(tmp_path, layout):
    classes = [f"class {number}" for number in range(255)]
    made = [output_image(tmp_path, "a", classes=classes)]
    made[0].labels[0, :41] = np.arange(214, 255)
    dataset, samples = read(written(tmp_path, layout, made, classes))
    assert (dataset.classes, dataset.problems) == (classes, [])
    assert_same(samples, made)


@pytest.mark.parametrize("largest", [300, 65_536, 2**24 - 1])
def test_large_superpixel_ids_survive(tmp_path, layout, largest):
    made = [output_image(tmp_path, "a", largest=largest)]
    assert largest in made[0].superpixels
    _, samples = read(written(tmp_path, layout, made))
    assert_same(samples, made)


def test_superpixel_ids_that_no_png_holds_are_refused(tmp_path, layout):
    with pytest.raises(DatasetError, match="renumber"):
        written(tmp_path, layout, [output_image(tmp_path, "a", largest=2**24)])


def test_an_image_that_is_void_all_over_survives(tmp_path, layout):
    made = [output_image(tmp_path, "a")]
    made[0].labels[:] = 255
    dataset, samples = read(written(tmp_path, layout, made))
    assert dataset.problems == []
    assert_same(samples, made)


def test_without_superpixel_maps_slic_makes_them(tmp_path, layout, images):
    if layout == "cvat":
        pytest.skip("what was drawn becomes the superpixels")
    root = written(tmp_path, layout, images)
    for folder in [*root.rglob("objects"), *root.rglob("SegmentationObject")]:
        folder.rename(tmp_path / folder.name)
    _, samples = read(root, superpixel_count=9)
    assert all(sample.superpixels.min() == 1 for sample in samples.values())


def test_any_layout_may_have_ground_truth(tmp_path, layout, images):
    """What `alc simulate` answers from."""
    root = written(tmp_path, layout, images)
    assert all(sample.truth is None for sample in read(root)[1].values())
    for made in images:
        path = open_dataset(root).root / f"ground_truth/{made.key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made.labels // 255).save(path)
    _, samples = read(root)
    for made in images:
        assert np.array_equal(samples[made.key].truth, made.labels // 255)


def test_images_can_be_left_out_and_put_back(tmp_path, layout, images):
    bare = [OutputImage(p.key, p.suffix, None, p.labels, p.superpixels) for p in images]
    root = written(tmp_path, layout, bare)
    assert read(root)[1] == {}
    whole = tmp_path / "whole"
    WRITERS[layout](whole, CLASSES, iter(images))
    shown = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    kept = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    assert len(shown - kept) == len(images)
    for name in shown - kept:
        (root / name).write_bytes((whole / name).read_bytes())
    assert_same(read(root)[1], images)


@pytest.mark.parametrize(
    "key", ["../evil", "/evil", "a/../../evil", "a//b", "", ".", "a\\b", "a\nb", "a\x00b"]
)
def test_keys_that_lead_elsewhere_are_refused(tmp_path, layout, key):
    made = output_image(tmp_path, "a")
    strange = OutputImage(key, made.suffix, made.path, made.labels, made.superpixels)
    root = tmp_path / "inner" / "written"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DatasetError, match="rename the image"):
        WRITERS[layout](root, CLASSES, iter([strange]))
    outside = [path for path in tmp_path.rglob("*") if tmp_path / "inner" not in path.parents]
    assert sorted({*outside} - {tmp_path / "inner"}) == before


def test_masks_are_palette_images_in_the_colours_of_voc(tmp_path, images):
    root = written(tmp_path, "voc", images)
    for made in images:
        with Image.open(root / "SegmentationClass" / f"{made.key}.png") as mask:
            assert mask.mode == "P"
            assert mask.getpalette() == voc_palette()
            assert np.array_equal(np.asarray(mask), made.labels)
    listed = (root / "ImageSets/Segmentation/train.txt").read_text("utf-8").splitlines()
    assert listed == [made.key for made in images]
    assert (root / "labels.txt").read_text().split() == CLASSES


def test_a_real_voc_folder_has_the_classes_of_voc(tmp_path, images):
    root = written(tmp_path, "voc", images)
    (root / "labels.txt").unlink()
    listed = root / "ImageSets/Segmentation/train.txt"
    listed.write_bytes(b"a\r\n_/e\r\n\r\n")
    dataset, samples = read(root)
    assert dataset.classes == voc.CLASSES
    assert len(voc.CLASSES) == 21
    assert list(samples) == ["_/e", "a"]
    listed.unlink()
    assert len(read(root)[1]) == len(images)  # without a list, every mask counts


def test_listed_images_that_are_missing_are_reported(tmp_path, images):
    root = written(tmp_path, "voc", images)
    with (root / "ImageSets/Segmentation/train.txt").open("a") as file:
        file.write("nowhere\n../../outside\n")
    (root / "SegmentationClass/a.png").unlink()
    dataset, samples = read(root)
    assert len(samples) == len(images) - 1
    assert sorted(problem.split(":")[0] for problem in dataset.problems) == [
        "JPEGImages/../../outside",
        "JPEGImages/nowhere",
        "image a",
    ]


def test_validation_images_come_from_their_own_split(tmp_path, images):
    root = written(tmp_path, "voc", images)
    with pytest.raises(DatasetError, match=r"val\.txt"):
        open_dataset(root, validation=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("a\n")
    dataset = open_dataset(root, validation=True)
    dataset.classes = CLASSES
    (sample,) = dataset.validation_samples()
    assert (sample.key, sample.labels) == ("a", None)
    assert np.array_equal(sample.truth, next(p for p in images if p.key == "a").labels)


@pytest.mark.parametrize("name", ["labels.txt", "classes.txt", "class_names.txt"])
def test_each_class_list_of_voc_is_read(tmp_path, images, name):
    root = written(tmp_path, "voc", images)
    (root / "labels.txt").rename(root / name)
    dataset, samples = read(root)
    assert (dataset.classes, dataset.problems, dataset.notes) == (CLASSES, [], [])
    assert_same(samples, images)


def test_without_a_class_list_it_is_told_that_the_classes_are_those_of_voc(tmp_path, images):
    root = written(tmp_path, "voc", images)
    (root / "labels.txt").unlink()
    (note,) = read(root)[0].notes
    assert "21 of PASCAL VOC" in note


def test_class_lists_that_differ_are_refused(tmp_path, images):
    root = written(tmp_path, "voc", images)
    (root / "class_names.txt").write_text("dog\ncat\nbackground\n")
    with pytest.raises(DatasetError, match=r"labels\.txt and class_names\.txt name other classes"):
        open_dataset(root)


LABEL_MAP = """# label:color_rgb:parts:actions
dog:0,128,0::
background:0,0,0::
cat:128,0,0:head,tail:
"""
"""As CVAT writes it; the order is not that of VOC's palette."""


@pytest.fixture
def cvat(tmp_path, images):
    """VOC's layout as CVAT exports it, with masks in colours."""
    root = written(tmp_path, "voc", images)
    (root / "labels.txt").unlink()
    (root / "labelmap.txt").write_text(LABEL_MAP)
    return root


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_coloured_masks_are_read_by_their_labelmap(cvat, images, mode):
    for path in (cvat / "SegmentationClass").rglob("*.png"):
        with Image.open(path) as mask:
            mask.convert(mode).save(path)
    dataset, samples = read(cvat)
    assert (dataset.classes, dataset.problems) == (["dog", "background", "cat"], [])
    for made in images:
        named = np.select([made.labels == c for c in range(3)], [1, 2, 0], 255)
        assert np.array_equal(samples[made.key].labels, named)


def test_grey_masks_beside_a_labelmap_hold_ids(cvat, images):
    Image.fromarray(images[0].labels).save(cvat / f"SegmentationClass/{images[0].key}.png")
    _, samples = read(cvat)
    assert np.array_equal(samples[images[0].key].labels, images[0].labels)


@pytest.mark.parametrize(("mode", "colour", "named"), [
    ("RGB", (1, 2, 3), "(1, 2, 3)"), ("L", 3, "holds 3,"),
])  # fmt: skip
def test_colours_without_a_class_cost_their_image(cvat, mode, colour, named):
    Image.new(mode, SHAPE[::-1], colour).save(cvat / "SegmentationClass/a.png")
    dataset, samples = read(cvat)
    assert "a" not in samples
    assert named in dataset.problems[0]


@pytest.mark.parametrize(("line", "named"), [
    ("sofa", "sofa"), ("sofa:1,2", "sofa"), ("sofa:1,2,256::", "sofa"), ("sofa:a,b,c::", "sofa"),
    ("sofa:128,0,0::", "one colour"), ("cat:9,9,9::", "twice"),
])  # fmt: skip
def test_a_wrong_labelmap_is_refused(cvat, line, named):
    (cvat / "labelmap.txt").write_text(LABEL_MAP + line)
    with pytest.raises(DatasetError, match=named) as raised:
        open_dataset(cvat)
    assert "labelmap.txt" in str(raised.value)


def as_validation(root, layout, classes):
    """Make what was written the validation images of its layout."""
    if layout == "voc":
        (root / "ImageSets/Segmentation/train.txt").rename(root / "ImageSets/Segmentation/val.txt")
    elif layout == "segmentation-mask":
        folder = root / "ImageSets/Segmentation"
        (folder / "default.txt").rename(folder / "val.txt")
    elif layout == "torchvision":
        folder = root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
        (folder / "train.txt").rename(folder / "val.txt")
    elif layout == "mmseg":
        for folder in ("img_dir", "ann_dir"):
            (root / folder / "train").rename(root / folder / "val")
    elif layout == "cityscapes":
        for folder in ("leftImg8bit", "gtFine"):
            (root / folder / "train").rename(root / folder / "val")
    elif layout == "huggingface":
        (root / "train").rename(root / "validation")
    elif layout == "dataset":
        (root / "labels").rename(root / "ground_truth")
    elif layout != "cvat":  # which knows no splits
        for path in sorted((root / "annotations").iterdir()):
            path.rename(path.with_name(path.name.replace("train", "val")))
    dataset = open_dataset(root, validation=True)
    dataset.use_classes(classes)
    return dataset


@pytest.mark.parametrize(
    "order", [["dog", "cat", "background"], ["sofa", "background", "dog", "cat"]]
)
def test_classes_of_validation_images_are_matched_by_name(tmp_path, layout, images, order):
    dataset = as_validation(written(tmp_path, layout, images), layout, order)
    samples = {sample.key: sample for sample in dataset.validation_samples()}
    assert dataset.problems == []
    for made in images:
        named = np.select(
            [made.labels == c for c in range(3)], [order.index(name) for name in CLASSES], 255
        )
        assert np.array_equal(samples[made.key].truth, named)


def test_a_class_that_training_images_do_not_have_costs_the_image(tmp_path, layout, images):
    images[0].labels[images[0].labels == 2] = 0
    dataset = as_validation(written(tmp_path, layout, images), layout, ["background", "cat"])
    samples = [sample.key for sample in dataset.validation_samples()]
    assert samples == [images[0].key]
    assert len(dataset.problems) == len(images) - 1


def test_validation_images_without_a_known_class_are_refused(tmp_path, images):
    root = written(tmp_path, "voc", images)
    with pytest.raises(DatasetError, match="none of which"):
        as_validation(root, "voc", ["road", "sky"])


def test_cityscapes_has_its_own_ids_and_names(tmp_path):
    classes = ["sofa", "road", "car"]
    made = [output_image(tmp_path, key, classes=classes) for key in ("aachen/x_1", "y")]
    root = written(tmp_path, "cityscapes", made, classes)
    assert json.loads((root / "labelIds.json").read_text()) == {"sofa": 34, "road": 7, "car": 26}
    assert (root / "leftImg8bit/train/aachen/x_1_leftImg8bit.png").is_file()
    assert (root / "leftImg8bit/train/_/y_leftImg8bit.png").is_file()
    mask = np.asarray(Image.open(root / "gtFine/train/aachen/x_1_gtFine_labelIds.png"))
    expected = np.select([made[0].labels == c for c in range(3)], [34, 7, 26], 0)
    assert np.array_equal(mask, expected)


def test_cityscapes_takes_a_file_of_ids(tmp_path):
    made = [output_image(tmp_path, "a")]
    given = {"dog": 3, "cat": 255, "background": 1, "unused": 9}
    root = tmp_path / "written"
    cityscapes.write(root, CLASSES, made, given)
    mask = np.asarray(Image.open(root / "gtFine/train/_/a_gtFine_labelIds.png"))
    assert set(np.unique(mask)) == {0, 1, 3, 255}
    dataset, samples = read(root)
    assert dataset.classes == CLASSES
    assert_same(samples, made)
    with pytest.raises(DatasetError, match="'dog'"):
        cityscapes.write(root, CLASSES, made, {"cat": 1, "background": 2})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[1, 2]", "object"),
        ('{"a": 1, "b": 1}', "'a' and 'b'"),
        ('{"a": 0, "b": 1}', "void"),
        ('{"a": 256, "b": 1}', "256"),
        ('{"a": "7", "b": 1}', "'7'"),
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_a_wrong_file_of_ids_is_refused(tmp_path, text, named):
    path = tmp_path / "ids.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=named) as raised:
        cityscapes.read_mapping(path)
    assert "ids.json" in str(raised.value)


def test_real_cityscapes_has_the_19_classes_of_its_evaluation(tmp_path):
    made = [output_image(tmp_path, "aachen/a")]
    root = written(tmp_path, "cityscapes", made)
    (root / "labelIds.json").unlink()
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[0], ids[1], ids[2] = 7, 33, 4  # road, bicycle, static
    Image.fromarray(ids).save(root / "gtFine/train/aachen/a_gtFine_labelIds.png")
    dataset, samples = read(root)
    assert (len(dataset.classes), dataset.problems) == (19, [])
    labels = samples["aachen/a"].labels
    assert [labels[row, 0] for row in range(4)] == [0, 18, 255, 255]


def test_ids_that_the_mapping_does_not_name_are_reported(tmp_path):
    made = [output_image(tmp_path, key) for key in ("a", "b")]
    root = written(tmp_path, "cityscapes", made)
    Image.new("L", SHAPE[::-1], 99).save(root / "gtFine/train/_/a_gtFine_labelIds.png")
    dataset, samples = read(root)
    assert list(samples) == ["b"]
    assert "99" in dataset.problems[0]
    assert "labelIds.json" in dataset.problems[0]


def test_hugging_face_names_images_masks_and_classes(tmp_path, images):
    root = written(tmp_path, "huggingface", images)
    rows = [json.loads(line) for line in (root / "train/metadata.jsonl").open(encoding="utf-8")]
    assert [row["image_id"] for row in rows] == [made.key for made in images]
    for row, made in zip(rows, images, strict=True):
        assert (root / "train" / row["file_name"]).read_bytes() == made.path.read_bytes()
        mask = np.asarray(Image.open(root / "train" / row["label_file_name"]))
        assert np.array_equal(mask, made.labels)
    assert json.loads((root / "id2label.json").read_text()) == dict(
        zip("012", CLASSES, strict=True)
    )


def test_hugging_face_folders_from_elsewhere_are_read(tmp_path, images):
    root = tmp_path / "elsewhere"
    root.mkdir()
    for made in images[:2]:
        name = made.key.replace("/", "-")
        (root / f"{name}.png").write_bytes(made.path.read_bytes())
        Image.fromarray(made.labels).save(root / f"{name}-mask.png")
    names = [made.key.replace("/", "-") for made in images[:2]]
    rows = [{"file_name": f"{n}.png", "mask": f"{n}-mask.png", "text": "a pet"} for n in names]
    lines = [json.dumps(row) for row in rows]
    lines += ['{"file_name": "none.png", "mask": "x.png"}', '{"file_name": "a.png"}', "7"]
    lines += ['{"file_name": "../a.png", "mask": "a.png"}']
    (root / "metadata.jsonl").write_text("\n".join(lines))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    dataset, samples = read(root)
    assert list(samples) == names
    assert np.array_equal(samples[names[0]].labels, images[0].labels)
    assert len(dataset.problems) == 4
    (root / "metadata.jsonl").write_text('{"file_name": 1}\n{oops')
    with pytest.raises(DatasetError, match="line 2 is not JSON"):
        read(root)


@pytest.mark.parametrize("text", ["[]", "{}", '{"0": "a", "2": "b"}', '{"0": 1, "1": 2}', "{"])
def test_wrong_class_names_of_hugging_face_are_refused(tmp_path, images, text):
    root = written(tmp_path, "huggingface", images)
    (root / "id2label.json").write_text(text)
    with pytest.raises(DatasetError, match=r"id2label\.json"):
        open_dataset(root)


def test_a_folder_without_any_layout_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="VOC, COCO, Cityscapes, Hugging Face, CVAT"):
        open_dataset(tmp_path)
