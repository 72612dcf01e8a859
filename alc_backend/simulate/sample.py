"""The built-in sample: drawn outdoor scenes, labelled with mistakes like those of Grounded-SAM.

The same seed gives the same dataset on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from alc_backend.simulate.drawing import (
    HEIGHT,
    TRAINING,
    VALIDATION,
    WIDTH,
    Scene,
    clouds,
    patch,
    photograph,
    ragged,
    write_scenes,
)

CLASSES = ["background", "tree", "house", "car", "cow", "horse", "boat", "person", "ball"]

MISTAKEN = {"tree": "boat", "house": "car", "car": "boat", "cow": "horse", "horse": "cow",
            "boat": "house", "person": "tree", "ball": "person"}  # fmt: skip
"""The class an object is most often mistaken for."""

WRONG_CLASS, MISSED, FALSE_DETECTION = 0.45, 0.08, 0.7
"""The shares of objects with a wrong class and of missed objects; false detections per image."""


def write_sample(
    root: Path, seed: int = 0, *, images: int = TRAINING, held_out: int = VALIDATION
) -> tuple[Path, Path]:
    """Write the sample as two dataset folders; returns (training folder, validation folder).

    A folder that is already complete stays unchanged; of several processes, one writes it.
    """
    return write_scenes(
        root, CLASSES, lambda index: make_scene(seed, index), images=images, held_out=held_out
    )


def make_scene(seed: int, index: int) -> Scene:
    """Scene ``index`` of the sample with this seed."""
    rng = np.random.default_rng([seed, index])
    canvas = Image.fromarray(_backdrop(rng))
    truth = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    detections: list[tuple[int, NDArray[np.bool_]]] = []
    for _ in range(int(rng.integers(4, 9))):
        name = CLASSES[int(rng.integers(1, len(CLASSES)))]
        mask = _draw(canvas, name, rng)
        if mask.sum() < 60:
            continue
        truth[mask] = CLASSES.index(name)
        if rng.random() >= MISSED:
            detections.append((_seen_as(name, rng), ragged(mask, rng)))
    if rng.random() < FALSE_DETECTION:
        detections.insert(0, (int(rng.integers(1, len(CLASSES))), patch(rng)))
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    objects = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for number, (label, mask) in enumerate(detections, start=1):
        labels[mask] = label
        objects[mask] = number
    return Scene(photograph(canvas, rng), truth, labels, objects)


def _seen_as(name: str, rng: np.random.Generator) -> int:
    """The class id that the detector gives an object of class ``name``."""
    if rng.random() >= WRONG_CLASS:
        return CLASSES.index(name)
    if rng.random() < 0.5:
        return CLASSES.index(MISTAKEN[name])
    others = [label for label in range(1, len(CLASSES)) if CLASSES[label] != name]
    return int(rng.choice(others))


def _backdrop(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sky with soft clouds over uneven grass, uint8 (H, W, 3)."""
    horizon = int(HEIGHT * rng.uniform(0.3, 0.5))
    sky = np.array([135, 170, 215]) + rng.normal(0, 14, 3)
    ground = np.array([118, 132, 84]) + rng.normal(0, 16, 3)
    scene = np.empty((HEIGHT, WIDTH, 3))
    fade = np.linspace(0, 1, HEIGHT)[:, None, None]
    scene[:] = ground * (0.75 + 0.4 * fade)
    scene[:horizon] = (sky * (0.9 + 0.3 * fade))[:horizon]
    scene += 26 * clouds(rng, 24)[..., None] + 12 * clouds(rng, 5)[..., None]
    return np.clip(scene, 0, 255).astype(np.uint8)


def _draw(canvas: Image.Image, name: str, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw one object of class ``name`` at random; returns its mask, bool (H, W)."""
    depth = rng.uniform(0.45, 0.95)
    brush = _Brush(
        col=rng.uniform(20, WIDTH - 20),
        row=HEIGHT * depth,
        size=rng.uniform(34, 62) * (0.6 + 0.6 * depth),
        mirror=bool(rng.integers(2)),
        rng=rng,
    )
    _SHAPES[name](brush)
    colours, mask = brush.finish()
    canvas.paste(colours, (0, 0), Image.fromarray((mask * 255).astype(np.uint8)))
    return mask


class _Brush:
    """Draws in units of the object's size; (0, 0) is the middle of its base, y points up."""

    def __init__(
        self, *, col: float, row: float, size: float, mirror: bool, rng: np.random.Generator
    ) -> None:
        self.rng = rng
        self._col, self._row, self._size, self._mirror = col, row, size, mirror
        self._colours = Image.new("RGB", (WIDTH, HEIGHT))
        self._mask = Image.new("L", (WIDTH, HEIGHT))

    def tint(self, red: int, green: int, blue: int, spread: float = 12) -> tuple[int, int, int]:
        shade = np.clip(np.array([red, green, blue]) + self.rng.normal(0, spread, 3), 0, 255)
        return int(shade[0]), int(shade[1]), int(shade[2])

    def polygon(self, points: list[tuple[float, float]], colour: tuple[int, int, int]) -> None:
        corners = [self._pixel_at(x, y) for x, y in points]
        ImageDraw.Draw(self._colours).polygon(corners, fill=colour)
        ImageDraw.Draw(self._mask).polygon(corners, fill=255)

    def ellipse(
        self, x: float, y: float, width: float, height: float, colour: tuple[int, int, int]
    ) -> None:
        turn = [2 * math.pi * step / 28 for step in range(28)]
        self.polygon(
            [(x + width / 2 * math.cos(t), y + height / 2 * math.sin(t)) for t in turn], colour
        )

    def box(
        self, x: float, y: float, width: float, height: float, colour: tuple[int, int, int]
    ) -> None:
        self.polygon([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], colour)

    def finish(self) -> tuple[Image.Image, NDArray[np.bool_]]:
        """The drawn colours with a texture, and the mask of the drawing."""
        texture = 16 * clouds(self.rng, 4)[..., None]
        colours = np.clip(np.asarray(self._colours, dtype=np.float64) + texture, 0, 255)
        return Image.fromarray(colours.astype(np.uint8)), np.asarray(self._mask) > 0

    def _pixel_at(self, x: float, y: float) -> tuple[float, float]:
        x = -x if self._mirror else x
        return self._col + x * self._size, self._row - y * self._size


def _tree(brush: _Brush) -> None:
    brush.box(-0.07, 0, 0.14, 0.6, brush.tint(95, 68, 44))
    for _ in range(9):
        x, y = brush.rng.normal(0, 0.2), brush.rng.normal(0.95, 0.18)
        brush.ellipse(x, y, 0.5, 0.45, brush.tint(42, 92, 40))


def _house(brush: _Brush) -> None:
    brush.box(-0.55, 0, 1.1, 0.65, brush.tint(196, 178, 150))
    brush.polygon([(-0.65, 0.65), (0.65, 0.65), (0.0, 1.15)], brush.tint(150, 60, 48))
    brush.box(-0.1, 0, 0.2, 0.38, brush.tint(84, 58, 40))
    for x in (-0.42, 0.22):
        brush.box(x, 0.3, 0.2, 0.2, brush.tint(70, 90, 120))


def _car(brush: _Brush) -> None:
    paint = brush.tint(*[(178, 32, 36), (38, 62, 150), (205, 205, 210)][brush.rng.integers(3)])
    brush.box(-0.7, 0.12, 1.4, 0.26, paint)
    brush.polygon([(-0.42, 0.38), (0.38, 0.38), (0.22, 0.64), (-0.26, 0.64)], paint)
    brush.polygon([(-0.34, 0.4), (0.3, 0.4), (0.18, 0.58), (-0.22, 0.58)], brush.tint(60, 75, 90))
    for x in (-0.42, 0.42):
        brush.ellipse(x, 0.13, 0.27, 0.27, brush.tint(25, 25, 27, 5))


def _animal(brush: _Brush, coat: tuple[int, int, int], neck: float) -> None:
    for x in (-0.38, -0.24, 0.2, 0.34):
        brush.box(x, 0, 0.09, 0.4, coat)
    brush.ellipse(0, 0.55, 1.0, 0.45, coat)
    brush.polygon([(0.3, 0.5), (0.5, 0.55), (0.62, neck), (0.48, neck)], coat)
    brush.ellipse(0.62, neck, 0.32, 0.2, coat)


def _cow(brush: _Brush) -> None:
    _animal(brush, brush.tint(226, 222, 214), 0.72)
    for _ in range(5):
        x, y = brush.rng.uniform(-0.34, 0.34), brush.rng.uniform(0.45, 0.65)
        brush.ellipse(x, y, 0.24, 0.15, brush.tint(36, 30, 28, 5))


def _horse(brush: _Brush) -> None:
    _animal(brush, brush.tint(122, 74, 42), 1.02)
    brush.polygon([(0.26, 0.66), (0.36, 0.6), (0.52, 1.06), (0.42, 1.1)], brush.tint(40, 26, 20))
    brush.polygon([(-0.5, 0.6), (-0.44, 0.66), (-0.62, 0.2)], brush.tint(40, 26, 20))


def _boat(brush: _Brush) -> None:
    brush.polygon([(-0.7, 0.24), (0.7, 0.24), (0.48, 0), (-0.5, 0)], brush.tint(52, 76, 116))
    brush.box(-0.03, 0.24, 0.06, 1.0, brush.tint(105, 78, 50))
    brush.polygon([(0.05, 0.3), (0.55, 0.34), (0.05, 1.2)], brush.tint(238, 236, 228, 6))
    brush.polygon([(-0.05, 0.32), (-0.42, 0.36), (-0.05, 1.05)], brush.tint(228, 140, 60))


def _person(brush: _Brush) -> None:
    for x in (-0.13, 0.03):
        brush.box(x, 0, 0.1, 0.5, brush.tint(44, 48, 74))
    shirt = brush.tint(214, 92, 150)
    brush.box(-0.17, 0.46, 0.34, 0.46, shirt)
    brush.polygon([(-0.17, 0.9), (-0.32, 0.5), (-0.24, 0.48), (-0.1, 0.85)], shirt)
    brush.polygon([(0.17, 0.9), (0.32, 0.5), (0.24, 0.48), (0.1, 0.85)], shirt)
    brush.ellipse(0, 1.04, 0.24, 0.27, brush.tint(222, 176, 148))


def _ball(brush: _Brush) -> None:
    brush.ellipse(0, 0.3, 0.6, 0.6, brush.tint(236, 206, 50))
    brush.polygon(
        [(-0.28, 0.36), (0.28, 0.36), (0.28, 0.24), (-0.28, 0.24)], brush.tint(30, 110, 190)
    )


_SHAPES: dict[str, Callable[[_Brush], None]] = {
    "tree": _tree, "house": _house, "car": _car, "cow": _cow, "horse": _horse, "boat": _boat,
    "person": _person, "ball": _ball,
}  # fmt: skip
