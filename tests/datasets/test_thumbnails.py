"""Thumbnails look like the images that they were made of, whatever the format."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from alc_backend.datasets import images
from alc_backend.datasets.images import image_thumbnail, read_image, read_thumbnail
from alc_backend.errors import DatasetError

SIDE = 60


def scene(width=613, height=407):
    """Smooth colours, so that the way of shrinking makes no difference."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([255 * x / width, 255 * y / height, 255 - 255 * x / width], axis=-1)
    return Image.fromarray(rgb.astype(np.uint8))


def transparent():
    image = scene().convert("RGBA")
    image.putalpha(scene().convert("L"))
    return image


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def sixteen_bits():
    return Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257)


CASES = {
    "x.jpg": (scene, {"quality": 95}),
    "progressive.jpg": (scene, {"quality": 95, "progressive": True}),
    "grey.jpg": (lambda: scene().convert("L"), {"quality": 95}),
    "cmyk.jpg": (lambda: scene().convert("CMYK"), {"quality": 95}),
    "turned.jpg": (scene, {"quality": 95, "exif": turned()}),
    "x.png": (scene, {}),
    "turned.png": (scene, {"exif": turned()}),
    "palette.png": (lambda: scene().quantize(200), {}),
    "transparent.png": (transparent, {}),
    "grey16.png": (sixteen_bits, {}),
    "two.png": (lambda: scene().convert("1"), {}),
    "x.webp": (scene, {"lossless": True}),
    "x.gif": (lambda: scene().quantize(200), {}),
    "x.bmp": (scene, {}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(613, 407), (50, 1700), (33, 20)])
def test_it_looks_like_the_image(tmp_path, name, size, monkeypatch):
    make, options = CASES[name]
    made = make().resize(size)
    made.save(tmp_path / name, **options)
    found = Image.open(io.BytesIO(read_thumbnail(tmp_path / name, SIDE)))
    expected = Image.open(io.BytesIO(image_thumbnail(read_image(tmp_path / name), SIDE)))
    assert abs(found.width - expected.width) <= 1
    assert abs(found.height - expected.height) <= 1
    assert max(found.size) <= SIDE
    difference = np.asarray(found.resize(expected.size), float) - np.asarray(expected, float)
    assert np.abs(difference).mean() < 10


def test_what_cannot_be_read_is_told(tmp_path):
    content = io.BytesIO()
    scene().save(content, "PNG")
    (tmp_path / "cut.png").write_bytes(content.getvalue()[: len(content.getvalue()) // 2])
    with pytest.raises(DatasetError, match=r"cut\.png: cannot be read"):
        read_thumbnail(tmp_path / "cut.png", SIDE)


def test_large_webp_images_are_not_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_SHOWN_WEBP", 1000)
    scene().save(tmp_path / "x.webp")
    with pytest.raises(DatasetError, match="too large a WebP image"):
        read_thumbnail(tmp_path / "x.webp", SIDE)
