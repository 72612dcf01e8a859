"""A dataset whose networks are given as probabilities, small enough to think through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from alc_backend.segmentation.config import TrainingConfig
from alc_backend.simulate.experiment import Experiment

CLASSES = ["background", "cat", "dog", "boat"]
HEIGHT, WIDTH, CELL = 24, 32, 8
TRAINING = TrainingConfig("efficientnet-lite0", 64, 2, 2, 0.01, encoder_weights="none")


def write_world(root: Path, images: int = 5) -> tuple[Path, Path]:
    """A dataset folder and its probabilities: twelve square superpixels in each image.

    A third of the superpixels has a wrong label; the network mostly sees the truth, more or less
    surely. Some ground truth is void, and in places a superpixel holds two classes.
    """
    rng = np.random.default_rng(7)
    data, given = root / "data", root / "probabilities"
    for folder in ("images", "pseudo_labels", "objects", "ground_truth"):
        (data / folder).mkdir(parents=True)
    given.mkdir()
    (data / "classes.txt").write_text("\n".join(CLASSES))
    rows, cols = np.mgrid[:HEIGHT, :WIDTH] // CELL
    objects = (rows * (WIDTH // CELL) + cols + 1).astype(np.uint8)
    count = int(objects.max())
    for number in range(images):
        classes = rng.integers(0, len(CLASSES), count + 1).astype(np.uint8)
        truth = classes[objects]
        truth[:3, :9] = 255
        truth[10:13, 4:12] = 1
        wrong = rng.random(count + 1) < 0.35
        labels = np.where(wrong, (classes + 1) % len(CLASSES), classes).astype(np.uint8)[objects]
        seen = np.where(truth == 255, 0, truth)
        logits = rng.normal(0, 0.7, (len(CLASSES), HEIGHT, WIDTH))
        sure = rng.uniform(0.5, 3, count + 1)[objects]
        logits += sure * (np.arange(len(CLASSES))[:, None, None] == seen)
        odds = np.exp(logits)
        name = f"p{number}"
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        Image.fromarray(image).save(data / f"images/{name}.png")
        Image.fromarray(labels).save(data / f"pseudo_labels/{name}.png")
        Image.fromarray(objects).save(data / f"objects/{name}.png")
        Image.fromarray(truth).save(data / f"ground_truth/{name}.png")
        np.save(given / f"{name}.npy", (odds / odds.sum(axis=0)).astype(np.float32))
    return data, given


def experiment(given: Path, **changes) -> Experiment:
    """A row that reads its probabilities from a folder."""
    values = {
        "training": TRAINING, "budgets": (5, 20), "train": False, "model_at": "none",
        "probabilities": str(given), **changes,
    }  # fmt: skip
    return Experiment(**values)
