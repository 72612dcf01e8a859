"""Every row of docs/formats.md: read, converted or refused, and shown alike by Chromium."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import alc_backend
from alc_backend.datasets.images import read_ids, read_image, read_mask
from alc_backend.datasets.layouts import open_dataset
from alc_backend.datasets.names import is_image
from alc_backend.errors import DatasetError
from tests.conftest import write_dataset
from tests.datasets import formats
from tests.datasets.formats import (
    IDS,
    PROFILED,
    READ_IMAGES,
    READ_MASKS,
    REFUSED_IMAGES,
    REFUSED_MASKS,
)
from tests.datasets.made import read
from tests.e2e.browser import chromium

DOCS = Path(__file__).parents[2] / "docs/formats.md"

DRAWN = """async (bytes) => {
    const image = new Image();
    image.src = "data:application/octet-stream;base64," + bytes;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0);
    const shown = context.getImageData(0, 0, canvas.width, canvas.height);
    return [canvas.height, canvas.width, Array.from(shown.data)];
}"""


def named(files):
    return [pytest.param(file, id=f"{n} {file.row}") for n, file in enumerate(files)]


def rows_of(heading):
    """The first cells of the table below a heading of the page."""
    section = DOCS.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [line.split(" | ")[0].removeprefix("| ") for line in lines[1:]]


def test_the_tables_have_a_row_for_each_file_that_is_tested_and_no_other():
    images = dict.fromkeys(file.row for file in (*READ_IMAGES, *REFUSED_IMAGES))
    assert rows_of("Images") == list(images)
    masks = dict.fromkeys(file.row for file in (*READ_MASKS, *REFUSED_MASKS))
    assert rows_of("Masks") == [
        *masks,
        "255",
        "0 and 255 alone, black and white, in all masks",
        "another size than its image",
        "an id that is no class",
    ]


@pytest.mark.parametrize("file", named(REFUSED_IMAGES))
def test_images_that_are_refused(tmp_path, file):
    (tmp_path / "a.png").write_bytes(file.content)
    with pytest.raises(DatasetError, match=r"^a\.png: ") as raised:
        read_image(tmp_path / "a.png")
    assert str(raised.value).count("; ") == 1  # the remedy


@pytest.mark.browser
def test_images_are_read_as_chromium_shows_them(tmp_path):
    path = tmp_path / "a.png"
    wrong = []
    with chromium() as browser:
        page = browser.new_page()
        for number, file in enumerate(READ_IMAGES):
            path.write_bytes(file.content)
            ours = read_image(path)
            height, width, values = page.evaluate(DRAWN, base64.b64encode(file.content).decode())
            shown = np.array(values, dtype=np.uint8).reshape(height, width, 4)[..., :3]
            if ours.shape != shown.shape:
                wrong.append(f"{number} {file.row}: {ours.shape}, shown as {shown.shape}")
                continue
            apart = int(np.abs(ours.astype(int) - shown).max())
            if file.shown_alike and apart > 2:
                wrong.append(f"{number} {file.row}: {apart} apart")
    assert wrong == []


@pytest.mark.parametrize("file", named(READ_IMAGES))
def test_images_that_are_read_look_like_the_original(tmp_path, file):
    """What needs no browser to be known: size, direction, and that nothing turns white."""
    (tmp_path / "a.png").write_bytes(file.content)
    found = read_image(tmp_path / "a.png")
    assert found.dtype == np.uint8
    assert found.shape in [(16, 24, 3), (24, 16, 3)]
    assert found.std() > 5
    assert found.mean() < 250
    if file.row == PROFILED:
        assert np.array_equal(found, formats.COLOURS)


def test_16_bit_images_keep_their_higher_bits(tmp_path):
    (tmp_path / "a.png").write_bytes(formats.png(16, 0, formats.GREY16))
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 1], formats.GREY16 >> 8)


@pytest.mark.parametrize("file", named(READ_MASKS))
def test_masks_that_are_read(tmp_path, file):
    (tmp_path / "a.png").write_bytes(file.content)
    found = read_mask(tmp_path / "a.png")
    one_bit = file is next(mask for mask in READ_MASKS if mask.row.startswith("PNG, 1, 2"))
    assert found.dtype == np.int64
    assert np.array_equal(found, IDS > 0 if one_bit else IDS)


@pytest.mark.parametrize("file", named(REFUSED_MASKS))
def test_masks_that_are_refused(tmp_path, file):
    (tmp_path / "a.png").write_bytes(file.content)
    with pytest.raises(DatasetError, match=r"^a\.png: ") as raised:
        read_mask(tmp_path / "a.png")
    assert str(raised.value).count("; ") == 1


def test_colours_of_16_bits_are_no_ids(tmp_path):
    (tmp_path / "a.png").write_bytes(formats.png(16, 2, np.dstack([IDS] * 3)))
    with pytest.raises(DatasetError, match="16 bit colours"):
        read_ids(tmp_path / "a.png")


def test_no_decoder_but_those_of_the_list_is_tried(tmp_path, monkeypatch):
    """PostScript under an image's name would run Ghostscript."""
    ran = tmp_path / "ran"
    ghostscript = tmp_path / "bin/gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg", "EPS")
    for reader in (read_image, read_mask, read_ids):
        with pytest.raises(DatasetError):
            reader(tmp_path / "a.jpg")
    assert not ran.exists()


def test_every_image_is_opened_with_a_list_of_formats():
    """A file that Pillow opens without one is open to all its decoders."""
    opened = [
        f"{path.name}: {line.strip()}"
        for path in Path(alc_backend.__file__).parent.rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if "Image.open(" in line
    ]
    assert opened
    assert [line for line in opened if "formats=" not in line] == []


def test_what_label_studio_refuses_is_refused_at_the_import(dataset):
    Image.open(dataset / "images/a.png").save(dataset / "images/a.tif")
    (dataset / "images/a.png").unlink()
    opened, samples = read(dataset)
    assert list(samples) == ["b", "c"]
    assert "images/a.tif: not an image; remove it or convert it to PNG" in opened.problems


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.avif", "a.svg", "a", "a.npy"])
def test_extensions_that_are_no_images(name):
    assert not is_image(Path(name))


@pytest.mark.parametrize("name", ["a.JPG", "a.Jpeg", "a.png", "a.WEBP", "a.gif", "a.bmp"])
def test_extensions_of_images(name):
    assert is_image(Path(name))


def black_and_white(root, keys, mode="L"):
    """Masks of background (0) and foreground (255), as many tools write them."""
    for key in keys:
        values = np.zeros((48, 64), dtype=np.uint8)
        values[8:24, 8:24] = 255
        mask = Image.fromarray(values)
        if mode == "P":
            mask.putpalette([level for level in range(256) for _ in range(3)])
        for folder in ("pseudo_labels", "ground_truth"):
            mask.save(root / folder / f"{key}.png")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_the_foreground_of_black_and_white_masks_does_not_become_void(dataset, mode):
    black_and_white(dataset, "abc", mode)
    opened, samples = read(dataset)
    assert samples == {}
    (problem,) = opened.problems
    assert problem.startswith("pseudo_labels: all masks hold 0 and 255 alone")
    held_out = open_dataset(dataset, validation=True)
    held_out.use_classes(opened.classes)
    assert list(held_out.validation_samples()) == []
    assert "ground_truth: all masks" in held_out.problems[0]


def test_an_image_may_be_void_apart_from_its_first_class(dataset):
    black_and_white(dataset, "a")
    _, samples = read(dataset)
    assert set(np.unique(samples["a"].labels)) == {0, 255}
    assert list(samples) == ["a", "b", "c"]


@pytest.mark.parametrize("folders", [("pseudo_labels",), ("pseudo_labels", "objects", "images")])
def test_extensions_in_capitals_are_found(dataset, folders):
    for folder in folders:
        for path in (dataset / folder).iterdir():
            path.rename(path.with_suffix(".PNG"))
    opened, samples = read(dataset)
    assert (list(samples), opened.problems) == (["a", "b", "c"], [])


def test_names_that_are_no_utf_8_are_told(tmp_path):
    root = write_dataset(tmp_path / "dataset", names=("a",))
    strange = os.fsencode(root / "images") + b"/caf\xe9.png"
    shutil.copyfile(root / "images/a.png", strange)
    listing = os.fsencode(root / "images") + b"/caf\xe9.txt"
    Path(os.fsdecode(listing)).write_text("no image")
    opened, samples = read(root)
    assert list(samples) == ["a"]
    assert any("its name is not UTF-8" in problem for problem in opened.problems)
    for problem in opened.problems:
        problem.encode()  # can be printed


def test_the_command_tells_names_that_are_no_utf_8(tmp_path):
    """In a process of its own, whose output is UTF-8 without exceptions."""
    root = write_dataset(tmp_path / "dataset", names=("a",))
    shutil.copyfile(root / "images/a.png", os.fsencode(root / "images") + b"/caf\xe9\x1b[2J.png")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from rich.console import Console\n"
        "from alc_backend.settings import Settings\n"
        "from alc_backend.store.database import Store\n"
        "from alc_backend.store.importing import import_folder\n"
        "store = Store(Settings(data_dir=Path(sys.argv[2]), _env_file=None))\n"
        "import_folder(store, Path(sys.argv[1]), 'a').show(Console())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, root, tmp_path / "data"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"\x1b" not in done.stdout
    assert b"1 images" in done.stdout
    assert b"caf" in done.stdout
