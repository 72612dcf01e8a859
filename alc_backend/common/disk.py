"""How much room there is where state is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

GIB = 2**30


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return there


def free_gib(folder: Path) -> float:
    """Free space, in GiB, on the disk of a folder that may not be there yet; raises OSError."""
    return shutil.disk_usage(existing(folder)).free / GIB
