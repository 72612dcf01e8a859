"""Regions as Label Studio's screen submits them, and what they cover by a plain rasteriser.

The rasteriser asks of every pixel whether its centre lies inside. It shares nothing with the
package: neither code nor the way in which it decides.
"""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from label_studio_sdk.converter import brush
from PIL import Image

NEAR = 1e-7
"""Centres of pixels that are so near to an outline, in pixels, may be inside or outside."""


def result(kind, value, label, shape, *, identity="r1", **changes):
    """An item of an annotation's result."""
    return {
        "id": identity,
        "type": f"{kind}labels",
        "from_name": kind,
        "to_name": "image",
        "origin": "manual",
        "original_width": shape[1],
        "original_height": shape[0],
        "image_rotation": 0,
        "value": {**value, f"{kind}labels": [label]},
        **changes,
    }


def brush_value(mask):
    return {"format": "rle", "rle": brush.mask2rle(mask.astype(np.uint8) * 255)}


def bitmask_value(mask):
    pixels = np.zeros((*mask.shape, 4), dtype=np.uint8)
    pixels[mask, 3] = 255
    kept = io.BytesIO()
    Image.fromarray(pixels).save(kept, format="PNG")
    return {"imageDataURL": "data:image/png;base64," + base64.b64encode(kept.getvalue()).decode()}


def covered(kind, value, shape):
    """The pixels, bool (H, W), that a region covers; None where it depends on rounding."""
    inside = {"polygon": _polygon, "rectangle": _rectangle, "ellipse": _ellipse}[kind]
    found = [
        [inside(value, x + 0.5, y + 0.5, shape) for x in range(shape[1])] for y in range(shape[0])
    ]
    if any(None in row for row in found):
        return None
    return np.array(found, dtype=bool).reshape(shape)


def _pixels(value, shape, *names):
    """Percentages as pixels: of the width for x, of the height for y."""
    sides = {"x": shape[1], "width": shape[1], "radiusX": shape[1]}
    return [value[name] * sides.get(name, shape[0]) / 100 for name in names]


def _about(value, x, y, centre):
    """Where a point lies when the region is turned back around ``centre``."""
    angle = -math.radians(value["rotation"])
    u, v = x - centre[0], y - centre[1]
    return u * math.cos(angle) - v * math.sin(angle), u * math.sin(angle) + v * math.cos(angle)


def _rectangle(value, x, y, shape):
    left, top, width, height = _pixels(value, shape, "x", "y", "width", "height")
    u, v = _about(value, x, y, (left, top))
    if min(abs(u), abs(u - width), abs(v), abs(v - height)) < NEAR:
        return None
    return 0 < u < width and 0 < v < height


def _ellipse(value, x, y, shape):
    *centre, a, b = _pixels(value, shape, "x", "y", "radiusX", "radiusY")
    u, v = _about(value, x, y, centre)
    distance = math.hypot(u / a, v / b)
    return None if abs(distance - 1) < NEAR else distance < 1


def _polygon(value, x, y, shape):
    """By the angles at which a walk around the polygon is seen from the point."""
    corners = [(u * shape[1] / 100 - x, v * shape[0] / 100 - y) for u, v in value["points"]]
    total = 0.0
    for (u, v), (s, t) in zip(corners, corners[1:] + corners[:1], strict=True):
        turn = math.atan2(u * t - v * s, u * s + v * t)
        if abs(abs(turn) - math.pi) < 1e-6 or math.hypot(u, v) < NEAR:
            return None
        total += turn
    return round(total / (2 * math.pi)) != 0
