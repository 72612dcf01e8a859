"""MulSpx: every class in a superpixel is named, and which pixel is of which is learnt.

Source: Hwang et al., *Active Learning for Semantic Segmentation with Multi-class Label Query*,
NeurIPS 2023. First a network is trained with the merged positive loss: the classes that were named
are one. Then each pixel gets that of them whose prototype it resembles most, and the network is
trained anew on these pseudo labels. Resemblance is the cosine of predictions, as in eq. 4 of the
paper that this project follows; Hwang et al. compare features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID


class ClassSets:
    """Sets of classes as ids of label maps: a class is its own id, a set gets one of the next."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._known: dict[tuple[int, ...], int] = {}

    def id_of(self, members: Sequence[int]) -> int:
        """The id of a set of classes; VOID for a new one when all ids are taken."""
        key = tuple(sorted(set(members)))
        if len(key) == 1:
            return key[0]
        following = self._classes + len(self._known)
        if key not in self._known and following < VOID:
            self._known[key] = following
        return self._known.get(key, VOID)

    @property
    def table(self) -> NDArray[np.bool_]:
        """Which classes each id stands for, bool (ids, C)."""
        table = np.eye(self._classes + len(self._known), self._classes, dtype=np.bool_)
        for members, number in self._known.items():
            table[number] = False
            table[number, list(members)] = True
        return table


def pseudo_labels(
    probabilities: NDArray[np.floating], mask: NDArray[np.bool_], members: Sequence[int]
) -> NDArray[np.uint8]:
    """The class of each pixel of ``mask``, bool (H, W), in raster order: one of ``members``.

    ``probabilities`` (C, H, W). The prototype of a class is the prediction of the pixel that is
    most confidently of it; of equals the first class.
    """
    seen = probabilities[:, mask].astype(np.float64)
    seen = seen / np.linalg.norm(seen, axis=0)
    classes = sorted(set(members))
    prototypes = [seen[:, int(probabilities[class_id][mask].argmax())] for class_id in classes]
    nearest = (np.stack(prototypes) @ seen).argmax(axis=0)
    return np.asarray(np.array(classes, dtype=np.uint8)[nearest])
