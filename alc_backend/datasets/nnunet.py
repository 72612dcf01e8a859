"""nnU-Net's layout (version 2): ``imagesTr/ labelsTr/ dataset.json``; written, not read.

Label 0 is background, as nnU-Net wants it, and void is its label ``ignore``, the highest. Images
are PNGs with three channels, and cases have no folders: ``cases.csv`` tells the image of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alc_backend.common.files import write_csv, write_json
from alc_backend.core.arrays import VOID
from alc_backend.datasets.classes import background
from alc_backend.datasets.dataset import OutputImage
from alc_backend.datasets.images import encode_image, read_image
from alc_backend.datasets.names import checked_name, path_below, same_file
from alc_backend.errors import DatasetError

IMAGES, LABELS, INDEX, CASES = "imagesTr", "labelsTr", "dataset.json", "cases.csv"
BACKGROUND, IGNORE = "background", "ignore"
CHANNEL = "_0000"
"""What follows a case's name in that of its image: the number of the channels' file."""


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write the layout; DatasetError for a class that is called as nnU-Net calls something else."""
    labels = label_ids(classes)
    table = np.full(VOID + 1, len(labels), dtype=np.uint16)
    table[: len(classes)] = [labels[_label(name, classes)] for name in classes]
    cases: dict[str, str] = {}
    taken: set[str] = set()
    has_void = False
    for image in images:
        case = _case(image.key, taken)
        if image.path is not None:
            pixels = read_image(image.path)
            encode_image(path_below(root, IMAGES, case, f"{CHANNEL}.png"), pixels)
        else:
            path_below(root, IMAGES, case, "")
        _write_labels(path_below(root, LABELS, case, ".png"), table[image.labels])
        image.write_objects(root)
        cases[case] = image.key
        has_void = has_void or bool((image.labels == VOID).any())
    write_csv(root / CASES, [("case", "image"), *cases.items()])
    write_json(
        root / INDEX,
        {
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": labels | ({IGNORE: len(labels)} if has_void else {}),
            "numTraining": len(cases),
            "file_ending": ".png",
            "overwrite_image_reader_writer": "NaturalImage2DIO",
        },
    )


def label_ids(classes: list[str]) -> dict[str, int]:
    """The label of each class by its name there, from 0; 0 is background, though no class is."""
    others = [name for name in classes if _label(name, classes) != BACKGROUND]
    taken = [name for name in others if name in (BACKGROUND, IGNORE)]
    if taken:
        raise DatasetError(
            f"a class is called {taken[0]!r}, which nnU-Net uses for something else; rename it"
        )
    return {BACKGROUND: 0} | {name: number for number, name in enumerate(others, start=1)}


def _label(name: str, classes: list[str]) -> str:
    own = background(classes)
    return BACKGROUND if own is not None and name == classes[own] else name


def _case(key: str, taken: set[str]) -> str:
    """A name without folders that no other case has, added to those that are ``taken``."""
    checked_name(key, "image key")
    plain = case = key.replace("/", "__")
    number = 2
    while same_file(case) in taken:
        case = f"{plain}-{number}"
        number += 1
    taken.add(same_file(case))
    return case


def _write_labels(path: Path, labels: NDArray[np.uint16]) -> None:
    fits = labels.max(initial=0) < 256
    Image.fromarray(labels.astype(np.uint8) if fits else labels).save(path, format="PNG")
