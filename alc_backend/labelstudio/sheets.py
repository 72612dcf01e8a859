"""Sheets: one picture with all tiles of a page side by side, so that a page is one upload.

A tile is the square part of an image around one superpixel, which is outlined; the rest is dimmed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_TILES = 24
"""Tiles of a sheet, at most."""

COLUMNS = 6
"""Tiles beside each other on a sheet, at most."""

FEW, MANY = 6, 12
"""Up to so many tiles are shown larger, more than so many smaller."""

SIDE_PX = 256
"""Side of a tile in pixels of the sheet: more than on an ordinary screen, for fine ones."""

MARGIN = 0.25
"""What is shown around a superpixel to every side, as a share of its longer side, at least."""

CONTEXT, MOST_CONTEXT = 0.05, 4.0
"""The same for tiny things, which need their surroundings: as a share of the image's longer side,
but no more than so many times the superpixel's."""

LEAST_CONTEXT_PX = 12
"""What is shown to every side in pixels of the image, at least."""

OUTLINE_PX, EDGE_PX = 3, 1
"""Width of the outline, and of the dark edge around it, in pixels of the sheet."""

BEYOND = (OUTLINE_PX + EDGE_PX + 1) / SIDE_PX
"""How far a tile goes beyond the image's edge, as a share of its side, at most."""

DIMMED = 0.5
"""How bright the rest of a tile is, as a share."""

OUTLINE, EDGE, OUTSIDE = (255, 235, 59), (0, 0, 0), (38, 38, 38)
"""Colours: of the outline, of the dark edge around it, and beyond the image's own edge."""

QUALITY = 82
"""JPEG quality of a sheet."""

Pixels = NDArray[np.uint8]


def draw_tile(
    picture: Pixels,
    superpixels: NDArray[np.int32],
    number: int,
    box: tuple[slice, slice] | None = None,
    side_px: int = SIDE_PX,
) -> Image.Image:
    """The tile of superpixel ``number``: an RGB image of ``side_px`` × ``side_px`` pixels.

    ``picture`` is the image, uint8 (H, W, 3), upright as its labels are; ``superpixels`` int32
    (H, W); ``box`` the rows and columns around the superpixel, where they are known, which spares
    looking for it in the whole map. A tiny superpixel is enlarged, a huge one reduced. Raises
    ValueError when the map has no such superpixel.
    """
    rows, cols = box or _box_of(superpixels, number)
    height, width = superpixels.shape[0], superpixels.shape[1]
    longer = max(rows.stop - rows.start, cols.stop - cols.start)
    context = min(CONTEXT * max(height, width), MOST_CONTEXT * longer)
    around = max(MARGIN * longer, context, LEAST_CONTEXT_PX)
    whole = max(height, width, longer + 2 * LEAST_CONTEXT_PX)
    side = math.ceil(min(longer + 2 * around, whole / (1 - 2 * BEYOND)))
    top = _begin((rows.start + rows.stop) // 2, side, height)
    left = _begin((cols.start + cols.stop) // 2, side, width)
    seen = np.s_[max(top, 0) : top + side, max(left, 0) : left + side]
    mask = superpixels[seen] == number
    scale = side_px / side
    high, wide = (max(1, round(length * scale)) for length in mask.shape)
    x = min(round(max(-left, 0) * scale), side_px - wide)
    y = min(round(max(-top, 0) * scale), side_px - high)
    kind = Image.Resampling.BILINEAR if scale > 1 else Image.Resampling.BOX
    part = Image.fromarray(np.ascontiguousarray(picture[seen])).resize((wide, high), kind)
    tile = Image.new("RGB", (side_px, side_px), OUTSIDE)
    tile.paste(part.point(_DIM), (x, y))
    inside = Image.new("L", (side_px, side_px))
    inside.paste(_resized(mask, wide, high), (x, y))
    window = _around(inside)
    inside = inside.crop(window)
    line = _grown(np.asarray(inside), OUTLINE_PX)
    tile.paste(EDGE, window, Image.fromarray(_grown(line, EDGE_PX)))
    tile.paste(OUTLINE, window, Image.fromarray(line))
    bright = part.crop((window[0] - x, window[1] - y, window[2] - x, window[3] - y))
    tile.paste(bright, window, inside)
    return tile


def sheet(tiles: Sequence[Image.Image]) -> bytes:
    """The sheet with 1 to MAX_TILES tiles of :func:`draw_tile`, row by row: a JPEG."""
    columns, rows = grid(len(tiles))
    whole = Image.new("RGB", (columns * SIDE_PX, rows * SIDE_PX), OUTSIDE)
    for place, tile in enumerate(tiles):
        row, col = divmod(place, columns)
        whole.paste(tile, (col * SIDE_PX, row * SIDE_PX))
    target = io.BytesIO()
    whole.save(target, "JPEG", quality=QUALITY)
    return target.getvalue()


def grid(tiles: int) -> tuple[int, int]:
    """(columns, rows) of a sheet with so many tiles; ValueError unless they are 1 to MAX_TILES."""
    if not 1 <= tiles <= MAX_TILES:
        raise ValueError(f"a page has 1 to {MAX_TILES} tiles, not {tiles}")
    columns = min(tiles, COLUMNS)
    return columns, -(-tiles // columns)


def tile_html(address: str, place: int, tiles: int, key: str) -> str:
    """What shows the tile at ``place`` (from 0) of the sheet with so many tiles at ``address``.

    ``key`` is the key that unticks it. The label config gives the tile its size.
    """
    columns, rows = grid(tiles)
    row, col = divmod(place, columns)
    size = " alc-few" if tiles <= FEW else " alc-many" if tiles > MANY else ""
    return (
        f'<span class="alc-tile{size}"><img src="{escape(address)}" alt="{escape(key)}" '
        f'style="width:{columns}00%;height:{rows}00%;left:-{col}00%;top:-{row}00%">'
        f'<b class="alc-key">{escape(key)}</b></span>'
    )


def _begin(middle: int, side: int, length: int) -> int:
    """Where a window of ``side`` pixels around ``middle`` begins: inside, where it fits there.

    It may go a little beyond the image's edge, where a superpixel there has its outline.
    """
    beyond = math.ceil(BEYOND * side)
    if side > length + 2 * beyond:
        return (length - side) // 2
    return min(max(middle - side // 2, -beyond), length + beyond - side)


def _box_of(superpixels: NDArray[np.int32], number: int) -> tuple[slice, slice]:
    """The rows and columns around a superpixel; ValueError when there is none."""
    mask = superpixels == number
    rows = mask.any(axis=1).nonzero()[0]
    if not rows.size:
        raise ValueError(f"the superpixel map has no superpixel {number}")
    high = slice(int(rows[0]), int(rows[-1]) + 1)
    cols = mask[high].any(axis=0).nonzero()[0]
    return high, slice(int(cols[0]), int(cols[-1]) + 1)


def _resized(mask: NDArray[np.bool_], wide: int, high: int) -> Image.Image:
    """A mask in another size, 0 and 255; what would vanish is shown wherever it touches."""
    drawn = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
    share = np.asarray(drawn.resize((wide, high), Image.Resampling.BOX))
    least = min(127, int(share.max()) - 1)
    return Image.fromarray((share > least).view(np.uint8) * np.uint8(255))


def _around(mask: Image.Image) -> tuple[int, int, int, int]:
    """The part (left, top, right, bottom) of a mask that has it with its outline."""
    left, top, right, bottom = mask.getbbox() or (0, 0, *mask.size)
    by = OUTLINE_PX + EDGE_PX
    wide, high = mask.size
    return max(left - by, 0), max(top - by, 0), min(right + by, wide), min(bottom + by, high)


def _grown(mask: Pixels, by: int) -> Pixels:
    """A mask, uint8 (H, W), with all pixels that are at most ``by`` from it along either axis."""
    for _ in range(by):
        wider = mask.copy()
        wider[1:] |= mask[:-1]
        wider[:-1] |= mask[1:]
        mask = wider.copy()
        mask[:, 1:] |= wider[:, :-1]
        mask[:, :-1] |= wider[:, 1:]
    return mask


_DIM = [int(value * DIMMED) for value in range(256)] * 3
