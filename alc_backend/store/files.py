"""Array files in the data folder, written to a temporary name and renamed."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alc_backend.errors import NotFoundError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it over ``path``.

    A reader sees the old content or the new one, never a part; so does the disk after a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class ProjectFiles:
    """Where a project's arrays and networks lie; names come from database ids, never from users."""

    def __init__(self, data_dir: Path, project_id: int) -> None:
        self.root = data_dir / "projects" / str(project_id)

    def image(self, image_id: int, suffix: str) -> Path:
        """The picture as it was imported."""
        return self.root / "images" / f"{image_id}{suffix}"

    def network(self, number: int, fold: int | None = None) -> Path:
        """The weights of round ``number``; with a fold, of the network that has not seen it."""
        name = "model" if fold is None else f"model-without-fold-{fold}"
        return self.root / "rounds" / str(number) / f"{name}.safetensors"

    def write_label_map(self, kind: str, image_id: int, labels: NDArray[np.uint8]) -> None:
        """Keep a label map; ``kind`` is ``initial`` or ``ground_truth``."""
        picture = Image.fromarray(labels)
        write_atomically(self._mask(kind, image_id), lambda part: picture.save(part, format="PNG"))

    def read_label_map(self, kind: str, image_id: int) -> NDArray[np.uint8]:
        """The label map uint8 (H, W); NotFoundError when there is none."""
        return np.asarray(_open(self._mask(kind, image_id)), dtype=np.uint8)

    def has_label_map(self, kind: str, image_id: int) -> bool:
        """Whether this label map was kept."""
        return self._mask(kind, image_id).is_file()

    def write_superpixels(self, image_id: int, superpixels: NDArray[np.int32]) -> None:
        """Keep a superpixel map."""

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez_compressed(file, superpixels=superpixels)

        write_atomically(self._superpixels(image_id), write)

    def read_superpixels(self, image_id: int) -> NDArray[np.int32]:
        """The superpixel map int32 (H, W); NotFoundError when it is missing or damaged."""
        path = self._superpixels(image_id)
        try:
            with np.load(path, allow_pickle=False) as archive:
                return np.asarray(archive["superpixels"], dtype=np.int32)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise NotFoundError(f"{path}: cannot be read ({error}); import the image again") from (
                error
            )

    def write_reach(self, number: int, image_id: int, reached: NDArray[np.bool_]) -> None:
        """Keep which pixels the answers of round ``number`` reach (only when ε > 0)."""
        picture = Image.fromarray((reached * 255).astype(np.uint8)).convert("1")
        write_atomically(
            self._reach(number, image_id), lambda part: picture.save(part, format="PNG")
        )

    def read_reach(self, number: int, image_id: int) -> NDArray[np.bool_]:
        """The pixels that answers of round ``number`` reach, bool (H, W)."""
        return np.asarray(_open(self._reach(number, image_id)), dtype=np.bool_)

    def _mask(self, kind: str, image_id: int) -> Path:
        return self.root / kind / f"{image_id}.png"

    def _superpixels(self, image_id: int) -> Path:
        return self.root / "superpixels" / f"{image_id}.npz"

    def _reach(self, number: int, image_id: int) -> Path:
        return self.root / "rounds" / str(number) / "reach" / f"{image_id}.png"


def _open(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
    except (OSError, ValueError) as error:
        raise NotFoundError(f"{path}: cannot be read ({error}); import the image again") from error
    return picture
