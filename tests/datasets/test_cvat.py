"""CVAT's files: made by hand as CVAT writes them, at random, and by whoever means harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alc_backend.datasets import cvat, cvat_xml
from alc_backend.datasets.colours import colours_of, ids_of
from alc_backend.datasets.dataset import OutputImage
from alc_backend.datasets.layouts import WRITERS, open_dataset
from alc_backend.errors import DatasetError
from tests.datasets.made import output_image, read

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>7</id><name>pets</name><mode>annotation</mode><labels>
    <label><name>dog</name><color>#c06060</color><type>any</type><attributes><attribute>
      <name>breed</name><mutable>False</mutable></attribute></attributes></label>
    <label><name>cat</name><color>#33ddff</color><type>any</type><attributes></attributes></label>
  </labels></task></meta>
"""
IMAGE = '<image id="0" name="a.png" width="6" height="4">'
DOG = '<mask label="dog" source="manual" occluded="0" rle="0, 3, 1, 2" left="1" top="1" width="3"'
DOG += ' height="2" z_order="0"/>'


def made(root, body, head=HEAD, shape=(4, 6)):
    """A folder as CVAT exports it, with one image."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", shape[::-1]).save(root / "images/a.png")
    (root / "annotations.xml").write_text(f"{head}{body}</annotations>", "utf-8")
    return root


def one(root, shapes):
    """The only sample of a folder with such shapes."""
    _, samples = read(made(root, f"{IMAGE}{shapes}</image>"))
    return samples["a"]


def test_masks_lie_where_cvat_puts_them(tmp_path):
    sample = one(tmp_path, DOG)
    assert sample.labels.tolist() == [
        [0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0],
    ]  # fmt: skip
    assert np.array_equal(sample.superpixels, sample.labels)


def test_the_labels_of_the_task_are_the_classes_and_background_is_added(tmp_path):
    dataset, _ = read(made(tmp_path, f"{IMAGE}{DOG}</image>"))
    assert dataset.classes == ["background", "dog", "cat"]
    assert "what was drawn" in dataset.notes[0]
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    dataset, samples = read(tmp_path)
    assert dataset.classes == ["cat", "dog"]
    assert set(np.unique(samples["a"].labels)) == {1, 255}  # nobody says what is not covered


def test_z_order_decides_what_lies_on_top_then_the_order_of_the_file(tmp_path):
    square = 'points="0,0;4,0;4,4;0,4"'
    sample = one(
        tmp_path,
        f'<polygon label="dog" {square} z_order="1"/><polygon label="cat" {square} z_order="0"/>'
        '<polygon label="cat" points="0,0;1,0;1,4;0,4" z_order="1"/>',
    )
    assert sample.labels[2].tolist() == [2, 1, 1, 1, 0, 0]
    assert sample.superpixels[2].tolist() == [2, 1, 1, 1, 0, 0]


def test_shapes_of_one_group_are_one_superpixel(tmp_path):
    sample = one(
        tmp_path,
        '<polygon label="dog" points="0,0;2,0;2,4;0,4" group_id="3"/>'
        '<polygon label="cat" points="4,0;6,0;6,4;4,4" group_id="3"/>'
        '<polygon label="cat" points="2,0;4,0;4,4;2,4"/>',
    )
    assert sample.superpixels[0].tolist() == [1, 1, 2, 2, 1, 1]


def test_the_label_ignore_is_void(tmp_path):
    sample = one(tmp_path, DOG.replace("dog", "ignore"))
    assert sample.labels[1].tolist() == [0, 255, 255, 255, 0, 0]
    assert sample.superpixels.max() == 0


def test_boxes_points_and_tracks_are_no_masks(tmp_path):
    box = '<box label="dog" xtl="0" ytl="0" xbr="3" ybr="2"/><tag label="cat"/>'
    dataset, samples = read(made(tmp_path, f"{IMAGE}{DOG}{box}</image>"))
    assert list(samples) == ["a"]
    assert "1 shapes of the kind 'box'" in dataset.problems[0]
    with pytest.raises(DatasetError, match="neither masks nor polygons"):
        open_dataset(made(tmp_path, f"{IMAGE}{box}</image>"))
    with pytest.raises(DatasetError, match="tracks of a video"):
        open_dataset(made(tmp_path, '<track id="0" label="dog"></track>'))


def test_images_of_projects_lie_in_the_folder_of_their_subset(tmp_path):
    made(tmp_path, IMAGE.replace("id=", 'subset="Train" id=') + DOG + "</image>")
    (tmp_path / "images/Train").mkdir()
    (tmp_path / "images/a.png").rename(tmp_path / "images/Train/a.png")
    assert list(read(tmp_path)[1]) == ["a"]


def test_images_may_lie_elsewhere(tmp_path):
    root, elsewhere = made(tmp_path / "export", f"{IMAGE}{DOG}</image>"), tmp_path / "elsewhere"
    (root / "images").rename(elsewhere)
    assert [sample.key for sample in cvat.open_cvat(root, images=elsewhere).samples()] == ["a"]
    opened, samples = read(root)
    assert samples == {}
    assert "--images" in opened.problems[0]
    (tmp_path / "secret.png").symlink_to(elsewhere / "a.png")
    (elsewhere / "a.png").rename(tmp_path / "b.png")
    (elsewhere / "a.png").symlink_to(tmp_path / "b.png")
    opened = cvat.open_cvat(root, images=elsewhere)
    assert list(opened.samples()) == []
    assert "leads out" in opened.problems[0]


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        (DOG.replace('left="1"', 'left="4"'), "beyond the image"),
        (DOG.replace('left="1"', 'left="-1"'), "box"),
        (DOG.replace('width="3"', 'width="0"'), "box"),
        (DOG.replace('left="1"', ""), "left"),
        (DOG.replace('label="dog"', ""), "label"),
        (DOG.replace('label="dog"', 'label="cow"'), "'cow'"),
        (DOG.replace("0, 3", "9, 3"), "do not add up"),
        (DOG.replace("0, 3, 1, 2", "9, -3"), "do not add up"),
        (DOG.replace("0, 3", "many"), "mask 2 ('dog') has run lengths that are no numbers"),
        (DOG.replace("0, 3", "9" * 5000), "mask 2 ('dog') has run lengths that are no numbers"),
        (DOG.replace('top="1"', f'top="{"9" * 5000}"'), "number"),
        ('<polygon label="dog" points="1,1;2,2"/>', "polygon 2 ('dog') has "),
        ('<polygon label="dog" points="1,1;2,2;3"/>', "polygon 2 ('dog') has "),
        ('<polygon label="dog" points="1,1;2,2;nan,1"/>', "polygon 2 ('dog') has "),
        ('<polygon label="dog" points="1,1;2,2;1e300,1"/>', "polygon 2 ('dog') has "),
        ('<polygon label="dog" points=""/>', "polygon 2 ('dog') has "),
    ],
)
def test_a_damaged_shape_costs_its_image_alone(tmp_path, shape, named):
    other = IMAGE.replace("a.png", "b.png")
    made(tmp_path, f"{IMAGE}{DOG}{shape}</image>{other}{DOG}</image>")
    Image.new("RGB", (6, 4)).save(tmp_path / "images/b.png")
    dataset, samples = read(tmp_path)
    assert list(samples) == ["b"]
    (problem,) = dataset.problems
    assert "a.png" in problem
    assert named in problem
    assert "; " in problem  # the remedy


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (IMAGE.replace('width="6"', 'width="7"'), "7×4"),
        (IMAGE.replace('width="6"', ""), "width"),
        (IMAGE.replace("a.png", "../a.png"), "rename"),
        (IMAGE.replace("a.png", "none.png"), "none.png"),
        (IMAGE.replace('name="a.png"', ""), "rename"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(tmp_path, body, named):
    dataset, samples = read(made(tmp_path, f"{body}{DOG}</image>"))
    assert samples == {}
    assert named in dataset.problems[0]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "not XML"),
        ("<annotations>", "not XML"),
        ("<html></html>", "<html>"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotations>&x;</annotations>', "DOCTYPE"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>', "DOCTYPE"),
        (f"<annotations>{'<a>' * 100_000}", "nested"),
        ("<annotations/>", "2 to 255 are possible"),
    ],
)
def test_a_file_that_is_none_of_cvat_is_refused(tmp_path, text, named):
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(DatasetError, match=named) as raised:
        open_dataset(tmp_path)
    assert "annotations.xml" in str(raised.value)


def test_a_file_that_is_too_large_is_refused(tmp_path):
    made(tmp_path, "")
    with (tmp_path / "annotations.xml").open("r+b") as file:
        file.truncate(cvat_xml.MAX_BYTES + 1)
    with pytest.raises(DatasetError, match="larger than"):
        open_dataset(tmp_path)


def test_many_shapes_over_a_large_image_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cvat, "MAX_PAINTED", 60 * 400 * 400)
    big = '<mask label="dog" rle="0, 160000" left="0" top="0" width="400" height="400"/>'
    body = IMAGE.replace('width="6" height="4"', 'width="400" height="400"')
    made(tmp_path, f"{body}{big * 61}</image>", shape=(400, 400))
    dataset, samples = read(tmp_path)
    assert samples == {}
    assert "cover too much" in dataset.problems[0]


def test_a_name_too_long_for_any_file_stops_no_other(tmp_path):
    body = IMAGE.replace("<image ", "<image ", 1)
    long = body.replace('name="', f'name="{"x" * 5000}', 1).replace('id="0"', 'id="1"')
    made(tmp_path, f"{body}</image>{long}</image>")
    dataset, samples = read(tmp_path)
    assert len(samples) == 1
    assert "there is no such image" in dataset.problems[0]


@pytest.mark.parametrize(("layout", "name"), [("cvat", "a\x01b"), ("segmentation-mask", "a:b")])
def test_class_names_that_a_format_cannot_hold_are_refused(tmp_path, layout, name):
    root = tmp_path / "written"
    root.mkdir()
    with pytest.raises(DatasetError, match=r"rename|choose"):
        WRITERS[layout](root, ["background", name], iter([output_image(tmp_path, "a")]))


@st.composite
def maps(draw):
    """Class names, and label and superpixel maps with void and all kinds of pieces."""
    classes = draw(
        st.sampled_from(
            [["background", "cat", "dog"], ["cat", "bg"], ["cat", "dog"], ["ignore", "other", "a"]]
        )
    )
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    count = height * width
    values = st.sampled_from([*range(len(classes)), 255])
    labels = draw(st.lists(values, min_size=count, max_size=count))
    numbers = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    return (
        classes,
        np.array(labels, dtype=np.uint8).reshape(height, width),
        np.array(numbers, dtype=np.int32).reshape(height, width),
    )


@pytest.mark.parametrize("layout", ["cvat", "segmentation-mask"])
def test_random_masks_come_back_pixel_for_pixel(tmp_path_factory, layout):
    @settings(max_examples=60, deadline=None)
    @given(maps())
    def comes_back(made):
        classes, labels, superpixels = made
        root = tmp_path_factory.mktemp("written")
        Image.new("RGB", labels.shape[::-1]).save(root / "source.png")
        image = OutputImage("a", ".png", root / "source.png", labels, superpixels)
        WRITERS[layout](root / "out", classes, iter([image]))
        dataset, samples = read(root / "out")
        assert (dataset.classes, dataset.problems) == (classes, [])
        assert np.array_equal(samples["a"].labels, labels)
        assert np.array_equal(samples["a"].superpixels, superpixels)
        (root / "out/objects/a.png").unlink()
        (root / "out/objects").rmdir()
        alone = read(root / "out")[1]["a"]
        assert np.array_equal(alone.labels, labels)
        drawn = alone.superpixels > 0  # no superpixel of two that were apart, but for background
        pairs = set(zip(alone.superpixels[drawn], superpixels[drawn], strict=True))
        assert len(dict(pairs)) == len(pairs)

    comes_back()


def test_masks_are_those_of_cvats_own_library(tmp_path):
    masks = pytest.importorskip("cvat_sdk.masks", reason="cvat-sdk is not installed")
    root = tmp_path / "written"
    root.mkdir()
    image = output_image(tmp_path, "a")
    WRITERS["cvat"](root, ["background", "cat", "dog"], iter([image]))
    (record,) = cvat_xml.read(root / "annotations.xml").records
    height, width = image.labels.shape
    labels = np.zeros(image.labels.shape, dtype=np.uint8)
    for shape in record.shapes:
        left, top, wide, high = shape.box
        counts = [int(count) for count in shape.points.split(",")]
        points = [*counts, left, top, left + wide - 1, top + high - 1]
        mask = masks.decode_mask(points, image_width=width, image_height=height)
        labels[mask] = {"cat": 1, "dog": 2, "ignore": 255}[shape.label]
        assert masks.encode_mask(mask, [left, top, left + wide, top + high]) == points
    assert np.array_equal(labels, image.labels)


def test_each_id_has_a_colour_of_its_own_and_back():
    ids = np.concatenate([np.arange(70_000), [2**24 - 1]])
    colours = colours_of(ids)
    assert len(np.unique(colours)) == len(ids)
    assert np.array_equal(ids_of(colours), ids)


def test_a_labelmap_names_background_black_and_no_class_in_the_colour_of_void(tmp_path):
    root = tmp_path / "written"
    classes = [f"c{n}" for n in range(254)]
    WRITERS["segmentation-mask"](root, [*classes, "bg"], iter([]))
    lines = (root / "labelmap.txt").read_text().splitlines()[1:]
    assert lines[0] == "c0:128,0,0::"
    assert lines[254] == "bg:0,0,0::"
    assert not [line for line in lines if ":224,224,192:" in line]
