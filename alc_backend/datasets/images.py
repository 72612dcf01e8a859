"""Reading and writing images and class-indexed masks."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from alc_backend.errors import DatasetError

Number = TypeVar("Number", bound=np.generic)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
"""The file extensions of images: those that Label Studio takes."""

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""The formats that are decoded, whatever a file is called: those that browsers show, too. Pillow
would try some forty others, one of which runs Ghostscript."""

MASK_FORMATS = ("PNG",)
"""The format of masks; in others ids would be compressed with losses, or scaled."""

MAX_PIXELS = 2**26
"""Larger images (than 8192×8192) are refused before they are decoded."""

MAX_SHOWN_WEBP = 2**25
"""Larger WebP images have no thumbnail: their decoder needs 16 bytes a pixel, at full size."""

SHOWN_SIDE = 320
"""The longest side of an image in a report, in pixels."""

MAX_COLOUR_ID = 2**24 - 1
"""The largest id that the colour of a pixel can encode."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its orientation in EXIF."""

_STRIP = 256
"""The rows that are put on white at a time."""

_GREY_STEP = {2: 85, 4: 17}
"""Pillow multiplies the grey values of PNGs by this, by their number of bits."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image as RGB uint8 (H, W, 3), as browsers show it.

    It is turned by the EXIF orientation of JPEG and PNG (browsers ignore that of WebP, and XMP), of
    16 bits the higher 8 are taken, and what is transparent is white. Colour profiles are not
    applied. Raises DatasetError when it cannot be read, is truncated, animated, in another format
    than IMAGE_FORMATS, or has more than MAX_PIXELS pixels.
    """
    with _opened(path, IMAGE_FORMATS) as (opened, turn):
        _check_colours(opened, path)
        shown = _in_rgb(opened)
        return np.asarray(shown if turn is None else shown.transpose(turn))


def read_thumbnail(path: Path, side: int) -> bytes:
    """The bytes of a JPEG of an image as :func:`read_image` gives it, but small.

    It is at most ``side`` pixels wide and high, and shrunk while it is read, so that nothing is in
    memory at its full size but what the decoder needs: nothing for a JPEG, four bytes a pixel for a
    PNG. Raises DatasetError as :func:`read_image` does, and for a WebP image of more than
    MAX_SHOWN_WEBP pixels.
    """
    with _opened(path, IMAGE_FORMATS, side) as (opened, turn):
        _check_colours(opened, path)
        small = _reduced(opened, max(1, max(opened.size) // (2 * side)))
        small.thumbnail((side, side))
        return _encoded(small if turn is None else small.transpose(turn), "JPEG")


def read_mask(path: Path) -> NDArray[np.int64]:
    """The ids in a mask, int64 (H, W): the grey values or palette indices of a PNG.

    Raises DatasetError for colour images, other formats and unreadable files.
    """
    with _opened_mask(path) as opened:
        return _ids(opened, path)


def read_ids(path: Path) -> NDArray[np.int64]:
    """The ids in a mask or a colour image, int64 (H, W).

    A colour encodes the id R + 256·G + 65536·B, as in COCO's panoptic format. Raises DatasetError
    for unreadable files.
    """
    with _opened_mask(path) as opened:
        return _colour_ids(opened) if opened.mode == "RGB" else _ids(opened, path)


def read_colours(path: Path) -> NDArray[np.int64] | None:
    """The colours in a mask as R + 256·G + 65536·B, int64 (H, W); None for a grey mask.

    Raises DatasetError for unreadable files.
    """
    with _opened_mask(path) as opened:
        return _colour_ids(opened.convert("RGB")) if opened.mode in ("RGB", "P") else None


def is_black_and_white(path: Path) -> bool:
    """Whether a mask shows its id 0 in black and its id 255 in white."""
    with _opened_mask(path) as opened:
        palette = opened.getpalette("RGB")
        if opened.mode != "P" or palette is None:
            return opened.mode == "L"
        return palette[:3] == [0] * 3 and palette[3 * 255 :] == [255] * 3


def _check_colours(opened: Image.Image, path: Path) -> None:
    """Refuse an image whose transparent colour Pillow forgets: it has 16 bits."""
    if opened.format == "PNG" and "transparency" in opened.info and _depth(path) > 8:
        raise DatasetError(
            f"{path.name}: is a 16 bit image with a transparent colour; save it with 8 bits"
        )


def _in_rgb(opened: Image.Image) -> Image.Image:
    """An image in RGB with 8 bits, on white."""
    if opened.has_transparency_data:
        return _on_white(opened)
    if opened.mode.startswith("I"):
        return Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8)).convert("RGB")
    return opened.convert("RGB")


def _reduced(opened: Image.Image, factor: int) -> Image.Image:
    """An image in RGB, on white, with the means of ``factor`` × ``factor`` pixels; in strips."""
    width, height = opened.size
    shown = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    rows = factor * max(1, _STRIP // factor)
    for top in range(0, height, rows):
        strip = _in_rgb(opened.crop((0, top, width, min(top + rows, height))))
        shown.paste(strip.reduce(factor), (0, top // factor))
    return shown


def _on_white(opened: Image.Image) -> Image.Image:
    """An image with transparency on white, in RGB; made in strips, for the sake of memory."""
    shown = Image.new("RGB", opened.size)
    for top in range(0, opened.height, _STRIP):
        strip = opened.crop((0, top, opened.width, min(top + _STRIP, opened.height)))
        white = Image.new("RGBA", strip.size, "white")
        shown.paste(Image.alpha_composite(white, strip.convert("RGBA")), (0, top))
    return shown


def _ids(opened: Image.Image, path: Path) -> NDArray[np.int64]:
    """The grey values or palette indices of a mask as the file has them, int64 (H, W)."""
    if opened.mode not in ("L", "P", "1", "I", "I;16"):
        raise DatasetError(
            f"{path.name}: a mask must hold one id per pixel (grey or palette PNG), this one "
            f"is a {opened.mode} colour image; write class ids instead of colours"
        )
    step = _GREY_STEP.get(_depth(path), 1) if opened.mode == "L" else 1
    return np.asarray(opened).astype(np.int64) // step


def _colour_ids(opened: Image.Image) -> NDArray[np.int64]:
    red, green, blue = (np.asarray(band) for band in opened.split())
    ids = blue.astype(np.int64)  # changed in place: it is the largest array of a large map
    for band in (green, red):
        ids *= 256
        ids += band
    return ids


def is_turned(path: Path) -> bool:
    """Whether browsers turn an image by its EXIF; DatasetError as :func:`read_image` raises."""
    with _opened(path, IMAGE_FORMATS) as (_, turn):
        return turn is not None


def encode_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an image, uint8 (H, W, 3), as a PNG, whatever the file is called."""
    Image.fromarray(pixels).save(path, format="PNG")


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


def id_thumbnail(ids: NDArray[np.int32], side: int) -> bytes:
    """The bytes of a PNG of superpixel ids, int32 (H, W), at most ``side`` pixels wide and high.

    The red, green and blue of a pixel are its id's bytes, the lowest first.
    """
    small = reduced_ids(ids, side)
    colours = np.stack([small & 255, small >> 8 & 255, small >> 16 & 255], axis=-1)
    return _encoded(Image.fromarray(colours.astype(np.uint8)), "PNG")


def reduced_ids(ids: NDArray[Number], side: int) -> NDArray[Number]:
    """Ids or labels (H, W) at most ``side`` pixels wide and high, each as at the nearest pixel."""
    height, width = ids.shape
    share = min(1.0, side / max(height, width))
    rows, cols = (
        ((np.arange(max(1, round(length * share))) + 0.5) / share)
        .astype(np.intp)
        .clip(0, length - 1)
        for length in (height, width)
    )
    reduced: NDArray[Number] = ids[np.ix_(rows, cols)]
    return reduced


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


def image_jpeg(pixels: NDArray[np.uint8]) -> str:
    """A small JPEG of an image, uint8 (H, W, 3), in base64, as reports show it."""
    return base64.b64encode(image_thumbnail(pixels, SHOWN_SIDE)).decode()


def label_png(labels: NDArray[np.uint8]) -> str:
    """A small PNG of a label map, uint8 (H, W), in base64, as reports show it."""
    return base64.b64encode(label_thumbnail(labels, SHOWN_SIDE)).decode()


@contextmanager
def _opened_mask(path: Path) -> Iterator[Image.Image]:
    """A mask, decoded completely; DatasetError when what it holds would be read in another way."""
    with _opened(path, MASK_FORMATS) as (opened, turn):
        if turn is not None:
            raise DatasetError(
                f"{path.name}: is a mask with an orientation in EXIF; turn its pixels, and save it "
                "without EXIF"
            )
        if opened.mode == "RGB" and _depth(path) > 8:
            raise DatasetError(
                f"{path.name}: is a mask in 16 bit colours; save it with 8 bits, or in grey"
            )
        yield opened


@contextmanager
def _opened(
    path: Path, formats: tuple[str, ...], side: int | None = None
) -> Iterator[tuple[Image.Image, Image.Transpose | None]]:
    """An image, decoded completely, so that a truncated file fails here; and how to turn it.

    With ``side``, a JPEG is decoded smaller, but with twice as many pixels on each side at least.
    """
    try:
        opened = Image.open(path, formats=formats)
        if opened.width * opened.height > MAX_PIXELS:
            raise DatasetError(
                f"{path.name}: {opened.width}×{opened.height} is more than {MAX_PIXELS:,} "
                "pixels; tile or shrink the image"
            )
        turn = _turn(opened)  # before the rest is read: browsers ignore EXIF behind the pixels
        if side is not None:
            if opened.format == "WEBP" and opened.width * opened.height > MAX_SHOWN_WEBP:
                raise DatasetError(
                    f"{path.name}: is too large a WebP image to be shown here; PNG or JPEG can be"
                )
            opened.draft(None, (2 * side, 2 * side))
        opened.load()
    except UnidentifiedImageError as error:
        raise DatasetError(
            f"{path.name}: cannot be read (it is no {' or '.join(formats)}, or damaged); replace "
            "it with an intact image, converted to PNG"
        ) from error
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise DatasetError(
            f"{path.name}: cannot be read ({error}); replace it with an intact image"
        ) from error
    with opened:
        if opened.format in ("PNG", "WEBP", "GIF") and getattr(opened, "is_animated", False):
            raise DatasetError(f"{path.name}: is animated; save the one image that is meant")
        yield opened, turn


def _turn(opened: Image.Image) -> Image.Transpose | None:
    """What turns an image upright as browsers do: by the EXIF of JPEG and PNG, by nothing else."""
    content = opened.info.get("exif") if opened.format in ("JPEG", "MPO", "PNG") else None
    if not content:
        return None
    exif = Image.Exif()
    try:
        exif.load(content)
        return _TURNS.get(exif.get(_ORIENTATION, 1))
    except (
        SyntaxError,
        ValueError,
        TypeError,
        struct.error,
        OSError,
    ):  # damaged: as if it had none
        return None


def _depth(path: Path) -> int:
    """The bits of a PNG's channel, as its header has them."""
    with path.open("rb") as file:
        return file.read(25)[24]
