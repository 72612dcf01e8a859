"""Reading and writing images and class-indexed masks."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from alc_backend.errors import DatasetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""The file extensions of images."""

MAX_PIXELS = 2**26
"""Larger images (than 8192×8192) are refused before they are decoded."""

SHOWN_SIDE = 320
"""The longest side of an image in a report, in pixels."""

MAX_COLOUR_ID = 2**24 - 1
"""The largest id that the colour of a pixel can encode."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image as RGB uint8 (H, W, 3), turned upright by its EXIF orientation as in a browser.

    Raises DatasetError when it cannot be read, is truncated, or has more than MAX_PIXELS pixels.
    """
    with _opened(path) as opened:
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


def read_mask(path: Path) -> NDArray[np.int64]:
    """The ids in a mask (8, 16 or 32 bit grey, or palette), int64 (H, W).

    Raises DatasetError for colour images and unreadable files.
    """
    with _opened(path) as opened:
        if opened.mode not in ("L", "P", "1", "I", "I;16", "I;16B"):
            raise DatasetError(
                f"{path.name}: a mask must hold one id per pixel (grey or palette PNG), this one "
                f"is a {opened.mode} colour image; write class ids instead of colours"
            )
        return np.asarray(opened).astype(np.int64)


def read_ids(path: Path) -> NDArray[np.int64]:
    """The ids in a mask or a colour image, int64 (H, W).

    A colour encodes the id R + 256·G + 65536·B, as in COCO's panoptic format. Raises DatasetError
    for unreadable files.
    """
    with _opened(path) as opened:
        if opened.mode != "RGB":
            return read_mask(path)
        red, green, blue = (np.asarray(band) for band in opened.split())
    ids = blue.astype(np.int64)  # changed in place: it is the largest array of a large map
    for band in (green, red):
        ids *= 256
        ids += band
    return ids


def encode_ids(path: Path, ids: NDArray[np.int32]) -> None:
    """Write ids (H, W) from 0 up as a 16 bit grey PNG, or as a colour PNG if they are too large."""
    if ids.max(initial=0) > np.iinfo(np.uint16).max:
        encode_colour_ids(path, ids)
    else:
        Image.fromarray(ids.astype(np.uint16)).save(path, format="PNG")


def encode_colour_ids(path: Path, ids: NDArray[np.int32]) -> None:
    """Write ids (H, W) from 0 up as a colour PNG, id = R + 256·G + 65536·B.

    Raises DatasetError for ids above MAX_COLOUR_ID.
    """
    if ids.max(initial=0) > MAX_COLOUR_ID:
        raise DatasetError(
            f"{path.name}: holds an id above {MAX_COLOUR_ID:,}, more than a PNG can tell apart; "
            "renumber the superpixels and import the image again"
        )
    colours = np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1)
    Image.fromarray(colours.astype(np.uint8)).save(path, format="PNG")


def encode_label_map(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write class ids, uint8 (H, W), as a palette PNG in the colours of PASCAL VOC."""
    opened = Image.fromarray(labels)
    opened.putpalette(voc_palette())
    opened.save(path, format="PNG")


def image_thumbnail(pixels: NDArray[np.uint8], side: int) -> bytes:
    """The bytes of a JPEG of an image, uint8 (H, W, 3), at most ``side`` pixels wide and high."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return _encoded(image, "JPEG")


def label_thumbnail(labels: NDArray[np.uint8], side: int) -> bytes:
    """The bytes of a PNG of a label map, uint8 (H, W), at most ``side`` pixels wide and high.

    It has the colours of PASCAL VOC.
    """
    image = Image.fromarray(labels)
    image.putpalette(voc_palette())
    image.thumbnail((side, side), Image.Resampling.NEAREST)
    return _encoded(image, "PNG")


def voc_palette() -> list[int]:
    """The 256 colours of PASCAL VOC as a flat list of 768 values.

    The bits of a class id go to red, green and blue in turn, to the highest bit of each first, so
    that neighbouring ids look different.
    """
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        channel, shift = bit % 3, 7 - bit // 3
        colours[:, channel] |= (((np.arange(256) >> bit) & 1) << shift).astype(np.uint8)
    return [int(value) for value in colours.ravel()]


def _encoded(image: Image.Image, form: str) -> bytes:
    content = io.BytesIO()
    image.save(content, format=form)
    return content.getvalue()


def _opened(path: Path) -> Image.Image:
    """An image, decoded completely, so that a truncated file fails here and not later."""
    try:
        opened = Image.open(path)
        if opened.width * opened.height > MAX_PIXELS:
            raise DatasetError(
                f"{path.name}: {opened.width}×{opened.height} is more than {MAX_PIXELS:,} "
                "pixels; tile or shrink the image"
            )
        opened.load()
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:
        raise DatasetError(
            f"{path.name}: cannot be read ({error}); replace it with an intact image"
        ) from error
    return opened


def image_jpeg(pixels: NDArray[np.uint8]) -> str:
    """A small JPEG of an image, uint8 (H, W, 3), in base64, as reports show it."""
    return base64.b64encode(image_thumbnail(pixels, SHOWN_SIDE)).decode()


def label_png(labels: NDArray[np.uint8]) -> str:
    """A small PNG of a label map, uint8 (H, W), in base64, as reports show it."""
    return base64.b64encode(label_thumbnail(labels, SHOWN_SIDE)).decode()
