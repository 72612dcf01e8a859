"""The built-in sample: scenes by a lake, labelled with mistakes like those of Grounded-SAM.

Their objects were rendered once, in sixteen views of each class (``tools.render_views``); a
scene places some of them, the far ones first, into a landscape of its own. The same seed gives the
same dataset on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

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

VIEW, UNIT = 144, 144 / 1.72
"""The pixels of a side of a rendered view, and those of the length of a cow in it."""

FEET = 0.96
"""How far down a view the ground is that an object stands on, as a share of its side."""

HAZE = np.array([196.0, 208.0, 220.0])
"""The colour into which everything fades with the distance."""


@dataclass(frozen=True)
class Landscape:
    """Sky over hills, a lake and a meadow: uint8 (H, W, 3).

    The lake begins at the row ``horizon``, the meadow at ``shore``.
    """

    picture: NDArray[np.uint8]
    horizon: int
    shore: int


@dataclass(frozen=True)
class Placed:
    """An object of class ``name``, its feet at (row, col), and the pixels of its unit."""

    name: str
    row: float
    col: float
    size: float


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
    landscape = _landscape(rng)
    canvas = Image.fromarray(landscape.picture)
    truth = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    detections: list[tuple[int, NDArray[np.bool_]]] = []
    placed = [_place(rng, landscape) for _ in range(int(rng.integers(4, 9)))]
    for one in sorted(placed, key=lambda one: one.row):
        mask = _draw(canvas, one, rng)
        if mask.sum() < 60:
            continue
        truth[mask] = CLASSES.index(one.name)
        if rng.random() >= MISSED:
            detections.append((_seen_as(one.name, rng), ragged(mask, rng)))
    if rng.random() < FALSE_DETECTION:
        detections.insert(0, (int(rng.integers(1, len(CLASSES))), patch(rng)))
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    objects = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for number, (label, mask) in enumerate(detections, start=1):
        labels[mask] = label
        objects[mask] = number
    return Scene(photograph(canvas, rng, noise=4), truth, labels, objects)


def _seen_as(name: str, rng: np.random.Generator) -> int:
    """The class id that the detector gives an object of class ``name``."""
    if rng.random() >= WRONG_CLASS:
        return CLASSES.index(name)
    if rng.random() < 0.5:
        return CLASSES.index(MISTAKEN[name])
    others = [label for label in range(1, len(CLASSES)) if CLASSES[label] != name]
    return int(rng.choice(others))


def _place(rng: np.random.Generator, landscape: Landscape) -> Placed:
    """An object at random: a boat on the lake, anything else on the meadow."""
    name = CLASSES[int(rng.integers(1, len(CLASSES)))]
    if name == "boat":
        row = rng.uniform(landscape.horizon + 6, landscape.shore)
    else:
        row = rng.uniform(landscape.shore + 4, HEIGHT)
    size = rng.uniform(34, 62) * (0.6 + 0.6 * row / HEIGHT)
    return Placed(name, row, rng.uniform(20, WIDTH - 20), size)


def _draw(canvas: Image.Image, one: Placed, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw an object in a view at random, with its shadow; returns its mask, bool (H, W)."""
    views = _views(one.name)
    side = max(8, round(VIEW * one.size / UNIT))
    view = views[int(rng.integers(len(views)))].resize((side, side), Image.Resampling.LANCZOS)
    top_left = (round(one.col - side / 2), round(one.row - FEET * side))
    outline = Image.new("L", canvas.size)
    outline.paste(view.getchannel("A"), top_left)
    if one.name != "boat":
        canvas.paste((28, 34, 24), (0, 0), _shadow(outline, one))
    colours = Image.new("RGB", canvas.size)
    colours.paste(view.convert("RGB"), top_left)
    canvas.paste(colours, (0, 0), outline)
    return np.asarray(outline) > 127


def _shadow(outline: Image.Image, one: Placed) -> Image.Image:
    """The shadow that an outline throws to the right and behind it, with soft edges.

    What is h pixels above the feet throws it 0.16 h above them and 0.75 h to their right.
    """
    up, right = 0.16, 0.75
    sheared = (1, right / up, -right / up * one.row, 0, 1 / up, one.row - one.row / up)
    thrown = outline.transform(
        outline.size, Image.Transform.AFFINE, sheared, Image.Resampling.BILINEAR
    )
    return thrown.filter(ImageFilter.GaussianBlur(1.2)).point(lambda value: round(0.55 * value))


@cache
def _views(name: str) -> list[Image.Image]:
    """The rendered views of a class, RGBA, VIEW × VIEW pixels each."""
    source = files("alc_backend.simulate").joinpath("views", f"{name}.webp")
    with source.open("rb") as stream, Image.open(stream, formats=["WEBP"]) as opened:
        sheet = opened.convert("RGBA")
    corners = [
        (col, row) for row in range(0, sheet.height, VIEW) for col in range(0, sheet.width, VIEW)
    ]
    return [sheet.crop((col, row, col + VIEW, row + VIEW)) for col, row in corners]


def _landscape(rng: np.random.Generator) -> Landscape:
    """A landscape at random."""
    horizon = int(HEIGHT * rng.uniform(0.3, 0.42))
    shore = horizon + int((HEIGHT - horizon) * rng.uniform(0.14, 0.26))
    picture = _sky(rng, horizon)
    ridges = horizon - 7 - 16 * np.abs(clouds(rng, 48)[0]) - 2 * clouds(rng, 6)[0]
    for share, tint in ((0.35, (88, 112, 128)), (0.15, (70, 102, 84))):
        hills = np.array(tint) + 7 * clouds(rng, 4)[..., None] + rng.normal(0, 6, 3)
        inside = np.arange(HEIGHT)[:, None] > ridges + rng.uniform(-2, 4)
        picture = np.where(inside[..., None], hills * (1 - share) + HAZE * share, picture)
        ridges = ridges + 5 + 3 * clouds(rng, 20)[0]
    lake = _lake(rng, horizon)
    rows = np.arange(HEIGHT)[:, None]
    picture = np.where((rows >= horizon)[..., None], lake, picture)
    bank = shore + 1.6 * clouds(rng, 24)[0] + 0.8 * clouds(rng, 5)[0]
    picture = np.where((rows >= bank - 1.5)[..., None], np.array([150.0, 138, 108]), picture)
    picture = np.where((rows >= bank)[..., None], _meadow(rng, horizon), picture)
    return Landscape(np.clip(picture, 0, 255).astype(np.uint8), horizon, shore)


def _sky(rng: np.random.Generator, horizon: int) -> NDArray[np.float64]:
    """A sky with clouds that is paler toward the horizon, (H, W, 3)."""
    fade = np.clip(np.arange(HEIGHT) / horizon, 0, 1)[:, None, None]
    zenith = np.array([96, 148, 212]) + rng.normal(0, 10, 3)
    sky = zenith * (1 - fade) + np.array([190, 212, 232]) * fade
    cover = clouds(rng, 40) + 0.6 * clouds(rng, 18) + 0.35 * clouds(rng, 8) + 0.2 * clouds(rng, 4)
    cover = np.clip((cover - rng.uniform(-0.1, 0.5)) * 1.6, 0, 0.92)[..., None]
    light = 246 - 26 * np.clip(clouds(rng, 18), 0, 1)[..., None]
    return np.asarray(sky * (1 - cover) + light * cover)


def _lake(rng: np.random.Generator, horizon: int) -> NDArray[np.float64]:
    """Water that mirrors the sky, with ripples, (H, W, 3)."""
    ripples = _on_the_ground(rng, horizon, 0.9, 9.0)
    water = np.array([86, 122, 150]) + rng.normal(0, 8, 3)
    return np.asarray(water + 15 * ripples[..., None])


def _meadow(rng: np.random.Generator, horizon: int) -> NDArray[np.float64]:
    """Grass with darker and drier parts, (H, W, 3)."""
    green = np.array([106, 134, 66]) + rng.normal(0, 9, 3)
    dry = np.array([168, 160, 98]) + rng.normal(0, 8, 3)
    share = np.clip(0.28 + 0.34 * _on_the_ground(rng, horizon, 1.4, 1.4), 0, 1)[..., None]
    tufts = 13 * _on_the_ground(rng, horizon, 7, 7) + 11 * _on_the_ground(rng, horizon, 22, 9)
    tufts = tufts + 12 * _on_the_ground(rng, horizon, 70, 24)
    depth = np.clip((np.arange(HEIGHT) - horizon) / (HEIGHT - horizon), 0, 1)[:, None, None]
    haze = 0.3 * (1 - depth) ** 2
    meadow = green * (1 - share) + dry * share + tufts[..., None] * (0.35 + 0.65 * depth)
    return np.asarray(meadow * (1 - haze) + HAZE * haze)


def _on_the_ground(
    rng: np.random.Generator, horizon: int, across: float, along: float
) -> NDArray[np.float64]:
    """Smooth noise of about [-1, 1] that lies on the ground and recedes to the horizon, (H, W).

    ``across`` and ``along`` are how many structures there are on a length that is as wide as the
    foreground, from side to side and into the distance.
    """
    cells = 64
    tile = rng.normal(0, 0.55, (cells, cells))
    near = HEIGHT - horizon
    distance = near / np.maximum(np.arange(HEIGHT) - horizon, 1)[:, None]
    col = (np.arange(WIDTH)[None, :] - WIDTH / 2) / WIDTH * distance * across
    row = distance * along * np.ones((1, WIDTH))
    found = ndimage.map_coordinates(tile, [row, col], order=3, mode="grid-wrap")
    return np.asarray(found)
