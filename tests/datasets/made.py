"""Images to write in a layout, and the reading of what was written."""

from __future__ import annotations

import numpy as np
from PIL import Image

from alc_backend.datasets.dataset import OutputImage
from alc_backend.datasets.layouts import FOR_TRAINING_ONLY, WRITERS, open_dataset
from tests.conftest import CLASSES

READABLE = [name for name in WRITERS if name not in FOR_TRAINING_ONLY]
"""The formats that are read as well."""

SHAPE = (30, 41)
KEYS = ["a", "deep/er/b", "town/c.d", "_/e", "ünï code"]


def output_image(root, key, *, seed=0, classes=CLASSES, largest=9):
    """An image with superpixels, void, and pixels outside of all superpixels."""
    rng = np.random.default_rng(seed)
    superpixels = np.kron(rng.integers(0, 6, (5, 5)), np.ones((6, 9), dtype=int))[:, :41]
    superpixels[superpixels == 5] = largest
    labels = np.kron(rng.integers(0, len(classes), (6, 5)), np.ones((5, 9), dtype=int))[:, :41]
    labels[10:14, 3:30] = 255
    path = root / f"{seed}.png"
    Image.fromarray(rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)).save(path)
    return OutputImage(key, ".png", path, labels.astype(np.uint8), superpixels.astype(np.int32))


def read(root, **options):
    """A reader of the dataset in ``root``, and its samples by key."""
    dataset = open_dataset(root, **options)
    return dataset, {sample.key: sample for sample in dataset.samples()}
