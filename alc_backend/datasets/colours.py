"""The colours of PASCAL VOC's masks, and ``labelmap.txt``, which names the colour of each class.

A colour is the number R + 256·G + 65536·B. The bits of an id go to red, green and blue in turn, to
the highest bit of each first, so that neighbouring ids look different; 24 bits are enough for any
map of ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.datasets.classes import background, checked_classes, read_lines
from alc_backend.errors import DatasetError

_BITS = [(bit, 8 * (bit % 3) + 7 - bit // 3) for bit in range(24)]
"""Which bit of a colour each bit of an id goes to."""


def colours_of(ids: NDArray[np.integer]) -> NDArray[np.int32]:
    """The colours of ids in 0..2²⁴-1, int32 of the same shape."""
    return _moved(ids, _BITS)


def ids_of(colours: NDArray[np.integer]) -> NDArray[np.int32]:
    """The ids that colours stand for, int32 of the same shape: what :func:`colours_of` turns."""
    return _moved(colours, [(to, bit) for bit, to in _BITS])


def _moved(values: NDArray[np.integer], bits: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    moved = np.zeros(values.shape, dtype=np.int32)
    for bit, to in bits:
        moved |= (values.astype(np.int32) >> bit & 1) << to
    return moved


VOID_COLOUR = int(colours_of(np.array(VOID)))
"""The colour of void, (224, 224, 192)."""


def class_colours(classes: Sequence[str]) -> list[int]:
    """The colour of each class: black for the one named background, and void's for none."""
    own = background(classes)
    others = (number for number in range(1, len(classes) + 2) if number != VOID)
    return [
        int(colours_of(np.array(0 if class_id == own else next(others))))
        for class_id in range(len(classes))
    ]


def write_label_map(path: Path, classes: Sequence[str]) -> None:
    """Write a ``labelmap.txt`` with :func:`class_colours`.

    Raises DatasetError for class names that cannot stand in one.
    """
    lines = ["# label:color_rgb:parts:actions\n"]
    for name, colour in zip(classes, class_colours(classes), strict=True):
        if ":" in name or name.startswith("#"):
            raise DatasetError(
                f"the class name {name!r} cannot be written into {path.name}: it holds a colon, or "
                "begins with #; choose another format"
            )
        red, green, blue = colour.to_bytes(3, "little")
        lines.append(f"{name}:{red},{green},{blue}::\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), "utf-8")


def read_label_map(path: Path) -> tuple[list[str], dict[int, int]]:
    """The class names in a ``labelmap.txt``, and the class id of each colour.

    A line is ``name:R,G,B:parts:actions``. VOC's colour of void stands for void unless it is named.
    Raises DatasetError for another line, for a colour that two classes have, and as
    :func:`checked_classes` does.
    """
    names: list[str] = []
    colours = {VOID_COLOUR: VOID}
    named: dict[int, str] = {}
    for line in read_lines(path):
        if line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            channels = [int(value) for value in rest.partition(":")[0].split(",")]
            code = _code(channels)
        except ValueError:
            raise DatasetError(
                f"{path}: has the line {line!r}, not like sofa:0,128,0:: (a name and the red, "
                "green and blue of its colour, each 0..255); export it again"
            ) from None
        if code in named:
            raise DatasetError(
                f"{path}: gives {named[code]!r} and {name!r} one colour; give each its own"
            )
        named[code], colours[code] = name, len(names)
        names.append(name)
    return checked_classes(names, str(path)), colours


def _code(channels: list[int]) -> int:
    """A colour as a number; ValueError unless it has three channels in 0..255."""
    if len(channels) != 3:
        raise ValueError(channels)
    return int.from_bytes(bytes(channels), "little")
