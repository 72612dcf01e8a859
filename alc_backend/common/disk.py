"""Free space on the disk where state is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

GIB = 2**30


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest folder above it that exists."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return there


def free_gib(folder: Path) -> float:
    """Free space, in GiB, on the disk of a folder, which need not exist yet; raises OSError."""
    return shutil.disk_usage(existing(folder)).free / GIB
