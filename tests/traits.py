"""What a round keeps of superpixels, made up."""

from __future__ import annotations

import numpy as np

from alc_backend.store.traits import ShardTraits


def some_traits(superpixels, *, features=4, classes=3) -> ShardTraits:
    """Traits of these superpixels (row ids), which depend on nothing else."""
    ids = np.array(superpixels, dtype=np.int64)
    return ShardTraits(
        superpixels=ids,
        features=np.outer(ids, np.arange(features)).astype(np.float16),
        predicted=np.full((len(ids), classes), 1 / classes, np.float16),
        doubt=(1 / (1 + ids)).astype(np.float16),
        labels=(ids % classes).astype(np.uint8),
        dominant=((ids + 1) % classes).astype(np.uint8),
        sizes=ids * 10,
        rows=ids.astype(np.int32),
        cols=(ids + 1).astype(np.int32),
        class_pixels=np.full(classes, 7, np.int64),
    )


def are_equal(one: ShardTraits, other: ShardTraits) -> bool:
    """Whether all arrays have the same types and values."""
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))
