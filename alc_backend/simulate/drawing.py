"""What the built-in samples are made with: textures, mistakes of detectors, and their folders.

The same seed gives the same arrays on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from alc_backend.common.locks import only_one
from alc_backend.datasets.images import encode_label_map

TRAINING, VALIDATION = 64, 32
"""The images of a sample."""

HEIGHT, WIDTH = 192, 256


@dataclass(frozen=True)
class Scene:
    """An image with its ground truth and its imperfect labels, all of 192 × 256 pixels.

    ``image`` uint8 (H, W, 3); ``truth``, ``labels`` uint8 (H, W); ``objects`` int32 (H, W).
    """

    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    objects: NDArray[np.int32]


def write_scenes(
    root: Path,
    classes: Sequence[str],
    make: Callable[[int], Scene],
    *,
    images: int = TRAINING,
    held_out: int = VALIDATION,
) -> tuple[Path, Path]:
    """Write a sample as two dataset folders; returns (training folder, validation folder).

    ``make`` gives the scene of an index, from 0. A folder that is already complete stays
    unchanged; of several processes, one writes it.
    """
    training, validation = root / "train", root / "val"
    with only_one(root.with_name(f"{root.name}.lock")):
        _write_folder(training, classes, make, range(images))
        _write_folder(validation, classes, make, range(images, images + held_out))
    return training, validation


def _write_folder(
    folder: Path, classes: Sequence[str], make: Callable[[int], Scene], indices: Iterable[int]
) -> None:
    """Write the scenes with these indices as a dataset folder, unless it is complete."""
    if (folder / "classes.txt").is_file():
        return
    for name in ("images", "pseudo_labels", "objects", "ground_truth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in indices:
        scene = make(index)
        name = f"scene_{index:03d}"
        Image.fromarray(scene.image).save(folder / "images" / f"{name}.jpg", quality=92)
        encode_label_map(folder / "pseudo_labels" / f"{name}.png", scene.labels)
        encode_label_map(folder / "ground_truth" / f"{name}.png", scene.truth)
        Image.fromarray(scene.objects.astype(np.uint8)).save(folder / "objects" / f"{name}.png")
    (folder / "classes.txt").write_text("\n".join(classes) + "\n")


def clouds(rng: np.random.Generator, grain: int) -> NDArray[np.float64]:
    """Smooth noise of about [-1, 1] with structures of ``grain`` pixels, (H, W)."""
    coarse = rng.normal(0, 0.5, (HEIGHT // grain + 3, WIDTH // grain + 3))
    canvas = Image.fromarray(coarse.astype(np.float32))
    enlarged = canvas.resize((WIDTH + 2 * grain, HEIGHT + 2 * grain), Image.Resampling.BICUBIC)
    return np.asarray(enlarged, dtype=np.float64)[grain:-grain, grain:-grain]


def photograph(
    canvas: Image.Image, rng: np.random.Generator, noise: float = 7
) -> NDArray[np.uint8]:
    """The drawing as a camera would take it: with uneven light, a slight blur, and noise.

    ``noise`` is the standard deviation, in grey levels.
    """
    light = rng.uniform(0.75, 1.2) * (1 + 0.12 * clouds(rng, 60))[..., None]
    blurred = np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float64)
    noisy = blurred * light + rng.normal(0, noise, blurred.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def ragged(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The mask with an inaccurate border; sometimes without a strip, or with a detached crumb."""
    smooth = np.asarray(
        Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(3)),
        dtype=np.float64,
    )
    ragged = smooth / 255 + 0.35 * clouds(rng, 8) > 0.5
    ragged &= smooth > 2
    rows, cols = np.nonzero(mask)
    if rng.random() < 0.25:  # a strip is missing: the superpixel falls into pieces
        cut = int(rng.integers(cols.min(), cols.max() + 1))
        ragged[:, max(0, cut - 2) : cut + 2] = False
    if rng.random() < 0.3:  # a crumb beside the object
        row = int(np.clip(rows.mean() + rng.normal(0, 30), 0, HEIGHT - 5))
        col = int(np.clip(cols.mean() + rng.normal(0, 40), 0, WIDTH - 5))
        ragged[row : row + 4, col : col + 4] = True
    return ragged if ragged.any() else mask


def patch(rng: np.random.Generator) -> NDArray[np.bool_]:
    """The mask of a false detection: a blob of background."""
    radius = rng.uniform(12, 30)
    row, col = rng.uniform(20, HEIGHT - 20), rng.uniform(20, WIDTH - 20)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot((y - row) * 1.4, x - col) + 8 * clouds(rng, 10)
    inside: NDArray[np.bool_] = distance < radius
    return inside
