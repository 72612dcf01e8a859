"""The objects of the built-in sample as signed distance fields; ``tools.render_views`` shows them.

A unit is the length of a cow; y points up, the ground is at 0, and an object looks along x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Colour = tuple[float, float, float]


def noise(points: Array, seed: int, scale: float) -> Array:
    """Smooth noise of about [-1, 1] with structures of ``scale`` units; (N, 3) → (N,)."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(0, 1 / scale, (24, 3))
    return np.cos(points @ waves.T + rng.uniform(0, 6.3, 24)).sum(axis=1) / np.sqrt(24 / 2)


def ellipsoid(points: Array, centre: Colour, radii: Colour) -> Array:
    """The distance to an ellipsoid, nearly."""
    shifted, semi = points - centre, np.array(radii)
    near = np.linalg.norm(shifted / semi, axis=1)
    return near * (near - 1) / np.maximum(np.linalg.norm(shifted / semi**2, axis=1), 1e-9)


def limb(points: Array, a: Colour, b: Colour, thick: float, thin: float) -> Array:
    """The distance to a rounded rod from ``a`` to ``b``, whose radius goes from thick to thin."""
    start, along = np.array(a), np.subtract(b, a)
    share = np.clip((points - start) @ along / (along @ along), 0, 1)
    return (
        np.linalg.norm(points - start - share[:, None] * along, axis=1)
        - thick * (1 - share)
        - thin * share
    )


def box(points: Array, centre: Colour, half: Colour, rounded: float = 0.02) -> Array:
    """The distance to a box with rounded edges."""
    beyond = np.abs(points - centre) - np.array(half) + rounded
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=1)
    return outside + np.minimum(beyond.max(axis=1), 0) - rounded


def disc(points: Array, centre: Colour, radius: float, half: float) -> Array:
    """The distance to a wheel: a short cylinder along z."""
    shifted = points - centre
    return np.maximum(np.hypot(shifted[:, 0], shifted[:, 1]) - radius, np.abs(shifted[:, 2]) - half)


def triangle(points: Array, corners: list[tuple[float, float]], half: float) -> Array:
    """The distance to a plate with three corners in the x-y plane, counter-clockwise."""
    found = np.abs(points[:, 2]) - half
    for (x, y), (x2, y2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        length = np.hypot(x2 - x, y2 - y)
        side = (points[:, 0] - x) * (y2 - y) - (points[:, 1] - y) * (x2 - x)
        found = np.maximum(found, side / length)
    return found


@dataclass
class Shape:
    """Solids of one colour each, joined one after another."""

    points: Array
    distance: Array = field(init=False)
    colours: Array = field(init=False)
    _nearest: Array = field(init=False)

    def __post_init__(self) -> None:
        self.distance = np.full(len(self.points), 9.0)
        self._nearest = self.distance.copy()
        self.colours = np.zeros_like(self.points)

    def add(self, distance: Array, colour: Colour | Array, blend: float = 0.0) -> None:
        """Join a solid; ``blend`` is how far it flows into what is there, in units."""
        overlap = np.maximum(blend - np.abs(self.distance - distance), 0)
        flown = overlap**2 / (4 * max(blend, 1e-9))
        nearer = distance < self._nearest
        self.colours[nearer] = np.broadcast_to(colour, self.points.shape)[nearer]
        self._nearest = np.minimum(self._nearest, distance)
        self.distance = np.minimum(self.distance, distance) - flown


def either_side(add: Callable[[float], None]) -> None:
    """Add something to the near side and to the far one."""
    for side in (-1.0, 1.0):
        add(side)


def shade(colour: Colour, rng: np.random.Generator, spread: float = 0.03) -> Colour:
    """A colour close to the given one."""
    red, green, blue = np.clip(np.array(colour) + rng.normal(0, spread, 3), 0.01, 0.95)
    return float(red), float(green), float(blue)


def choice(rng: np.random.Generator, *colours: Colour) -> Colour:
    """A colour close to one of those given."""
    return shade(colours[int(rng.integers(len(colours)))], rng)


def cow(shape: Shape, rng: np.random.Generator) -> None:
    """A cow with black spots."""
    p = shape.points
    spots = noise(p, int(rng.integers(1 << 30)), 0.13)[:, None] > 0.55
    coat = np.where(spots, (0.03, 0.025, 0.02), shade((0.8, 0.77, 0.72), rng))
    pink = (0.72, 0.42, 0.36)
    shape.add(ellipsoid(p, (0, 0.56, 0), (0.43, 0.2, 0.19)), coat)
    shape.add(ellipsoid(p, (0.25, 0.56, 0), (0.2, 0.2, 0.17)), coat, 0.1)
    shape.add(limb(p, (0.3, 0.62, 0), (0.55, 0.76, 0), 0.14, 0.1), coat, 0.1)
    shape.add(limb(p, (0.56, 0.78, 0), (0.72, 0.69, 0), 0.105, 0.075), coat, 0.05)
    shape.add(ellipsoid(p, (0.76, 0.66, 0), (0.065, 0.06, 0.075)), pink, 0.03)
    shape.add(ellipsoid(p, (-0.17, 0.38, 0), (0.11, 0.07, 0.09)), pink, 0.04)
    shape.add(limb(p, (-0.42, 0.66, 0), (-0.5, 0.28, 0), 0.03, 0.018), coat, 0.05)
    shape.add(ellipsoid(p, (-0.5, 0.25, 0), (0.035, 0.07, 0.035)), (0.03, 0.025, 0.02), 0.02)

    def sides(z: float) -> None:
        for x in (-0.3, 0.29):
            shape.add(limb(p, (x, 0.5, 0.1 * z), (x, 0.08, 0.1 * z), 0.085, 0.045), coat, 0.06)
            shape.add(
                limb(p, (x, 0.07, 0.1 * z), (x + 0.01, 0.03, 0.1 * z), 0.05, 0.05),
                (0.05, 0.04, 0.03),
            )
        shape.add(ellipsoid(p, (0.5, 0.83, 0.14 * z), (0.035, 0.04, 0.08)), coat, 0.02)
        shape.add(
            limb(p, (0.52, 0.87, 0.06 * z), (0.55, 0.97, 0.1 * z), 0.026, 0.012), (0.6, 0.52, 0.4)
        )
        shape.add(ellipsoid(p, (0.63, 0.8, 0.075 * z), (0.02, 0.02, 0.02)), (0.01, 0.01, 0.01))

    either_side(sides)


def horse(shape: Shape, rng: np.random.Generator) -> None:
    """A brown horse with a dark mane and tail."""
    p = shape.points
    coat = choice(rng, (0.3, 0.12, 0.05), (0.22, 0.1, 0.045), (0.4, 0.19, 0.08))
    dark = (0.035, 0.022, 0.015)
    shape.add(ellipsoid(p, (0, 0.7, 0), (0.4, 0.18, 0.16)), coat)
    shape.add(ellipsoid(p, (-0.24, 0.72, 0), (0.19, 0.18, 0.16)), coat, 0.08)
    shape.add(limb(p, (0.28, 0.76, 0), (0.52, 1.1, 0), 0.15, 0.085), coat, 0.1)
    shape.add(limb(p, (0.53, 1.13, 0), (0.76, 0.97, 0), 0.09, 0.052), coat, 0.05)
    shape.add(limb(p, (0.2, 0.93, 0), (0.46, 1.21, 0), 0.045, 0.05), dark, 0.02)
    shape.add(limb(p, (-0.4, 0.8, 0), (-0.53, 0.6, 0), 0.05, 0.06), dark, 0.03)
    shape.add(limb(p, (-0.53, 0.6, 0), (-0.55, 0.28, 0), 0.06, 0.02), dark, 0.03)

    def sides(z: float) -> None:
        for x, knee in ((-0.3, 0.05), (0.28, -0.02)):
            shape.add(
                limb(p, (x, 0.64, 0.09 * z), (x - knee, 0.34, 0.09 * z), 0.09, 0.045), coat, 0.06
            )
            shape.add(
                limb(p, (x - knee, 0.34, 0.09 * z), (x, 0.07, 0.09 * z), 0.042, 0.034), coat, 0.02
            )
            shape.add(limb(p, (x, 0.07, 0.09 * z), (x + 0.02, 0.03, 0.09 * z), 0.042, 0.046), dark)
        shape.add(limb(p, (0.49, 1.19, 0.045 * z), (0.49, 1.28, 0.06 * z), 0.032, 0.01), coat, 0.02)
        shape.add(ellipsoid(p, (0.62, 1.11, 0.065 * z), (0.018, 0.02, 0.015)), (0.01, 0.01, 0.01))

    either_side(sides)


def person(shape: Shape, rng: np.random.Generator) -> None:
    """A person who walks or stands."""
    p = shape.points
    skin = choice(rng, (0.68, 0.42, 0.3), (0.5, 0.28, 0.18), (0.75, 0.5, 0.4))
    shirt = choice(rng, (0.65, 0.1, 0.3), (0.7, 0.22, 0.42), (0.62, 0.06, 0.12))
    trousers = choice(rng, (0.03, 0.045, 0.12), (0.06, 0.07, 0.1))
    hair = choice(rng, (0.04, 0.025, 0.015), (0.2, 0.1, 0.04), (0.45, 0.3, 0.1))
    stride = float(rng.uniform(0.02, 0.16))
    shape.add(limb(p, (0, 0.58, 0), (0, 0.86, 0), 0.115, 0.14), shirt)
    shape.add(box(p, (0, 0.52, 0), (0.1, 0.07, 0.14), 0.06), trousers, 0.02)
    shape.add(limb(p, (0, 0.95, 0), (0, 1.05, 0), 0.05, 0.05), skin, 0.02)
    shape.add(ellipsoid(p, (0.01, 1.16, 0), (0.105, 0.13, 0.1)), skin, 0.02)
    shape.add(ellipsoid(p, (-0.03, 1.2, 0), (0.112, 0.115, 0.112)), hair)

    def sides(z: float) -> None:
        foot = stride * z
        shape.add(limb(p, (0, 0.5, 0.08 * z), (foot, 0.09, 0.085 * z), 0.085, 0.06), trousers, 0.03)
        shape.add(
            limb(p, (foot - 0.02, 0.05, 0.085 * z), (foot + 0.1, 0.04, 0.09 * z), 0.05, 0.04),
            (0.04, 0.03, 0.03),
        )
        shape.add(
            limb(p, (0, 0.88, 0.17 * z), (-foot * 0.5, 0.7, 0.22 * z), 0.06, 0.052), shirt, 0.04
        )
        shape.add(
            limb(p, (-foot * 0.5, 0.7, 0.22 * z), (0.05 - foot, 0.52, 0.22 * z), 0.046, 0.04),
            skin,
            0.02,
        )

    either_side(sides)


def tree(shape: Shape, rng: np.random.Generator) -> None:
    """A tree with a ragged crown."""
    p = shape.points
    seed = int(rng.integers(1 << 30))
    bark = shade((0.12, 0.075, 0.045), rng, 0.01)
    shape.add(limb(p, (0, 0, 0), (0.02, 0.75, 0), 0.085, 0.05), bark)
    green = np.array(choice(rng, (0.05, 0.17, 0.035), (0.075, 0.19, 0.03), (0.04, 0.13, 0.04)))
    leaves = green * (1 + 0.45 * noise(p, seed, 0.03))[:, None]
    rough = 0.03 * noise(p, seed + 1, 0.035) + 0.04 * noise(p, seed + 2, 0.09)
    for _ in range(11):
        x, y, z = rng.normal(0, 0.2), rng.normal(1.0, 0.17), rng.normal(0, 0.2)
        radius = rng.uniform(0.15, 0.25)
        shape.add(ellipsoid(p, (x, y, z), (radius, radius * 0.85, radius)) + rough, leaves, 0.03)


def house(shape: Shape, rng: np.random.Generator) -> None:
    """A house with a tiled roof and a chimney."""
    p = shape.points
    wall = choice(rng, (0.62, 0.52, 0.38), (0.7, 0.66, 0.58), (0.55, 0.42, 0.3))
    tiles = np.array(choice(rng, (0.4, 0.09, 0.05), (0.32, 0.08, 0.06)))
    rows = tiles * (0.8 + 0.3 * (np.sin(p[:, 1] * 75) > 0))[:, None]
    glass, frame = (0.05, 0.08, 0.13), (0.75, 0.73, 0.7)
    shape.add(box(p, (0, 0.3, 0), (0.5, 0.32, 0.36), 0.01), wall)
    slope = (np.abs(p[:, 2]) * 0.36 + (p[:, 1] - 0.98) * 0.45) / np.hypot(0.36, 0.45)
    roof = np.maximum(np.maximum(slope, 0.56 - p[:, 1]), np.abs(p[:, 0]) - 0.57)
    shape.add(roof, rows)
    shape.add(box(p, (0.3, 0.92, 0.12), (0.06, 0.16, 0.06), 0.01), (0.3, 0.11, 0.08))
    for side in (-1.0, 1.0):
        shape.add(box(p, (0, 0.2, 0.36 * side), (0.09, 0.2, 0.015), 0.005), (0.13, 0.06, 0.035))
        for x in (-0.3, 0.3):
            shape.add(box(p, (x, 0.34, 0.355 * side), (0.1, 0.11, 0.015), 0.004), frame)
            shape.add(box(p, (x, 0.34, 0.362 * side), (0.078, 0.088, 0.016), 0.004), glass)
        shape.add(box(p, (0.495 * side, 0.34, 0), (0.015, 0.11, 0.1), 0.004), frame)
        shape.add(box(p, (0.502 * side, 0.34, 0), (0.016, 0.088, 0.078), 0.004), glass)


def car(shape: Shape, rng: np.random.Generator) -> None:
    """A small car, red, blue or grey."""
    p = shape.points
    paint = choice(rng, (0.5, 0.02, 0.025), (0.03, 0.07, 0.36), (0.6, 0.6, 0.62))
    glass = (0.02, 0.03, 0.04)
    shape.add(box(p, (0, 0.24, 0), (0.68, 0.14, 0.29), 0.09), paint)
    squeezed = p.copy()
    squeezed[:, 0] = p[:, 0] * (1 + 0.9 * np.clip(p[:, 1] - 0.34, 0, 1))
    window = (p[:, 1] > 0.4) & (p[:, 1] < 0.535)
    pillar = (np.abs(p[:, 0] + 0.03) < 0.018) | (
        np.abs(np.abs(squeezed[:, 0] + 0.05) - 0.385) < 0.022
    )
    cabin = np.where((window & ~pillar)[:, None], glass, paint)
    shape.add(box(squeezed, (-0.05, 0.43, 0), (0.42, 0.15, 0.255), 0.07), cabin, 0.02)

    def sides(z: float) -> None:
        for x in (-0.41, 0.41):
            shape.add(disc(p, (x, 0.14, 0.25 * z), 0.14, 0.06), (0.015, 0.015, 0.016))
            shape.add(disc(p, (x, 0.14, 0.262 * z), 0.075, 0.06), (0.5, 0.5, 0.52))
        shape.add(ellipsoid(p, (0.655, 0.29, 0.2 * z), (0.035, 0.04, 0.05)), (0.9, 0.88, 0.7))
        shape.add(ellipsoid(p, (-0.66, 0.29, 0.21 * z), (0.03, 0.035, 0.05)), (0.5, 0.02, 0.02))

    either_side(sides)


def boat(shape: Shape, rng: np.random.Generator) -> None:
    """A sailing boat."""
    p = shape.points
    paint = choice(rng, (0.035, 0.09, 0.2), (0.03, 0.16, 0.2))
    hull = np.where(p[:, 1:2] > 0.2, (0.42, 0.25, 0.12), paint)
    hull = np.where((p[:, 1:2] > 0.15) & (p[:, 1:2] < 0.18), (0.8, 0.78, 0.74), hull)
    outer = ellipsoid(p, (0, 0.24, 0), (0.68, 0.26, 0.2))
    inside = ellipsoid(p, (0, 0.26, 0), (0.6, 0.17, 0.15))
    shape.add(np.maximum(np.maximum(outer, p[:, 1] - 0.24), -inside), hull)
    shape.add(limb(p, (0.02, 0.1, 0), (0.02, 1.34, 0), 0.025, 0.018), (0.3, 0.18, 0.09))
    bulge = p.copy()
    bulge[:, 2] -= 0.1 * np.sin(np.clip((p[:, 1] - 0.3) / 0.95, 0, 1) * np.pi)
    sail = choice(rng, (0.85, 0.83, 0.78), (0.8, 0.74, 0.62))
    jib = choice(rng, (0.8, 0.3, 0.06), (0.75, 0.36, 0.1))
    shape.add(triangle(bulge, [(0.06, 0.34), (0.06, 1.28), (0.6, 0.38)][::-1], 0.016), sail)
    shape.add(triangle(bulge, [(-0.02, 0.36), (-0.5, 0.38), (-0.02, 1.1)][::-1], 0.016), jib)


def ball(shape: Shape, rng: np.random.Generator) -> None:
    """A beach ball."""
    p = shape.points - (0, 0.3, 0)
    turn = rotation(rng)
    turned = p @ turn
    part = np.floor((np.arctan2(turned[:, 1], turned[:, 0]) / np.pi + 1) * 3).astype(int) % 3
    stripes = np.array([(0.75, 0.55, 0.05), (0.02, 0.16, 0.5), (0.82, 0.8, 0.76)])[part]
    caps = np.abs(turned[:, 2:]) > 0.28
    shape.add(np.linalg.norm(p, axis=1) - 0.3, np.where(caps, (0.75, 0.55, 0.05), stripes))


def rotation(rng: np.random.Generator) -> Array:
    """A random rotation (3, 3)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


OBJECTS: dict[str, Callable[[Shape, np.random.Generator], None]] = {
    "tree": tree, "house": house, "car": car, "cow": cow, "horse": horse, "boat": boat,
    "person": person, "ball": ball,
}  # fmt: skip

ANGULAR = (house, car, boat)
"""Those whose surfaces meet at edges; the others are smooth."""
