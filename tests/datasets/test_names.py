"""Keys: what is accepted at the import can be exported in every format and read back."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alc_backend.datasets.layouts import WRITERS, open_dataset
from alc_backend.datasets.names import MAX_PART_BYTES, checked_key
from alc_backend.datasets.plain_images import Images
from alc_backend.errors import DatasetError
from tests.conftest import CLASSES
from tests.datasets.made import READABLE, output_image, read


@pytest.mark.parametrize("key", [
    "a", "a.b", "ünï code", "картинка/猫", "it's (1), [2] & {3}; 100% #4 +~^`=@!$",
    "-rf", "train/a", "images/a", "labels/a", "_/a", "_", "a_leftImg8bit", "metadata", "d.png",
    "x" * MAX_PART_BYTES, "/".join(["x" * 180] * 5), "console", "🐈‍⬛",
])  # fmt: skip
def test_names_that_are_taken(key):
    assert checked_key(key) == key


@pytest.mark.parametrize(("key", "why"), [
    ("", "no path"), ("/a", "no path"), ("a//b", "no path"), ("../a", "no path"), (".", "no path"),
    ("a/", "no path"), ("a\\b", "Windows reserves"), ("a:b", "Windows reserves"),
    ("what?", "Windows reserves"), ("a\nb", "U\\+000A"), ("a\x1b[2J", "U\\+001B"),
    ("a\x00", "U\\+0000"), ("a\x85b", "U\\+0085"), ("a\u2028b", "U\\+2028"),
    ("\ufeffa", "U\\+FEFF"),
    ("a\u202egnp", "U\\+202E"), ("a\udce9", "not UTF-8"), ("x" * 201, "longer than 200"),
    ("猫" * 67, "longer than 200"), ("x" * 300, "longer"), ("/".join(["x" * 180] * 6), "1000"),
    ("con", "reserves the name"), ("a/NUL.b", "reserves the name"), ("Com1", "reserves the name"),
    (".a", "hidden"), (".git/a", "hidden"), ("d.png/e", "like an image"),
    ("D.JPEG/e", "like an image"), ("a./b", "end of the folder"), ("a /b", "end of the folder"),
])  # fmt: skip
def test_names_that_are_refused(key, why):
    with pytest.raises(DatasetError, match=why) as raised:
        checked_key(key)
    assert "rename the image" in str(raised.value)


def accepted(keys):
    """The keys that a reader takes of those that a dataset has."""
    return list(Images(Path(), CLASSES).unshared({key: [Path(f"{key}.png")] for key in keys}))


PARTS = st.text(
    st.characters() | st.sampled_from("aAbB./\\ é\u0301ß:\n\x1b-_~"), min_size=1, max_size=8
) | st.sampled_from(
    ["d", "d.png", "D.png", "d_leftImg8bit", "d_leftImg8bit.png", "_", "images", "train", "labels",
     "objects", "metadata", "x" * 200, "x" * 255, "nul", "a.txt", ".hidden"]
)  # fmt: skip
KEYS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


@settings(max_examples=25)
@given(st.lists(KEYS, min_size=1, max_size=5, unique=True))
@pytest.mark.parametrize("layout", READABLE)
def test_all_keys_that_are_accepted_can_be_exported_and_read_back(layout, keys):
    taken = accepted(keys)
    assume(taken)
    with tempfile.TemporaryDirectory() as folder:
        made = output_image(Path(folder), "a")
        root = Path(folder) / "exported"
        WRITERS[layout](root, CLASSES, [replace(made, key=key) for key in taken])
        dataset = open_dataset(root)
        assert (list(dataset.image_paths()), dataset.problems) == (sorted(taken), [])
        for key in taken:
            assert (dataset.labels(key, made.labels.shape) == made.labels).all()
            assert (dataset.superpixels(key, made.labels.shape) == made.superpixels).all()


def test_keys_that_are_one_on_other_systems_are_both_left_out():
    assert accepted(["A", "a", "b"]) == ["b"]
    assert accepted(["caf\u00e9", "cafe\u0301", "b"]) == ["b"]
    assert accepted(["d/E", "D/e", "b"]) == ["b"]


def test_an_import_names_the_keys_it_refuses(dataset):
    for folder in ("images", "pseudo_labels", "objects", "ground_truth"):
        (dataset / folder / "d.png").mkdir()
        shutil.copyfile(dataset / folder / "a.png", dataset / folder / "d.png/e.png")
        shutil.copyfile(dataset / folder / "a.png", dataset / folder / "a\\b.png")
    opened, samples = read(dataset)
    assert list(samples) == ["a", "b", "c"]
    assert any("'d.png/e'" in problem for problem in opened.problems)
    assert any(r"'a\\b'" in problem for problem in opened.problems)


def test_hidden_files_and_folders_are_passed_over(dataset):
    (dataset / "images/.ipynb_checkpoints").mkdir()
    shutil.copyfile(dataset / "images/a.png", dataset / "images/.ipynb_checkpoints/a.png")
    opened, samples = read(dataset)
    assert (list(samples), opened.problems) == (["a", "b", "c"], [])


@pytest.mark.parametrize("layout", READABLE)
def test_no_link_leads_out_of_a_dataset(tmp_path, layout):
    """Each file and each folder in turn lies outside, with a link in its place."""
    images = [output_image(tmp_path, key, seed=n) for n, key in enumerate(["town/a", "town/b"])]
    root, outside = tmp_path / "written", tmp_path / "outside"
    WRITERS[layout](root, CLASSES, iter(images))
    names = sorted(path.relative_to(root) for path in root.rglob("*"))
    assert len(names) > 8
    whole = keys_or_error(root)[0]
    assert whole == {"town/a", "town/b"}
    for name in names:
        if layout == "segmentation-mask" and {"SegmentationObject", "ImageSets"} & set(name.parts):
            continue  # not read beside objects/, and in a training dataset
        shutil.move(root / name, outside)
        (root / name).symlink_to(outside)
        got, error = keys_or_error(root)
        assert got < whole, f"{name} was followed"
        assert error is None or "is a link that leads out" in error
        (root / name).unlink()
        shutil.move(outside, root / name)
    assert keys_or_error(root)[0] == whole


def keys_or_error(root):
    """The keys of a dataset's samples, and why it cannot be used at all."""
    try:
        return {sample.key for sample in open_dataset(root).samples()}, None
    except DatasetError as error:
        return set(), str(error)


def test_links_that_stay_inside_are_followed(dataset):
    (dataset / "pseudo_labels/a.png").rename(dataset / "kept.png")
    (dataset / "pseudo_labels/a.png").symlink_to("../kept.png")
    renamed = dataset.with_name("renamed")
    renamed.symlink_to(dataset)  # the dataset itself may be a link
    opened, samples = read(renamed)
    assert (list(samples), opened.problems) == (["a", "b", "c"], [])


def test_class_names_are_not_read_from_elsewhere(dataset, tmp_path):
    (tmp_path / "secrets").write_text("password\nhunter2\n")
    (dataset / "classes.txt").unlink()
    (dataset / "classes.txt").symlink_to(tmp_path / "secrets")
    with pytest.raises(DatasetError, match="leads out") as raised:
        open_dataset(dataset)
    assert "hunter2" not in str(raised.value)


def test_links_in_a_circle_end(dataset):
    (dataset / "images/round.png").symlink_to("round.png")
    (dataset / "images/up").symlink_to("..")
    opened, samples = read(dataset)
    assert list(samples) == ["a", "b", "c"]
    assert len(opened.problems) == 2
