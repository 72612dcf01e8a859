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

SIDE_PX = 320
"""Side of a tile in pixels of the sheet: twice what it has on an ordinary screen, for fine ones."""

MARGIN = 0.25
"""What is shown around a superpixel to every side, as a share of its longer side, at least."""

CONTEXT = 0.02
"""The same as a share of the image's longer side, at least: tiny things need their surroundings."""

LEAST_CONTEXT_PX = 12
"""The same in pixels of the image, at least."""

DIMMED = 0.4
"""How bright the rest of a tile is, as a share."""

OUTLINE_PX, EDGE_PX = 3, 2
"""Width of the outline, and of the dark edge around it, in pixels of the sheet."""

OUTLINE, EDGE, OUTSIDE = (255, 235, 59), (0, 0, 0), (38, 38, 38)
"""Colours: of the outline, of the dark edge around it, and beyond the image's own edge."""

QUALITY = 82
"""JPEG quality of a sheet."""

Pixels = NDArray[np.uint8]


def draw_tile(picture: Pixels, superpixels: NDArray[np.int32], number: int) -> Pixels:
    """The tile of superpixel ``number``: uint8 (SIDE_PX, SIDE_PX, 3).

    ``picture`` is the image, uint8 (H, W, 3), upright as its labels are; ``superpixels`` int32
    (H, W). A tiny superpixel is enlarged, a huge one reduced; near the image's edge the tile shows
    more of the other side. Raises ValueError when the map has no such superpixel.
    """
    mask = superpixels == number
    rows, cols = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    if not rows.size:
        raise ValueError(f"the superpixel map has no superpixel {number}")
    shape = mask.shape[0], mask.shape[1]
    longer = int(max(np.ptp(rows), np.ptp(cols))) + 1
    around = max(MARGIN * longer, CONTEXT * max(shape), LEAST_CONTEXT_PX)
    side = math.ceil(longer + 2 * around)
    top = _begin(int(rows[0] + rows[-1] + 1) // 2, side, shape[0])
    left = _begin(int(cols[0] + cols[-1] + 1) // 2, side, shape[1])
    seen = np.s_[max(top, 0) : top + side, max(left, 0) : left + side]
    scale = SIDE_PX / side
    high, wide = (max(1, round(length * scale)) for length in mask[seen].shape)
    row = min(round(max(-top, 0) * scale), SIDE_PX - high)
    col = min(round(max(-left, 0) * scale), SIDE_PX - wide)
    place = np.s_[row : row + high, col : col + wide]
    kind = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX
    tile = np.full((SIDE_PX, SIDE_PX, 3), OUTSIDE, dtype=np.uint8)
    part = Image.fromarray(np.ascontiguousarray(picture[seen]))
    tile[place] = np.asarray(part.resize((wide, high), kind))
    inside = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    inside[place] = _resized(mask[seen], wide, high)
    line = _grown(inside, OUTLINE_PX)
    edge = _grown(line, EDGE_PX)
    tile[~inside] = _DIM[tile[~inside]]
    tile[edge & ~line] = EDGE
    tile[line & ~inside] = OUTLINE
    return tile


def sheet(tiles: Sequence[Pixels]) -> bytes:
    """The sheet with 1 to MAX_TILES tiles of :func:`draw_tile`, row by row: a JPEG."""
    columns, rows = grid(len(tiles))
    whole = np.zeros((rows * SIDE_PX, columns * SIDE_PX, 3), dtype=np.uint8)
    for place, tile in enumerate(tiles):
        row, col = (SIDE_PX * number for number in divmod(place, columns))
        whole[row : row + SIDE_PX, col : col + SIDE_PX] = tile
    target = io.BytesIO()
    Image.fromarray(whole).save(target, "JPEG", quality=QUALITY)
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
    return (
        f'<span class="alc-tile"><img src="{escape(address)}" alt="{escape(key)}" '
        f'style="width:{columns}00%;height:{rows}00%;left:-{col}00%;top:-{row}00%">'
        f'<b class="alc-key">{escape(key)}</b></span>'
    )


def _begin(middle: int, side: int, length: int) -> int:
    """Where a window of ``side`` pixels around ``middle`` begins: inside, where it fits there."""
    begin = middle - side // 2
    return min(max(begin, 0), length - side) if side <= length else (length - side) // 2


def _resized(mask: NDArray[np.bool_], wide: int, high: int) -> NDArray[np.bool_]:
    """A mask in another size; one that is hardly there any more is shown where it touches."""
    drawn = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
    share = np.asarray(drawn.resize((wide, high), Image.Resampling.BOX))
    found: NDArray[np.bool_] = share > 127
    return found if found.any() else share > 0


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """A mask with all pixels that are at most ``by`` pixels from it, along either axis."""
    grown = mask.copy()
    for step in range(1, by + 1):
        grown[step:] |= mask[:-step]
        grown[:-step] |= mask[step:]
    rows = grown.copy()
    for step in range(1, by + 1):
        grown[:, step:] |= rows[:, :-step]
        grown[:, :-step] |= rows[:, step:]
    return grown


_DIM = (np.arange(256) * DIMMED).astype(np.uint8)
