"""The pixels of Label Studio's shapes: brush, bitmask, polygon, rectangle and ellipse.

Each reader takes a region's ``value`` and (H, W) of the image, and returns int32 (2·R,): where the
pixels begin and end, as :func:`alc_backend.labelstudio.run_lengths.decode` has them. A pixel is in
a drawn shape when its centre is; of two shapes side by side, a centre on their border belongs to
the right or lower one. Coordinates are percentages of the image's width and height, angles are
degrees, clockwise; regions drawn while the image was turned have those of the image as it is.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alc_backend.common.types import Json
from alc_backend.core.arrays import strips
from alc_backend.labelstudio import run_lengths

Edges = NDArray[np.int32]

MOST_CROSSINGS = 2**21
"""The most of them that one shape may have, each of which takes about 100 bytes."""

PNG = "data:image/png;base64,"
"""What a bitmask begins with."""


@dataclass
class Budget:
    """What the regions of one annotation may still take.

    ``encoded`` counts bytes of run lengths and bitmasks, ``crossings`` how often outlines cross a
    row of pixels.
    """

    encoded: int
    crossings: int

    def take_encoded(self, count: int) -> None:
        """Take so many bytes; ValueError when they are not left."""
        self.encoded -= count
        if self.encoded < 0:
            raise ValueError("the run lengths and bitmasks of the regions are too long together")

    def take_crossings(self, count: int) -> None:
        """Take so many crossings; ValueError when they are not left."""
        self.crossings -= count
        if self.crossings < 0 or count > MOST_CROSSINGS:
            raise ValueError("the outlines of the regions are too intricate")


def brush(value: Json, shape: tuple[int, int], left: Budget) -> Edges:
    """The pixels of run lengths; raises ValueError for what cannot be decoded."""
    lengths = _field(value, "rle")
    if not isinstance(lengths, list):
        raise ValueError("its run lengths are no list")
    left.take_encoded(len(lengths))
    try:
        packed = bytes(lengths)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"its run lengths cannot be read ({error})") from error
    return run_lengths.decode(packed, shape[0] * shape[1])


def bitmask(value: Json, shape: tuple[int, int], left: Budget) -> Edges:
    """The opaque pixels of a PNG in a data URL; raises ValueError for what cannot be decoded."""
    url = _field(value, "imageDataURL")
    if not isinstance(url, str) or not url.startswith(PNG):
        raise ValueError("its imageDataURL holds no PNG in base64")
    left.take_encoded(len(url))
    try:
        content = base64.b64decode(url[len(PNG) :], validate=True)
        opened = Image.open(io.BytesIO(content), formats=["PNG"])
        if opened.size == shape[::-1]:
            opened.load()
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"its PNG cannot be read ({error})") from error
    if opened.size != shape[::-1]:
        raise ValueError(
            f"its PNG has {opened.width}×{opened.height} pixels, and the image "
            f"{shape[1]}×{shape[0]}"
        )
    opaque = np.concatenate([_opaque(opened, rows) for rows in strips(shape)])
    changes = np.diff(opaque, prepend=False, append=False)
    left.take_crossings(int(np.count_nonzero(changes)))
    return np.flatnonzero(changes).astype(np.int32)


def _opaque(opened: Image.Image, rows: slice) -> NDArray[np.bool_]:
    """Which pixels of some rows of an image are opaque, bool (N,)."""
    strip = opened.crop((0, rows.start, opened.width, min(rows.stop, opened.height)))
    return np.asarray(strip.convert("RGBA").getchannel("A")).reshape(-1) > run_lengths.OPAQUE


def polygon(value: Json, shape: tuple[int, int], left: Budget) -> Edges:
    """The pixels inside a polygon; what it winds around more than once belongs to it, too.

    Raises ValueError for one that is not closed, which encloses nothing, and for other than three
    points or more.
    """
    points = _field(value, "points")
    if value.get("closed", True) is not True:
        raise ValueError("its outline is not closed, so that it encloses nothing")
    if not isinstance(points, list) or len(points) < 3:
        raise ValueError("its outline has fewer than three points")
    if not all(isinstance(point, list | tuple) and len(point) == 2 for point in points):
        raise ValueError("its points are not pairs of numbers")
    corners = [(_number(x, "points"), _number(y, "points")) for x, y in points]
    return _inside(np.array(corners) * _percent(shape), shape, left)


def rectangle(value: Json, shape: tuple[int, int], left: Budget) -> Edges:
    """The pixels inside a rectangle, which is turned around its first corner."""
    x, y, width, height = (_number(_field(value, n), n) for n in ("x", "y", "width", "height"))
    angle = math.radians(_number(value.get("rotation") or 0, "rotation"))
    scale = _percent(shape)
    right, down = width * scale[0], height * scale[1]
    corners = np.array([(0, 0), (right, 0), (right, down), (0, down)])
    turned = corners @ np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )
    return _inside(turned + np.array((x, y)) * scale, shape, left)


def ellipse(value: Json, shape: tuple[int, int], left: Budget) -> Edges:
    """The pixels inside an ellipse, which is turned around its centre."""
    x, y, wide, high = (_number(_field(value, n), n) for n in ("x", "y", "radiusX", "radiusY"))
    angle = math.radians(_number(value.get("rotation") or 0, "rotation"))
    scale = _percent(shape)
    a, b = abs(wide * scale[0]), abs(high * scale[1])
    if min(a, b) == 0:
        return np.empty(0, dtype=np.int32)
    left.take_crossings(2 * shape[0])
    # A point (u, v) from the centre is inside where p·u² + 2·q·u·v + r·v² ≤ 1.
    cos, sin = math.cos(angle), math.sin(angle)
    p = (cos / a) ** 2 + (sin / b) ** 2
    q = cos * sin * (a**-2 - b**-2)
    v = np.arange(shape[0]) + 0.5 - y * scale[1]
    root = p - (v / a / b) ** 2  # of the quadratic equation in u
    rows = np.flatnonzero(root >= 0)
    middle, half = x * scale[0] - q * v[rows] / p, np.sqrt(root[rows]) / p
    return _runs(rows, middle - half, middle + half, shape)


def _inside(corners: NDArray[np.float64], shape: tuple[int, int], left: Budget) -> Edges:
    """The pixels that a polygon winds around; ``corners`` (N, 2) are x and y in pixels."""
    begin, end = corners, np.roll(corners, -1, axis=0)
    # A line crosses the rows whose centres lie between its ends: those from first up to last.
    between = np.clip(np.stack([begin[:, 1], end[:, 1]]), -1.0, shape[0] + 1.0)
    limits = np.clip(np.ceil(between - 0.5), 0, shape[0]).astype(np.int64)
    first, last = limits.min(axis=0), limits.max(axis=0)
    many = last - first
    left.take_crossings(int(many.sum()))
    lines = np.repeat(np.arange(len(many)), many)
    rows = np.arange(len(lines)) - np.repeat(np.cumsum(many) - many, many) + first[lines]
    way = end - begin
    share = (rows + 0.5 - begin[lines, 1]) / way[lines, 1]
    columns = begin[lines, 0] + share * way[lines, 0]
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    turns = np.cumsum(np.where(way[lines[order], 1] > 0, 1, -1))  # around what is right of each
    inside = turns != 0
    opens = np.flatnonzero(inside & ~np.concatenate(([False], inside[:-1])))
    closes = np.flatnonzero(~inside & np.concatenate(([False], inside[:-1])))
    return _runs(rows[opens], columns[opens], columns[closes], shape)


def _runs(
    rows: NDArray[np.int64],
    begin: NDArray[np.float64],
    end: NDArray[np.float64],
    shape: tuple[int, int],
) -> Edges:
    """Where pixels begin and end whose centres lie between two places of a row, in pixels."""
    places = np.ceil(np.clip(np.stack([begin, end]), -1.0, shape[1] + 1.0) - 0.5)
    flat = np.clip(places, 0, shape[1]).astype(np.int64) + rows * shape[1]
    flat = flat[:, flat[0] < flat[1]]
    joined = flat[0, 1:] == flat[1, :-1]  # a run that ends where the next one begins
    begins, ends = flat[0][np.r_[True, ~joined][: flat.shape[1]]], flat[1]
    ends = ends[np.r_[~joined, True][: len(ends)]]
    return np.stack([begins, ends], axis=-1).reshape(-1).astype(np.int32)


def _percent(shape: tuple[int, int]) -> NDArray[np.float64]:
    """The pixels of one percent of the width and of the height."""
    return np.array((shape[1], shape[0])) / 100.0


def _field(value: Json, name: str) -> object:
    if name not in value:
        raise ValueError(f"it has no field {name!r}")
    found: object = value[name]
    return found


def _number(value: object, name: str) -> float:
    """A number of a region; ValueError for what is none, and for one that is far too large."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise ValueError(f"its {name} must be numbers, not {str(value)[:40]!r}")
    return float(value)


READERS: dict[str, Callable[[Json, tuple[int, int], Budget], Edges]] = {
    "brush": brush,
    "bitmask": bitmask,
    "polygon": polygon,
    "rectangle": rectangle,
    "ellipse": ellipse,
}
"""How each shape is read."""
