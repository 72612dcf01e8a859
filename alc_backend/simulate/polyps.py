"""The built-in sample of two classes: drawn endoscopic images with polyps, as Kvasir-SEG has.

They are labelled as Grounded-SAM labels a field that its detector knows little of, with a box
threshold of 0.05: whatever it finds, mucosa too, is a polyp. The same seed gives the same dataset
on every machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from alc_backend.simulate.drawing import (
    HEIGHT,
    TRAINING,
    VALIDATION,
    WIDTH,
    Scene,
    clouds,
    photograph,
    ragged,
    write_scenes,
)

CLASSES = ["background", "polyp"]

MISSED, TOO_LARGE, FALSE_DETECTION = 0.06, 0.15, 0.7
"""The shares of polyps that are missed and of those whose mask reaches beyond them, and of the
parts of the mucosa that are taken for a polyp."""

RADII = (9.0, 52.0)
"""The smallest and the largest radius of a polyp, in pixels."""

_TAG = 2
"""Keeps the random numbers apart from those of the other sample."""


def write_polyps(
    root: Path, seed: int = 0, *, images: int = TRAINING, held_out: int = VALIDATION
) -> tuple[Path, Path]:
    """Write the polyps as two dataset folders; returns (training folder, validation folder).

    A folder that is already complete stays unchanged; of several processes, one writes it.
    """
    return write_scenes(
        root, CLASSES, lambda index: make_polyps(seed, index), images=images, held_out=held_out
    )


def make_polyps(seed: int, index: int) -> Scene:
    """Image ``index`` of the polyps with this seed."""
    rng = np.random.default_rng([seed, index, _TAG])
    picture = _mucosa(rng)
    truth = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    detections = [part for part in _parts(rng) if rng.random() < FALSE_DETECTION]
    for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))):
        mask = _grow(picture, rng)
        truth[mask] = 1
        if rng.random() >= MISSED:
            seen = _widened(mask) if rng.random() < TOO_LARGE else mask
            detections.append(ragged(seen, rng))
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    objects = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for number, mask in enumerate(detections, start=1):
        labels[mask] = 1
        objects[mask] = number
    canvas = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return Scene(photograph(canvas, rng), truth, labels, objects)


def _mucosa(rng: np.random.Generator) -> NDArray[np.float64]:
    """Pink, folded, veined mucosa around a dark lumen, (H, W, 3) of 0 to 255."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    row, col = rng.uniform(0.1, 0.9, 2) * (HEIGHT, WIDTH)
    distance = np.hypot(y - row, x - col) + 10 * clouds(rng, 24)
    tone = np.array([206, 122, 108]) + rng.normal(0, 9, 3)
    picture = np.broadcast_to(tone, (HEIGHT, WIDTH, 3)).astype(np.float64)
    picture += 16 * clouds(rng, 40)[..., None] + 7 * clouds(rng, 6)[..., None]
    folds = np.sin(distance / rng.uniform(7, 12))
    picture += 9 * folds[..., None] * np.clip(distance / 160, 0, 1)[..., None]
    veins = np.abs(clouds(rng, 18)) < 0.035
    picture[veins] -= (14, 34, 30)
    depth = np.clip(distance / rng.uniform(28, 60), 0.18, 1)
    return np.asarray(picture * depth[..., None])


def _grow(picture: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw one polyp into ``picture``, (H, W, 3); returns its mask, bool (H, W)."""
    radius = float(np.exp(rng.uniform(*np.log(RADII))))
    edge = min(radius, 30.0)
    row, col = rng.uniform(edge, HEIGHT - edge), rng.uniform(edge, WIDTH - edge)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    turn, flat = rng.uniform(0, np.pi), rng.uniform(1.0, 1.5)
    along = (x - col) * np.cos(turn) + (y - row) * np.sin(turn)
    across = (y - row) * np.cos(turn) - (x - col) * np.sin(turn)
    distance = np.hypot(along / flat, across) / radius + 0.12 * clouds(rng, 10)
    mask: NDArray[np.bool_] = distance < 1
    mask[int(row), int(col)] = True
    dome = np.sqrt(np.clip(1 - distance**2, 0, 1))
    tone = np.array([214, 96, 92]) + rng.normal(0, 10, 3)
    shade = (0.55 + 0.5 * dome)[..., None] * tone + 11 * clouds(rng, 4)[..., None]
    picture[mask] = shade[mask]
    glint = np.hypot(y - row + radius / 3, x - col + radius / 4) < max(1.5, radius / 9)
    picture[glint & mask] = (250, 240, 236)
    return mask


def _parts(rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """Masks, bool (H, W), that divide the image into parts with uneven borders."""
    count = int(rng.integers(6, 12))
    rows, cols = rng.uniform(0, HEIGHT, count), rng.uniform(0, WIDTH, count)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distances = np.hypot(y - rows[:, None, None], x - cols[:, None, None])
    distances += np.stack([9 * clouds(rng, 14) for _ in range(count)])
    nearest = distances.argmin(axis=0)
    return [mask for number in range(count) if (mask := nearest == number).any()]


def _widened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with a margin of about six pixels."""
    image = Image.fromarray((mask * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.MaxFilter(13))) > 0
