"""Files, label configs, run lengths and addresses from anywhere: read, or refused in a sentence."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from alc_backend.datasets import rle
from alc_backend.datasets.images import MAX_PIXELS, read_ids, read_image, read_mask
from alc_backend.datasets.layouts import open_dataset
from alc_backend.errors import AlcError, DatasetError, LabelStudioError
from alc_backend.labelstudio.annotation import parse
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import dataset_config, read_dataset_config
from alc_backend.labelstudio.exported import open_export
from alc_backend.labelstudio.images import fetch
from alc_backend.labelstudio.query import asked_about, starred
from alc_backend.labelstudio.regions import read_regions
from alc_backend.store.files import ProjectFiles
from alc_backend.store.storage import Storage
from tests.annotations import answer, region
from tests.conftest import CLASSES
from tests.fuzz.values import LIMIT_S, anything, changed, examples, promptly, text

DRAWN = {
    "polygonlabels": {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["dog"]},
    "rectanglelabels": {
        "x": 1, "y": 1, "width": 30, "height": 9, "rotation": 30, "rectanglelabels": ["cat"]
    },
    "ellipselabels": {"x": 9, "y": 9, "radiusX": 3, "radiusY": 9, "ellipselabels": ["cat"]},
    "bitmasklabels": {"imageDataURL": "data:image/png;base64,AAAA", "bitmasklabels": ["cat"]},
}  # fmt: skip

IMAGE = np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3)


def refused(error: Exception, about: str = "") -> None:
    """A refusal says what it is about."""
    assert len(str(error)) > 10
    assert about in str(error)


def encoded(kind: str, mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.fromarray(IMAGE).convert(mode).save(content, format=kind)
    return content.getvalue()


@st.composite
def damaged(draw, content: bytes):
    """A file with bytes replaced, cut out or added."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(found) - 1, 0)))
        kind = draw(st.sampled_from(["replace", "cut", "add"]))
        if kind == "replace" and found:
            found[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del found[place : place + draw(st.integers(1, 50))]
        else:
            found[place:place] = draw(st.binary(max_size=8))
    return bytes(found)


@pytest.mark.parametrize(("kind", "mode"), [
    ("PNG", "RGB"), ("PNG", "P"), ("PNG", "L"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("TIFF", "L"),
    ("BMP", "RGB"),
])  # fmt: skip
def test_images_and_masks(tmp_path, kind, mode):
    path = tmp_path / f"a.{kind.lower()}"

    @examples(60)
    @given(damaged(encoded(kind, mode)))
    def read(content):
        path.write_bytes(content)
        for reader in (read_image, read_mask, read_ids):
            try:
                with promptly():
                    array = reader(path)
            except DatasetError as error:
                refused(error, "a.")
            else:
                assert array.size <= 3 * MAX_PIXELS

    read()


@pytest.mark.parametrize("kind", ["superpixels", "initial"])
def test_arrays_of_the_store(tmp_path, kind):
    files = ProjectFiles(Storage(str(tmp_path), tmp_path / "cache"), 1, tmp_path / "work")
    files.write_superpixels(1, np.arange(400, dtype=np.int32).reshape(20, 20))
    files.write_label_map("initial", 1, IMAGE[..., 0])
    (path,) = (tmp_path / "projects/1" / kind).iterdir()

    @examples(80)
    @given(damaged(path.read_bytes()))
    def read(content):
        path.write_bytes(content)
        try:
            with promptly():
                if kind == "superpixels":
                    files.read_superpixels(1)
                else:
                    files.read_label_map(kind, 1)
        except AlcError as error:
            refused(error, path.name)

    read()


def test_regions():
    tags = read_dataset_config(dataset_config(CLASSES))
    painted = region("dog", slice(0, 12), slice(4, 12))
    drawn = [{**painted, "type": kind, "value": value} for kind, value in DRAWN.items()]

    @examples(300)
    @given(changed([painted, *drawn]).filter(lambda results: isinstance(results, list)))
    def read(results):
        try:
            with promptly():
                found = read_regions(tags.masks(results), CLASSES, (48, 64))
        except ValueError:
            return
        assert all(item.mask().shape == (48, 64) for item in found)

    @examples(200)
    @given(st.lists(st.integers(0, 255), max_size=60))
    def decode(data):
        size = list((4 * 48 * 64).to_bytes(4, "big"))
        value = {**painted["value"], "rle": [*size, *data]}
        try:
            with promptly():
                read_regions([{**painted, "value": value}], CLASSES, (48, 64))
        except ValueError:
            pass

    read()
    decode()


def test_run_lengths_of_coco():
    plain = {"size": [4, 5], "counts": [3, 5, 12]}
    packed = {"size": [4, 5], "counts": "35<"}

    @examples(300)
    @given(changed(plain) | changed(packed) | changed([[0, 0, 4, 0, 4, 3]]))
    def decode(segmentation):
        try:
            with promptly():
                mask = rle.decode(segmentation, (4, 5))
        except ValueError:
            return
        assert mask.shape == (4, 5)

    decode()


def test_files_of_cvat(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(IMAGE).save(tmp_path / "images/a.png")
    shape = 'rle="0, 3, 3" left="1" top="1" width="3" height="2" z_order="0" group_id="1"'
    whole = (
        "<annotations><meta><task><labels><label><name>dog</name></label></labels></task></meta>"
        f'<image id="0" name="a.png" width="20" height="24"><mask label="dog" {shape}/>'
        '<polygon label="dog" points="1,1;5,1;5,9" z_order="2"/></image></annotations>'
    )
    words = st.sampled_from(["<", "&", '"', "-1", "9" * 30, "1e9", ";", ",", "<a>", "<!DOCTYPE a>"])

    @examples(300)
    @given(st.integers(0, len(whole)), st.integers(0, 30), text | words)
    def read(place, cut, put):
        content = whole[:place] + put + whole[place + cut :]
        (tmp_path / "annotations.xml").write_bytes(content.encode("utf-8", "surrogatepass"))
        try:
            with promptly():
                dataset = open_dataset(tmp_path)
                samples = list(dataset.samples())
        except DatasetError as error:
            refused(error, "annotations.xml")
        else:
            assert all(sample.labels.shape == (24, 20) for sample in samples)
            assert len(samples) + len(dataset.problems) > 0 or "<image" not in content

    read()


def test_exports_of_label_studio(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(IMAGE[:, :20]).save(tmp_path / "images/a.png")
    painted = region("dog", slice(0, 12), slice(4, 12), shape=IMAGE.shape[:2])
    drawn = {**painted, "type": "polygonlabels", "value": DRAWN["polygonlabels"], "id": "p"}
    about = {"created_at": "2026-01-01T12:00:00Z", "was_cancelled": False}
    named = {"image": "/data/upload/1/0a1b2c3d-a.png"}
    whole = {
        "id": 1, "data": named, "predictions": [],
        "annotations": [{"id": 5, "result": [painted, drawn], **about}],
    }  # fmt: skip
    sizes = {"original_width": 20, "original_height": 24}
    minimal = {"id": 1, **named, "label": [{**painted["value"], **sizes}], "annotation_id": 5}
    path = tmp_path / "export.json"

    @examples(300)
    @given(changed([whole]) | changed([minimal]) | changed([whole, minimal]))
    def read(content):
        path.write_text(json.dumps(content), "utf-8", "surrogatepass")
        try:
            with promptly():
                samples = list(open_export(path, tmp_path / "images").samples())
        except DatasetError as error:
            refused(error, "export.json")
        else:
            assert all(sample.labels.shape == (24, 20) for sample in samples)

    read()


def test_label_configs():
    config = dataset_config(CLASSES)
    words = st.sampled_from(["<", ">", "&", '"', "&amp;", "<!DOCTYPE a>", "<Label/>", "\x00", "é"])

    @examples(200)
    @given(st.integers(0, len(config)), st.integers(0, 30), text | words)
    def read(place, cut, put):
        try:
            with promptly():
                read_dataset_config(config[:place] + put + config[place + cut :])
        except LabelStudioError as error:
            refused(error)

    read()


def test_annotations_and_task_data():
    @examples(300)
    @given(changed(answer(1, 5, "dog")))
    def read(record):
        if isinstance(record, dict):
            try:
                with promptly():
                    parse(record)
            except ValueError as error:
                refused(error)

    @examples(200)
    @given(anything)
    def look(value):
        with promptly():
            asked_about(value)
            starred(value if isinstance(value, list) else [value], 48, 64)

    read()
    look()


def test_dataset_folders(tmp_path, dataset):
    """COCO's JSON with anything in it."""
    (dataset / "annotations").mkdir()
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}
        ],
    }
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "train").mkdir()
    (dataset / "images/a.png").rename(root / "train/a.png")

    @examples(80)
    @given(changed(truth))
    def read(value):
        (root / "annotations/instances_train.json").write_text(json.dumps(value))
        try:
            with promptly():
                folder = open_dataset(root)
                list(folder.samples())
        except AlcError:
            return
        assert isinstance(folder.problems, list)

    read()


def at_own_host(request):
    """Label Studio's answer to any request, which must be for its own host."""
    assert (request.url.host, request.url.port) == ("127.0.0.1", 8080)
    return httpx.Response(200)


def test_addresses_of_images(monkeypatch):
    """No address makes a connection: none is of an allowed host."""

    def refuse(*arguments, **options):
        raise AssertionError(f"a connection to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    client = Client("http://127.0.0.1:8080", "token", transport=httpx.MockTransport(at_own_host))
    hosts = [
        "127.0.0.1",
        "127.1",
        "[::1]",
        "localhost",
        "169.254.169.254",
        "0x7f000001",
        "a@b",
        "127.0.0.1:8080@evil",
        "2130706433",
        "evil.com#127.0.0.1:8080",
        "[::ffff:127.0.0.1]",
    ]
    schemes = ["http://", "https://", "file://", "ftp://", "//", "gopher://", "http:///", "HTTP://",
               "\\\\", "http:\\\\"]  # fmt: skip
    made = st.tuples(st.sampled_from(schemes), st.sampled_from(hosts), text).map("".join)

    @examples(300)
    @given(made | text)
    def look(url):
        try:
            with promptly():
                fetch(client, url, io.BytesIO())
        except LabelStudioError as error:
            refused(error)

    look()


def bomb(name, folder):
    """What reading it in a process of its own told."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.bombs", name, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["refused"], told
    assert told["grown_mb"] < 1024
    return told


@pytest.mark.parametrize("name", [
    "png", "gif", "npz", "laughs", "rle", "polygon", "bitmask", "coco", "zip", "compressed",
    "endless", "claims", "row", "rows",
])  # fmt: skip
def test_bombs(tmp_path, name):
    """Small files that claim to be huge are refused within 1 GiB and 5 s."""
    assert bomb(name, tmp_path)["seconds"] < LIMIT_S


def test_the_largest_images(tmp_path):
    """Those that are still taken stay within 1 GiB."""
    assert "8193" in bomb("large", tmp_path)["refused"]


def test_an_annotation_of_very_many_regions(tmp_path):
    """What is still read stays within 1 GiB; more is refused."""
    assert "20,000 regions" in bomb("edits", tmp_path)["refused"]
