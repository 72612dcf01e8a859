"""Pictures that show what a simulation changed, small enough to travel in its results."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.datasets.images import label_thumbnail, picture_thumbnail

if TYPE_CHECKING:
    from alc_backend.simulate.loop import Loop

Json = dict[str, Any]

SHOWN, SIDE = 6, 320
"""How many pictures, and the longest side of each in pixels."""


def examples(loop: Loop) -> list[Json]:
    """The pictures of which most pixels were put right, each with its label maps.

    ``image`` is a JPEG, ``before``, ``after`` and ``truth`` PNGs in the colours of PASCAL VOC, all
    in base64; ``repaired`` and ``spoilt`` count pixels.
    """
    found = []
    for key in loop.changed:
        truth, before, after = loop.scenes.truth(key), loop.first(key), loop.labels(key)
        known = truth != VOID
        repaired = int((known & (before != truth) & (after == truth)).sum())
        spoilt = int((known & (before == truth) & (after != truth)).sum())
        found.append((spoilt - repaired, key, repaired, spoilt))
    return [
        {
            "key": key,
            "repaired": repaired,
            "spoilt": spoilt,
            "image": picture_jpeg(loop.scenes.picture(key)),
            "before": label_png(loop.first(key)),
            "after": label_png(loop.labels(key)),
            "truth": label_png(loop.scenes.truth(key)),
        }
        for _, key, repaired, spoilt in sorted(found)[:SHOWN]
    ]


def picture_jpeg(picture: NDArray[np.uint8]) -> str:
    """A small JPEG of a picture, uint8 (H, W, 3), in base64."""
    return base64.b64encode(picture_thumbnail(picture, SIDE)).decode()


def label_png(labels: NDArray[np.uint8]) -> str:
    """A small PNG of a label map, uint8 (H, W), in base64."""
    return base64.b64encode(label_thumbnail(labels, SIDE)).decode()
