"""What corrections changed in each class: superpixels, pixels, and the IoU of the first label maps.

Computes on a snapshot's arrays; writes ``classes.csv`` of an export. Called by ``export`` and
``report``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from alc_backend.common.files import write_csv
from alc_backend.common.types import Json
from alc_backend.core import metrics
from alc_backend.core.arrays import VOID
from alc_backend.loop.exports.changes import Change
from alc_backend.loop.exports.snapshot import Maps

NAME = "classes.csv"

VOID_NAME = "(void)"


@dataclass(frozen=True)
class ClassStatistics:
    """What corrections changed in one class.

    ``taken`` and ``given`` count the superpixels that lost pixels of this class, or got some;
    ``before`` and ``after`` its pixels in the first label maps and in those of now. ``iou`` is that
    of the first label maps measured by those of now, in [0, 1]: what it lacks to 1 is what the
    class has gained. None for void and for a class that no label map has now.
    """

    name: str
    taken: int
    given: int
    before: int
    after: int
    iou: float | None


class ClassCensus:
    """Counts what corrections changed in each class, image after image."""

    def __init__(self, classes: list[str]) -> None:
        self._classes = classes
        self._confusion = np.zeros((len(classes), len(classes) + 1), dtype=np.int64)
        self._pixels = np.zeros((2, 256), dtype=np.int64)
        self._taken: Counter[str | None] = Counter()
        self._given: Counter[str | None] = Counter()

    def add(self, maps: Maps, changes: Iterable[Change]) -> None:
        """Take in an image with its changes."""
        self._confusion += metrics.confusion_matrix(maps.labels, maps.initial, len(self._classes))
        for row, labels in enumerate((maps.initial, maps.labels)):
            self._pixels[row] += np.bincount(labels.ravel(), minlength=256)
        inside = [change for change in changes if change.superpixel]
        self._taken.update(name for name, _ in {(one.before, one.superpixel) for one in inside})
        self._given.update(name for name, _ in {(one.after, one.superpixel) for one in inside})

    @property
    def first_miou(self) -> float | None:
        """The mean IoU of the first label maps, measured by those of now, in [0, 1]."""
        return metrics.known(metrics.mean_iou(self._confusion))

    def statistics(self) -> list[ClassStatistics]:
        """What changed in each class, by class id, and in void."""
        iou = metrics.class_iou(self._confusion).tolist()
        ids = [*range(len(self._classes)), VOID]
        return [
            ClassStatistics(
                name=VOID_NAME if class_id == VOID else self._classes[class_id],
                taken=self._taken[self._key(class_id)],
                given=self._given[self._key(class_id)],
                before=int(self._pixels[0, class_id]),
                after=int(self._pixels[1, class_id]),
                iou=None if class_id == VOID else metrics.known(iou[class_id]),
            )
            for class_id in ids
        ]

    def as_json(self) -> list[Json]:
        """The classes that have pixels, as JSON types; void is left out."""
        return [asdict(line) for line in self.statistics()[:-1] if line.before or line.after]

    def _key(self, class_id: int) -> str | None:
        return None if class_id == VOID else self._classes[class_id]


COLUMNS = (
    "class", "superpixels taken", "superpixels given", "pixels before", "pixels after",
    "IoU before",
)  # fmt: skip


def cells(line: ClassStatistics) -> tuple[str, int, int, int, int, str]:
    """The cells of a class in COLUMNS."""
    iou = "" if line.iou is None else f"{line.iou:.4f}"
    return line.name, line.taken, line.given, line.before, line.after, iou


def write(root: Path, census: ClassCensus) -> None:
    """Write ``classes.csv`` below ``root``: a line for each class, and one for void."""
    write_csv(root / NAME, [list(COLUMNS), *(list(cells(line)) for line in census.statistics())])
