"""What a round's scoring pass keeps of its superpixels, for the model that proposes their classes.

One file for each shard of images, so that a hundred thousand images are two thousand files. Once
another round has replaced the round, what was asked in it is all that is left in them.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**30
"""A file whose arrays claim to be larger is damaged."""

FORMS: dict[str, tuple[type[np.generic], int]] = {
    "superpixels": (np.int64, 1), "features": (np.float16, 2), "predicted": (np.float16, 2),
    "doubt": (np.float16, 1), "labels": (np.uint8, 1), "dominant": (np.uint8, 1),
    "sizes": (np.int64, 1), "rows": (np.int32, 1), "cols": (np.int32, 1),
    "class_pixels": (np.int64, 1),
}  # fmt: skip
"""The type of each array in a file, and its number of dimensions."""

DAMAGED = (KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error)
"""The errors of zipfile and NumPy for a file that is not whole, beside ValueError."""


class ShardTraits(NamedTuple):
    """N superpixels of a shard's images, answered ones among them; F features, C classes.

    ``superpixels`` int64 (N,) are row ids; ``features`` float16 (N, F) the network's, averaged over
    mask and box; ``predicted`` float16 (N, C) its mean probabilities; ``doubt`` float16 (N,) in
    [0, 1] is SIM divided by the size. ``labels`` uint8 (N,) are the classes of the label map at the
    representative pixels ``rows`` and ``cols`` int32 (N,); ``dominant`` uint8 (N,) the dominant
    classes, ``sizes`` int64 (N,) in pixels. ``class_pixels`` int64 (C,) counts the pixels of each
    class in the label maps of all the shard's images.
    """

    superpixels: NDArray[np.int64]
    features: NDArray[np.float16]
    predicted: NDArray[np.float16]
    doubt: NDArray[np.float16]
    labels: NDArray[np.uint8]
    dominant: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    class_pixels: NDArray[np.int64]

    @classmethod
    def joined(cls, parts: Sequence[ShardTraits], classes: int) -> ShardTraits:
        """The superpixels of all parts, in their order, for so many ``classes``.

        The features are left out where some parts have none. A class that a part does not know, as
        it was added later, is improbable for its superpixels.
        """
        parts = [part._widened(classes) for part in parts]
        pixels = np.sum([part.class_pixels for part in parts] or [np.zeros(classes, np.int64)], 0)
        some = [part for part in parts if len(part.superpixels)]
        if not some:
            shapes = {"features": (0, 0), "predicted": (0, len(pixels))}
            none = {name: np.zeros(shapes.get(name, 0), kind) for name, (kind, _) in FORMS.items()}
            return cls(**{**none, "class_pixels": pixels})
        if len({part.features.shape[1] for part in some}) > 1:
            some = [part._replace(features=part.features[:, :0]) for part in some]
        columns: list[Any] = [np.concatenate(column) for column in zip(*some, strict=True)]
        return cls._make([*columns[:-1], pixels])

    def only(self, superpixels: NDArray[np.int64]) -> ShardTraits:
        """Those of these superpixels (row ids, ascending) that are among them."""
        at = np.minimum(np.searchsorted(superpixels, self.superpixels), len(superpixels) - 1)
        kept = superpixels[at] == self.superpixels if len(superpixels) else at < at
        return ShardTraits._make([*(values[kept] for values in self[:-1]), self.class_pixels])

    def without_features(self) -> ShardTraits:
        """The same with no features, which take most of the room."""
        return self._replace(features=self.features[:, :0].copy())

    def _widened(self, classes: int) -> ShardTraits:
        """The same with zeros for the classes that were added since, up to so many in all."""
        added = max(classes - len(self.class_pixels), 0)
        return self._replace(
            predicted=np.pad(self.predicted, ((0, 0), (0, added))),
            class_pixels=np.pad(self.class_pixels, (0, added)),
        )

    def packed(self) -> bytes:
        """The content of a file that :meth:`unpacked` reads."""
        content = io.BytesIO()
        np.savez(content, **self._asdict())
        return content.getvalue()

    @classmethod
    def unpacked(cls, content: bytes) -> ShardTraits:
        """What :meth:`packed` gave; ValueError for anything else."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                    raise ValueError("it claims to hold more than a gigabyte")
                read = cls(**{name: _array(archive, name) for name in cls._fields})
        except DAMAGED as error:
            raise ValueError(f"it is not whole ({error})") from error
        classes = len(read.class_pixels)
        if len({len(values) for values in read[:-1]}) > 1 or read.predicted.shape[1] != classes:
            raise ValueError("its arrays do not fit each other")
        if any(int(ids.max(initial=0)) >= classes for ids in (read.labels, read.dominant)):
            raise ValueError("it holds a class that there is not")
        if not all(np.isfinite(values).all() for values in read[1:4]):
            raise ValueError("it holds values that are not numbers")
        return read


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """An array in an .npz file; its type and size are checked before it is allocated."""
    npy: Any = np.lib.format
    kind, dimensions = FORMS[name]
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as entry:
        npy.read_magic(entry)
        shape, _, dtype = npy.read_array_header_1_0(entry)
        length = entry.tell() + math.prod(shape) * dtype.itemsize
        if dtype != kind or len(shape) != dimensions or length != member.file_size:
            raise ValueError(f"it claims to hold {shape} values of type {dtype} as {name}")
        entry.seek(0)
        read: NDArray[Any] = npy.read_array(entry, allow_pickle=False)
        return read
