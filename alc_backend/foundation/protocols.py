"""What the first label maps ask of models: boxes of prompts, masks of boxes, or both at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alc_backend.foundation.prompts import Prompt


@dataclass(frozen=True)
class Detections:
    """The detections in an image, in the detector's order.

    ``boxes`` float32 (N, 4) are left, top, right, bottom in pixels, inside the image; ``scores``
    float32 (N,) lie in 0..1; ``classes`` int64 (N,) are class ids.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


class Detector(Protocol):
    """A model that finds the objects that prompts name."""

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise FoundationError for prompts that the model cannot be asked."""

    def detect(
        self, image: NDArray[np.uint8], prompts: Sequence[Prompt], threshold: float
    ) -> Detections:
        """The boxes in an image, uint8 (H, W, 3), whose best class scores over ``threshold``."""


class Segmenter(Protocol):
    """A model that segments the object in a box."""

    def segment(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32]
    ) -> Iterator[NDArray[np.bool_]]:
        """One mask, bool (H, W), for each box (left, top, right, bottom in pixels), in order."""


class Both(Protocol):
    """A model, or a pair of them, that finds and segments the objects that prompts name."""

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise FoundationError for prompts that the model cannot be asked."""

    def find(
        self, image: NDArray[np.uint8], prompts: Sequence[Prompt], threshold: float
    ) -> tuple[Detections, Iterable[NDArray[np.bool_]]]:
        """The detections in an image, uint8 (H, W, 3), and the mask, bool (H, W), of each.

        Kept are those whose best class scores over ``threshold``.
        """


@dataclass(frozen=True)
class DetectThenSegment:
    """A detector, and a segmenter that outlines what is in its boxes."""

    detector: Detector
    segmenter: Segmenter

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise FoundationError for prompts that the detector cannot be asked."""
        self.detector.check(prompts)

    def find(
        self, image: NDArray[np.uint8], prompts: Sequence[Prompt], threshold: float
    ) -> tuple[Detections, Iterable[NDArray[np.bool_]]]:
        """The detector's boxes in an image, and the segmenter's mask of each."""
        detections = self.detector.detect(image, prompts, threshold)
        return detections, self.segmenter.segment(image, detections.boxes)
