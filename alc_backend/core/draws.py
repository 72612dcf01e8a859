"""Random choices that follow from a name and a seed, whatever else is drawn and in what order."""

from __future__ import annotations

import hashlib


def fold_of(key: str, seed: int, folds: int) -> int:
    """The fold of an image, 0 to ``folds`` - 1, determined by its key and the seed."""
    return draw(f"fold/{key}", seed) % folds


def draw(name: str, seed: int) -> int:
    """A random number from 0 to 2⁶⁴ - 1, determined by name and seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big")


def chance(name: str, seed: int) -> float:
    """A random number in [0, 1), determined by name and seed."""
    return (draw(name, seed) >> 11) / 2**53
