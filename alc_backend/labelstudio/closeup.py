"""A close-up of a superpixel that would be too small on the screen.

It is HTML beside the question: a part of the same image, enlarged, with the superpixel's outline
and the pixel that is asked about.
"""

from __future__ import annotations

from html import escape

from alc_backend.common.types import Json

SCREEN_PX = 700
"""Width or height of an image on a labeler's screen, whichever is larger, roughly."""

SMALL_PX = 12
"""A superpixel that is narrower and lower than this on the screen is hard to see."""

SIDE_PX = 300
"""Side of the close-up on the screen."""

MARGIN = 4.0
"""Side of the part that is shown, as a multiple of the superpixel's longer side."""

MIN_SHOWN = 12.0
"""Side of the part that is shown, in pixels of the image, at least."""


def closeup_html(
    url: str, height: int, width: int, row: int, col: int, shape: Json, title: str
) -> str:
    """The close-up of a superpixel; empty for one that is large enough.

    ``shape`` is the superpixel's box and outlines in per cent of the image, which has ``height`` ×
    ``width`` pixels and lies at ``url``; (``row``, ``col``) is the pixel that is asked about.
    ``title`` is read to those who cannot see it.
    """
    box = shape["box"]
    wide, high = box["width"] * width / 100, box["height"] * height / 100
    enlarged = min(1.0, SCREEN_PX / max(height, width))
    if max(wide, high) * enlarged >= SMALL_PX:
        return ""
    shown = max(MARGIN * max(wide, high), MIN_SHOWN)
    left = (box["x"] + box["width"] / 2) * width / 100 - shown / 2
    top = (box["y"] + box["height"] / 2) * height / 100 - shown / 2
    scale = SIDE_PX / shown
    outlines = "".join(
        f'<polygon points="{_points(outline, width, height, left, top, scale)}" '
        'fill="none" stroke="#ffeb3b" stroke-width="2"/>'
        for outline in shape["outlines"]
    )
    x, y = (col + 0.5 - left) * scale, (row + 0.5 - top) * scale
    return (
        f'<div title="{escape(title)}" style="position:relative;overflow:hidden;margin:12px 0;'
        f'width:{SIDE_PX}px;height:{SIDE_PX}px;border:2px solid #00e676">'
        f'<img src="{escape(url)}" alt="{escape(title)}" style="position:absolute;max-width:none;'
        f"width:{width * scale:.1f}px;height:{height * scale:.1f}px;"
        f'left:{-left * scale:.1f}px;top:{-top * scale:.1f}px;image-rendering:pixelated">'
        f'<svg width="{SIDE_PX}" height="{SIDE_PX}" style="position:absolute;left:0;top:0">'
        f'{outlines}<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#00e676" stroke="#000"/>'
        "</svg></div>"
    )


def _points(
    outline: list[list[float]], width: int, height: int, left: float, top: float, scale: float
) -> str:
    return " ".join(
        f"{(x * width / 100 - left) * scale:.1f},{(y * height / 100 - top) * scale:.1f}"
        for x, y in outline
    )
