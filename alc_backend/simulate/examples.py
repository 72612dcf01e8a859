"""Examples of what a simulation changed, as small images in its results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alc_backend.common.types import Json
from alc_backend.core.arrays import VOID
from alc_backend.datasets.images import image_jpeg, label_png

if TYPE_CHECKING:
    from alc_backend.simulate.loop import Loop


SHOWN = 6
"""The number of images that are shown."""


def examples(loop: Loop) -> list[Json]:
    """The images with most pixels put right (less those spoilt), each with its label maps.

    ``image`` is a JPEG, ``before``, ``after`` and ``truth`` are PNGs in the colours of PASCAL VOC,
    all in base64; ``repaired`` and ``spoilt`` are numbers of pixels.
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
            "image": image_jpeg(loop.scenes.image(key)),
            "before": label_png(loop.first(key)),
            "after": label_png(loop.labels(key)),
            "truth": label_png(loop.scenes.truth(key)),
        }
        for _, key, repaired, spoilt in sorted(found)[:SHOWN]
    ]
