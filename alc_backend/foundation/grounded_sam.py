"""Grounded-SAM: a label map and superpixels from an image and class prompts (Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.painting import paint
from alc_backend.datasets.superpixels import component_boxes
from alc_backend.foundation.prompts import Prompt
from alc_backend.foundation.protocols import Both, Segmenter


@dataclass(frozen=True)
class Found:
    """The detection that a superpixel was made from.

    ``class_id`` and ``score`` (0..1) are the detector's; ``box`` is left, top, right, bottom in
    pixels; ``area`` is the number of pixels of the mask, including those hidden by other masks.
    """

    class_id: int
    score: float
    box: tuple[float, float, float, float]
    area: int


@dataclass(frozen=True)
class FirstMaps:
    """An image's first label map, uint8 (H, W), and superpixel map, int32 (H, W).

    ``found`` is the detection behind each superpixel id (1..n). Two kinds of detections have no
    superpixel: ``hidden`` of them lie completely below smaller masks, ``empty`` ones got no mask.
    """

    labels: NDArray[np.uint8]
    superpixels: NDArray[np.int32]
    found: dict[int, Found]
    hidden: int
    empty: int

    def with_superpixels(self, superpixels: NDArray[np.int32]) -> FirstMaps:
        """The same maps with other superpixels, int32 (H, W), which keep the ids in ``found``."""
        return replace(self, superpixels=superpixels)


def first_maps(
    image: NDArray[np.uint8],
    prompts: Sequence[Prompt],
    model: Both,
    *,
    threshold: float,
    uncovered: int,
) -> FirstMaps:
    """The first maps of an image, uint8 (H, W, 3): detected, segmented and painted.

    A detection is kept when its best class scores over ``threshold``; each has one mask; smaller
    masks are painted on top. Uncovered pixels get the label ``uncovered`` and superpixel 0.
    """
    detections, outlines = model.find(image, prompts, threshold)
    classes = [int(class_id) for class_id in detections.classes]
    masks = zip(outlines, classes, strict=True)
    painting = paint(masks, (image.shape[0], image.shape[1]), uncovered)
    found = {}
    for number, (source, area) in enumerate(
        zip(painting.sources, painting.areas, strict=True), start=1
    ):
        left, top, right, bottom = (round(float(edge), 2) for edge in detections.boxes[source])
        found[number] = Found(
            classes[source], float(detections.scores[source]), (left, top, right, bottom), area
        )
    return FirstMaps(painting.labels, painting.superpixels, found, painting.hidden, painting.empty)


def segments_of_masks(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], segmenter: Segmenter, uncovered: int
) -> NDArray[np.int32]:
    """Superpixels for existing masks: the segments SAM finds in boxes around their components.

    ``labels`` is uint8 (H, W); the class ``uncovered`` and void get no boxes. Returns int32 (H, W),
    0 where SAM finds nothing.
    """
    boxes = component_boxes(labels, uncovered)
    masks = ((mask, 0) for mask in segmenter.segment(image, boxes))
    return paint(masks, (labels.shape[0], labels.shape[1]), uncovered).superpixels
