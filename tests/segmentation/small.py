"""A training on small images of two classes, with the smallest network."""

from __future__ import annotations

import numpy as np

from alc_backend.segmentation.config import training_config

CLASSES = ["left", "right"]


def load(key):
    """An image dark on the left and bright on the right."""
    rng = np.random.default_rng(int(key))
    labels = np.zeros((70, 90), dtype=np.uint8)
    labels[:, 40:] = 1
    labels[:3] = 255
    image = np.where(labels[..., None] == 1, 210, 40) + rng.normal(0, 10, (70, 90, 3))
    return np.clip(image, 0, 255).astype(np.uint8), labels


def config(**changes):
    values = {"iterations": 6, "input_size": 64, "batch_size": 2, **changes}
    return training_config("cpu", **values)
