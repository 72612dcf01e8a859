"""Seeded choices by name: the same whatever else there is, and in whatever order."""

from __future__ import annotations

import hashlib


def fold_of(key: str, seed: int, folds: int) -> int:
    """The fold of an image, 0 to ``folds`` - 1; always the same for the same key and seed."""
    return draw(f"fold/{key}", seed) % folds


def draw(name: str, seed: int) -> int:
    """A number from 0 to 2⁶⁴ - 1 that only depends on name and seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big")


def chance(name: str, seed: int) -> float:
    """A number in [0, 1) that only depends on name and seed."""
    return (draw(name, seed) >> 11) / 2**53
