"""What a round's scoring pass keeps of its superpixels, for the model that proposes their classes.

One file for each shard of images, so that a hundred thousand images are two thousand files.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**30
"""A file whose arrays claim to be larger is damaged."""


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

        A class that a part does not know, as it was added later, is improbable for its superpixels.
        """
        if not parts:
            none = np.zeros(0)
            return cls(
                none.astype(np.int64), np.zeros((0, 0), np.float16),
                np.zeros((0, classes), np.float16), none.astype(np.float16), none.astype(np.uint8),
                none.astype(np.uint8), none.astype(np.int64), none.astype(np.int32),
                none.astype(np.int32), np.zeros(classes, np.int64),
            )  # fmt: skip
        *columns, pixels = zip(*(part._widened(classes) for part in parts), strict=True)
        whole: list[Any] = [np.concatenate(column) for column in columns]
        return cls._make([*whole, np.sum(pixels, axis=0)])

    def _widened(self, classes: int) -> ShardTraits:
        """The same with zeros for the classes that were added since, up to so many in all."""
        added = max(classes - self.predicted.shape[1], 0)
        return self._replace(
            predicted=np.pad(self.predicted, ((0, 0), (0, added))),
            class_pixels=np.pad(self.class_pixels, (0, max(classes - len(self.class_pixels), 0))),
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
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                found: dict[str, NDArray[Any]] = {name: arrays[name] for name in cls._fields}
        except (KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"it is not whole ({error})") from error
        read = cls(**found)
        if len({len(values) for values in read[:-1]}) > 1:
            raise ValueError("its arrays do not fit each other")
        return read
