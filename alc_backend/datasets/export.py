"""Writing the repaired dataset: one class-indexed PNG per picture and the class list."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.datasets.images import encode_label_map
from alc_backend.errors import DatasetError
from alc_backend.store.storage import write_atomically


def export_label_maps(
    root: Path, classes: list[str], maps: Iterable[tuple[str, NDArray[np.uint8]]]
) -> int:
    """Write ``labels/KEY.png`` (palette PNG, pixel value = class id) and ``classes.txt``.

    ``maps`` gives image keys and label maps uint8 (H, W). Returns how many were written. Raises
    DatasetError when the folder cannot be written.
    """
    count = 0
    try:
        for key, labels in maps:
            path = root / "labels" / f"{key}.png"
            if not path.resolve().is_relative_to(root.resolve()):
                raise DatasetError(f"image key {key!r} points outside the folder; rename the image")
            write_atomically(path, lambda part, labels=labels: encode_label_map(part, labels))  # type: ignore[misc]
            count += 1
        root.mkdir(parents=True, exist_ok=True)
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes), "utf-8")
    except OSError as error:
        raise DatasetError(f"{root}: cannot be written ({error}); choose another folder") from error
    return count
