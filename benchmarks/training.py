"""Measure what the cpu preset learns from a dataset, and the time and memory that it takes.

``python -m benchmarks.training DATA [FILE]``: DATA contains ``train/`` and ``val/``. The trainings
are three: on the pseudo labels, on ground truth, and on ground truth from random weights. Then the
network is timed in relation to pool and SIM, and its memory measured after 50 and 150 images.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Console

from alc_backend.core.acquisition import measure
from alc_backend.core.metrics import class_iou, confusion_matrix
from alc_backend.core.pool import representative_pixels
from alc_backend.core.statistics import ImageStatistics
from alc_backend.datasets.classes import read_classes
from alc_backend.datasets.images import read_image, read_mask
from alc_backend.segmentation.config import TrainingConfig, training_config
from alc_backend.segmentation.infer import Predictor
from alc_backend.segmentation.train import train

COMMON = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
"""Classes frequent enough to be learned in 400 iterations."""

TRAININGS = {
    "pseudo labels": ("pseudo_labels", "imagenet"),
    "ground truth": ("ground_truth", "imagenet"),
    "ground truth, random weights": ("ground_truth", "none"),
}
"""The trainings by name: folder of the label maps, weights of the encoder."""

console = Console(stderr=True)


def image_files(folder: Path) -> dict[str, Path]:
    """The path of each image by its key, sorted."""
    return {path.stem: path for path in sorted((folder / "images").glob("*.jpg"))}


def mask(folder: Path, key: str) -> NDArray[np.uint8]:
    """The label map of an image, uint8 (H, W)."""
    return read_mask(folder / f"{key}.png").astype(np.uint8)


def run(
    root: Path, labels: str, config: TrainingConfig, classes: list[str], path: Path
) -> dict[str, Any]:
    """The wall time of one training, and the IoU of its network on the validation images."""
    images = image_files(root / "train")
    began = time.perf_counter()
    train(
        config,
        sorted(images),
        lambda key: (read_image(images[key]), mask(root / "train" / labels, key)),
        classes=classes,
        path=path,
        data_version=labels,
        progress=lambda done, total, message: console.print(
            f"{labels}: {done}/{total} {message}", end="\r"
        ),
    )
    wall = time.perf_counter() - began
    predictor = Predictor(path, classes)
    confusion = np.zeros((len(classes), len(classes) + 1), dtype=np.int64)
    for key, image in image_files(root / "val").items():
        predicted = predictor.probabilities(read_image(image)).argmax(axis=0).astype(np.uint8)
        confusion += confusion_matrix(
            mask(root / "val" / "ground_truth", key), predicted, len(classes)
        )
    iou = dict(zip(classes, class_iou(confusion).tolist(), strict=True))
    return {
        "seconds": wall,
        "mean IoU of the common classes": float(np.mean([iou[name] for name in COMMON])),
        "class IoU": {name: value for name, value in iou.items() if not np.isnan(value)},
    }


def scoring(root: Path, classes: list[str], path: Path) -> dict[str, Any]:
    """The time of network and scoring per image, and the resident memory after some images."""
    predictor = Predictor(path, classes)
    spent = {"network": 0.0, "pool + SIM": 0.0}
    resident = {}
    for number, (key, file) in enumerate(list(image_files(root / "train").items())[:151]):
        image = read_image(file)
        labels = mask(root / "train" / "pseudo_labels", key)
        superpixels = read_mask(root / "train" / "objects" / f"{key}.png")
        began = time.perf_counter()
        probabilities = predictor.probabilities(image)
        between = time.perf_counter()
        statistics = ImageStatistics(probabilities, labels, superpixels)
        measure(statistics, representative_pixels(statistics))
        if number:  # the first image loads the kernels
            spent["network"] += between - began
            spent["pool + SIM"] += time.perf_counter() - between
        if number in (50, 150):
            resident[number] = psutil.Process().memory_info().rss / 2**20
    return {
        "network (ms)": 1000 * spent["network"] / 150,
        "pool + SIM (ms)": 1000 * spent["pool + SIM"] / 150,
        "share": spent["pool + SIM"] / spent["network"],
        "resident after 50 (MiB)": resident[50],
        "resident after 150 (MiB)": resident[150],
    }


def main() -> None:
    """Measure everything, print it as JSON, and write FILE if it is named."""
    root = Path(sys.argv[1])
    classes = read_classes(root / "train" / "classes.txt")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (labels, weights) in TRAININGS.items():
            path = Path(folder) / f"{labels}-{weights}.safetensors"
            config = training_config("cpu", encoder_weights=weights)
            result[name] = run(root, labels, config, classes, path)
        result["scoring"] = scoring(
            root, classes, Path(folder) / "pseudo_labels-imagenet.safetensors"
        )
    document = json.dumps(result, indent=1)
    print(document)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(document + "\n")


if __name__ == "__main__":
    main()
