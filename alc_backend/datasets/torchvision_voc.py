"""The folder that ``torchvision.datasets.VOCSegmentation`` reads: VOC's layout two folders down.

It looks for images called ``.jpg``, so that every image is, whatever its format; decoders look at
the content. :mod:`alc_backend.datasets.voc` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from alc_backend.datasets import voc
from alc_backend.datasets.dataset import OutputImage

BASE, SUFFIX = "VOCdevkit/VOC2012", ".jpg"


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write ``VOCdevkit/VOC2012/`` with images, masks, the list ``train`` and superpixel maps."""
    voc.write(root / BASE, classes, images, suffix=SUFFIX)
