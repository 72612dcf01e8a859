"""A dataset with ground truth whose maps are kept in memory, for simulations."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.core import metrics
from alc_backend.datasets.dataset import Dataset
from alc_backend.datasets.images import read_image
from alc_backend.datasets.layouts import open_dataset
from alc_backend.datasets.superpixels import seeds, slic
from alc_backend.errors import DatasetError

BY_COLOUR = {"slic": slic, "seeds": seeds}
"""What partitions an image by its colours, by its name."""

SUPERPIXELS = ("objects", *BY_COLOUR)
"""Sources of superpixels: the dataset, SLIC, or SEEDS."""


@dataclass(frozen=True)
class Packed:
    """A compressed array; label maps shrink to a hundredth of their size."""

    data: bytes
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Packed:
        """``array``, compressed."""
        data = zlib.compress(np.ascontiguousarray(array).tobytes(), 1)
        return cls(data, array.dtype.str, array.shape)

    def read(self) -> NDArray[Any]:
        """The array, read-only."""
        return np.frombuffer(zlib.decompress(self.data), self.dtype).reshape(self.shape)


class Scenes:
    """The images of a dataset folder with their first label maps, superpixels and ground truth.

    ``keys`` are the image keys of the training images, sorted; ``held_out`` those of the validation
    images.
    """

    def __init__(
        self,
        root: Path,
        validation: Path | None = None,
        *,
        superpixels: str = "objects",
        superpixel_count: int = 100,
    ) -> None:
        """Read the maps; images stay on disk.

        ``problems`` says which images were left out, ``notes`` what was assumed. Raises
        DatasetError when the folder or its ground truth cannot be used.
        """
        folder = open_dataset(root, superpixel_count)
        self.classes = folder.classes
        self._paths: dict[str, Path] = {}
        self._labels: dict[str, Packed] = {}
        self._superpixels: dict[str, Packed] = {}
        self._truth: dict[str, Packed] = {}
        for sample in folder.samples():
            assert sample.labels is not None
            assert sample.superpixels is not None
            if sample.truth is None:
                raise DatasetError(
                    f"{root}: has no folder ground_truth/; a simulation needs the true label maps "
                    "to answer from"
                )
            regions = sample.superpixels
            if (partition := BY_COLOUR.get(superpixels)) is not None:
                regions = partition(read_image(sample.path), superpixel_count)
            self._paths[sample.key] = sample.path
            self._labels[sample.key] = Packed.of(sample.labels)
            self._superpixels[sample.key] = Packed.of(regions)
            self._truth[sample.key] = Packed.of(sample.truth)
        self.keys = sorted(self._labels)
        self.problems, self.notes = folder.problems, folder.notes
        if not self.keys:
            raise DatasetError(f"{root}: no image can be used: " + "; ".join(self.problems[:3]))
        self.held_out: list[str] = []
        if validation is not None:
            self._read_validation(open_dataset(validation, validation=True))

    def _read_validation(self, folder: Dataset) -> None:
        folder.use_classes(self.classes)
        for sample in folder.validation_samples():
            assert sample.truth is not None
            key = f"/val/{sample.key}"  # no key of a training image begins with /
            self._paths[key] = sample.path
            self._truth[key] = Packed.of(sample.truth)
            self.held_out.append(key)
        self.problems += folder.problems
        self.notes += folder.notes

    def path(self, key: str) -> Path:
        """The image's file."""
        return self._paths[key]

    def image(self, key: str) -> NDArray[np.uint8]:
        """The image as RGB, uint8 (H, W, 3), read from disk."""
        return read_image(self._paths[key])

    def labels(self, key: str) -> NDArray[np.uint8]:
        """The label map of the dataset, uint8 (H, W)."""
        return self._labels[key].read()

    def superpixels(self, key: str) -> NDArray[np.int32]:
        """The superpixel map, int32 (H, W)."""
        return self._superpixels[key].read()

    def truth(self, key: str) -> NDArray[np.uint8]:
        """The ground truth of a training or validation image, uint8 (H, W)."""
        return self._truth[key].read()

    @cached_property
    def superpixel_count(self) -> int:
        """The number of superpixels that can be asked about."""
        found = (np.unique(self.superpixels(key)) for key in self.keys)
        return sum(int((ids > 0).sum()) for ids in found)

    @cached_property
    def image_digest(self) -> str:
        """A name for the training images, by their content."""
        return self._digest(self.keys)

    @cached_property
    def digest(self) -> str:
        """A name for the whole dataset by its content: images, maps, classes, validation images."""
        maps = (self._labels, self._superpixels, self._truth)
        return self._digest((*self.keys, *self.held_out), "\n".join(self.classes), *maps)

    def _digest(self, keys: Iterable[str], classes: str = "", *maps: dict[str, Packed]) -> str:
        state = hashlib.sha256(classes.encode())
        for key in keys:
            state.update(key.encode())
            state.update(self._paths[key].read_bytes())
            for packed in maps:
                if key in packed:
                    state.update(packed[key].read().tobytes())
        return state.hexdigest()[:16]

    def confusion(self, labels: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.int64]:
        """The confusion matrix of label maps over all training images, int64 (C, C + 1)."""
        total = np.zeros((len(self.classes), len(self.classes) + 1), dtype=np.int64)
        for key in self.keys:
            total += metrics.confusion_matrix(self.truth(key), labels(key), len(self.classes))
        return total
