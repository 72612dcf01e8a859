"""A close-up of a superpixel that would be too small on the screen.

It is a piece of HTML beside the question that shows a part of the very same image, enlarged, with
the superpixel's outline and the pixel that is asked about.
"""

from __future__ import annotations

from html import escape

from alc_backend.common.types import Json

SCREEN = 700
"""Pixels that an image is wide, or high, on a labeler's screen, roughly."""

TOO_SMALL = 12
"""A superpixel that is smaller than this on the screen, in both directions, is hard to see."""

SIDE = 300
"""The close-up's side in screen pixels."""

ROOM = 4.0
"""How much more than the superpixel the close-up shows."""

LEAST = 12.0
"""Pixels of the image that a close-up shows at least."""


def closeup(url: str, height: int, width: int, row: int, col: int, shape: Json, title: str) -> str:
    """The HTML of a close-up, empty for a superpixel that is large enough.

    ``shape`` is the superpixel's box and outlines in per cent of the image (height, width);
    (``row``, ``col``) the pixel that is asked about.
    """
    box = shape["box"]
    wide, high = box["width"] * width / 100, box["height"] * height / 100
    enlarged = min(1.0, SCREEN / max(height, width))
    if max(wide, high) * enlarged >= TOO_SMALL:
        return ""
    shown = max(ROOM * max(wide, high), LEAST)
    left = (box["x"] + box["width"] / 2) * width / 100 - shown / 2
    top = (box["y"] + box["height"] / 2) * height / 100 - shown / 2
    scale = SIDE / shown
    outlines = "".join(
        f'<polygon points="{_points(outline, width, height, left, top, scale)}" '
        'fill="none" stroke="#ffeb3b" stroke-width="2"/>'
        for outline in shape["outlines"]
    )
    x, y = (col + 0.5 - left) * scale, (row + 0.5 - top) * scale
    return (
        f'<div title="{escape(title)}" style="position:relative;overflow:hidden;margin:12px 0;'
        f'width:{SIDE}px;height:{SIDE}px;border:2px solid #00e676">'
        f'<img src="{escape(url)}" alt="{escape(title)}" style="position:absolute;max-width:none;'
        f"width:{width * scale:.1f}px;height:{height * scale:.1f}px;"
        f'left:{-left * scale:.1f}px;top:{-top * scale:.1f}px;image-rendering:pixelated">'
        f'<svg width="{SIDE}" height="{SIDE}" style="position:absolute;left:0;top:0">{outlines}'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#00e676" stroke="#000"/></svg></div>'
    )


def _points(
    outline: list[list[float]], width: int, height: int, left: float, top: float, scale: float
) -> str:
    return " ".join(
        f"{(x * width / 100 - left) * scale:.1f},{(y * height / 100 - top) * scale:.1f}"
        for x, y in outline
    )
