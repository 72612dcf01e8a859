"""Ultralytics' layout for segmentation: ``images/ labels/ data.yaml``; written, not read.

Each connected part of a superpixel that has one class is a line: the number of the class, and the
corners of its outline as shares of the width and height. The outline runs through the middle of the
outermost pixels, since Ultralytics paints polygons with their borders. What no polygon covers is
background, so that void becomes background, too, and background has no number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from alc_backend.core.outlines import outlines
from alc_backend.datasets.classes import background
from alc_backend.datasets.dataset import TRAIN, OutputImage
from alc_backend.datasets.names import path_below
from alc_backend.datasets.segments import segments
from alc_backend.errors import DatasetError

IMAGES, LABELS, INDEX = "images", "labels", "data.yaml"


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write the split ``train``, which ``data.yaml`` names for validation, too.

    Raises DatasetError for an image in a folder that is called as the folder of the images.
    """
    own = background(classes)
    shown = [name for class_id, name in enumerate(classes) if class_id != own]
    for image in images:
        if IMAGES in image.key.split("/")[:-1]:
            raise DatasetError(
                f"image {image.key!r}: Ultralytics would look for its labels elsewhere, since a "
                f"folder is called {IMAGES}; rename the image, or choose another format"
            )
        image.write_image(root, f"{IMAGES}/{TRAIN}")
        listed = path_below(root, f"{LABELS}/{TRAIN}", image.key, ".txt")
        listed.write_text("".join(_lines(image, own)), "utf-8")
        image.write_objects(root)
    names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(shown))
    text = (
        f"train: {IMAGES}/{TRAIN}\n"
        f"val: {IMAGES}/{TRAIN}  # a split of your own belongs here\n"
        f"names:\n{names}"
    )
    root.mkdir(parents=True, exist_ok=True)
    (root / INDEX).write_text(text, "utf-8")


def _lines(image: OutputImage, own: int | None) -> Iterable[str]:
    """The lines of an image; ``own`` is the class of background, which has none."""
    height, width = image.labels.shape
    index, found = segments(image.labels, image.superpixels)
    for segment in found:
        if segment.class_id == own:
            continue
        number = segment.class_id - (own is not None and segment.class_id > own)
        left, top, wide, high = segment.box
        piece = index[top : top + high, left : left + wide] == segment.id
        for outline in outlines(piece, centres=True):
            shares = (outline + np.array([left, top])) / np.array([width, height])
            corners = " ".join(f"{share:.6f}" for share in shares.ravel().tolist())
            yield f"{number} {corners}\n"
