"""A project's arrays, images and networks as files of the storage."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alc_backend.common.types import Json
from alc_backend.datasets.images import MAX_PIXELS
from alc_backend.errors import NotFoundError
from alc_backend.store.storage import Storage
from alc_backend.store.traits import ShardTraits

MapKind = Literal["initial", "ground_truth"]
"""The label maps that are kept: the one a project begins with, and the true one for validation."""

DAMAGED = (OSError, ValueError, zipfile.BadZipFile, zlib.error)
"""The errors of Pillow and NumPy for a file that is not whole."""


class ProjectFiles:
    """The files of one project; their names are made of database ids, never of users' words.

    ``work`` is a local folder for networks in training, used when the storage is an object store.
    Methods that read raise NotFoundError for a file that is missing or damaged; all raise
    StorageError when the disk or the network fails.
    """

    def __init__(self, storage: Storage, project_id: int, work: Path) -> None:
        self._storage, self._folder, self._work = storage, f"projects/{project_id}", work

    def image(self, image_id: int, suffix: str) -> Path:
        """The path of a local file with the image as it was imported, to be read only."""
        return self._storage.local(self._image(image_id, suffix))

    def keep_image(self, image_id: int, suffix: str, path: Path) -> None:
        """Copy an image file into the storage."""
        self._storage.put(path, self._image(image_id, suffix))

    def network(self, number: int, fold: int | None = None) -> Path:
        """The path at which the network of round ``number`` is trained on this machine.

        With a ``fold``, the network that is trained without it. In a folder storage, the file also
        stays there.
        """
        return self._storage.path_in_folder(self._network(number, fold)) or (
            self._work / self._network(number, fold)
        )

    def keep_network(self, number: int, fold: int | None = None) -> None:
        """Copy a network that was trained on this machine to where the others find it."""
        name = self._network(number, fold)
        if self._storage.path_in_folder(name) is None:
            self._storage.put(self._work / name, name)

    def has_network(self, number: int, fold: int | None = None) -> bool:
        """Whether the storage has the network, which is so once its training has ended."""
        return self._storage.exists(self._network(number, fold))

    def fetch_network(self, number: int, fold: int | None = None) -> Path:
        """The path of a local file with a trained network, to be read only."""
        return self._storage.local(self._network(number, fold))

    def delete_network(self, number: int, fold: int | None = None) -> None:
        """Delete a network, in the storage and on this machine; nothing happens without one."""
        self._storage.delete(self._network(number, fold))
        self.network(number, fold).unlink(missing_ok=True)

    def write_label_map(self, kind: MapKind, image_id: int, labels: NDArray[np.uint8]) -> None:
        """Write a label map, uint8 (H, W)."""
        self._write_image(self._mask(kind, image_id), Image.fromarray(labels))

    def read_label_map(self, kind: MapKind, image_id: int) -> NDArray[np.uint8]:
        """The label map, uint8 (H, W)."""
        return np.asarray(self._read_image(self._mask(kind, image_id)), dtype=np.uint8)

    def write_superpixels(self, image_id: int, superpixels: NDArray[np.int32]) -> None:
        """Write a superpixel map, int32 (H, W)."""
        content = io.BytesIO()
        np.savez_compressed(content, superpixels=superpixels)
        self._storage.write(self._superpixels(image_id), content.getvalue())

    def read_superpixels(self, image_id: int) -> NDArray[np.int32]:
        """The superpixel map, int32 (H, W)."""
        name = self._superpixels(image_id)
        try:
            return _unpacked(self._read(name), "superpixels")
        except (*DAMAGED, KeyError, EOFError, RuntimeError) as error:
            raise NotFoundError(
                f"{name}: cannot be read ({error}); import the image again"
            ) from error

    def write_reach(self, number: int, image_id: int, reached: NDArray[np.bool_]) -> None:
        """Write which pixels corrections in round ``number`` label, bool (H, W), when ε > 0."""
        opened = Image.fromarray((reached * 255).astype(np.uint8)).convert("1")
        self._write_image(self._reach(number, image_id), opened)

    def read_reach(self, number: int, image_id: int) -> NDArray[np.bool_]:
        """The pixels that corrections in round ``number`` label, bool (H, W)."""
        return np.asarray(self._read_image(self._reach(number, image_id)), dtype=np.bool_)

    def write_traits(self, number: int, shard: int, traits: ShardTraits) -> None:
        """Write what round ``number`` keeps of the superpixels of a shard of its images."""
        self._storage.write(self._traits(number, shard), traits.packed())

    def read_traits(self, number: int, shard: int) -> ShardTraits:
        """What :meth:`write_traits` wrote."""
        name = self._traits(number, shard)
        try:
            return ShardTraits.unpacked(self._storage.read(name))
        except ValueError as error:
            raise NotFoundError(f"{name}: cannot be read ({error}); start another round") from error

    def of_traits(self, number: int, shards: Iterable[int]) -> list[str]:
        """The names in the storage of what :meth:`write_traits` writes for these shards."""
        return [self._traits(number, shard) for shard in shards]

    def write_plannable(self, number: int, state: str, traits: ShardTraits) -> None:
        """Write what the plans of round ``number`` choose from, where that is a part of its traits.

        ``state``, ASCII, names the scoring that the traits come from.
        """
        content = f"{state}\n".encode("ascii") + traits.packed()
        self._storage.write(self._plannable(number), content)

    def read_plannable(self, number: int, state: str) -> ShardTraits | None:
        """What :meth:`write_plannable` wrote for this ``state``; None where it cannot be read."""
        try:
            written, _, content = self._storage.read(self._plannable(number)).partition(b"\n")
            return ShardTraits.unpacked(content) if written == state.encode() else None
        except (NotFoundError, ValueError):
            return None

    def delete_plannable(self, number: int) -> None:
        """Delete what :meth:`write_plannable` wrote, if anything."""
        self._storage.delete(self._plannable(number))

    def write_edit(self, annotation_id: int, revision: int, content: bytes) -> None:
        """Write what an edit changed, as :func:`encode_edit` gives it."""
        self._storage.write(self._edit(annotation_id, revision), content)

    def read_edit(
        self, annotation_id: int, revision: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The classes that an edit wrote, uint8 (H, W), and where it did, bool (H, W)."""
        labels, changed = self._read_image(self._edit(annotation_id, revision)).split()
        return np.asarray(labels, dtype=np.uint8), np.asarray(changed) > 0

    def maps_digest(self, image_id: int) -> str:
        """The SHA-256 of the files of an image's initial label map and superpixel map."""
        state = hashlib.sha256()
        for name in (self._mask("initial", image_id), self._superpixels(image_id)):
            content = self._read(name)
            state.update(len(content).to_bytes(8, "big") + content)
        return state.hexdigest()

    def write_regions(self, image_id: int, version: str, regions: list[Json]) -> None:
        """Keep the regions that show an image's masks in place of those that were kept before.

        ``version`` names the state of the image that they show.
        """
        content = json.dumps({"version": version, "regions": regions}, separators=(",", ":"))
        self._storage.write(self._regions(image_id), zlib.compress(content.encode(), 1))

    def read_regions(self, image_id: int, version: str) -> list[Json] | None:
        """What :meth:`write_regions` kept; None for another version, or without a whole file."""
        try:
            kept = json.loads(zlib.decompress(self._storage.read(self._regions(image_id))))
        except (NotFoundError, zlib.error, ValueError):
            return None
        return list(kept["regions"]) if kept["version"] == version else None

    def of_image(self, image_id: int, suffix: str) -> list[str]:
        """The names in the storage of an image's files, whether they exist or not."""
        masks = [self._mask(kind, image_id) for kind in get_args(MapKind)]
        return [self._image(image_id, suffix), self._superpixels(image_id), *masks]

    def of_round(self, number: int, images: Iterable[int]) -> list[str]:
        """The names in the storage of what :meth:`write_reach` writes for these images (ids)."""
        return [self._reach(number, image_id) for image_id in images]

    def of_networks(self, number: int, folds: int) -> list[str]:
        """The names in the storage of a round's networks: the main one, and one for each fold."""
        return [self._network(number, fold) for fold in (None, *range(folds if folds > 1 else 0))]

    def of_edit(self, annotation_id: int, revision: int) -> str:
        """The name in the storage of what :meth:`write_edit` writes."""
        return self._edit(annotation_id, revision)

    def _read(self, name: str) -> bytes:
        try:
            return self._storage.read(name)
        except NotFoundError as error:
            raise NotFoundError(f"{error}; import the image again") from error

    def _write_image(self, name: str, opened: Image.Image) -> None:
        self._storage.write(name, _png(opened))

    def _read_image(self, name: str) -> Image.Image:
        content = io.BytesIO(self._read(name))
        try:
            opened = Image.open(content, formats=("PNG",))
            opened.load()
        except (*DAMAGED, SyntaxError, Image.DecompressionBombError) as error:
            raise NotFoundError(
                f"{name}: cannot be read ({error}); import the image again"
            ) from error
        return opened

    def _image(self, image_id: int, suffix: str) -> str:
        return f"{self._folder}/images/{image_id}{suffix}"

    def _network(self, number: int, fold: int | None) -> str:
        name = "model" if fold is None else f"model-without-fold-{fold}"
        return f"{self._folder}/rounds/{number}/{name}.safetensors"

    def _mask(self, kind: MapKind, image_id: int) -> str:
        return f"{self._folder}/{kind}/{image_id}.png"

    def _superpixels(self, image_id: int) -> str:
        return f"{self._folder}/superpixels/{image_id}.npz"

    def _regions(self, image_id: int) -> str:
        return f"{self._folder}/regions/{image_id}.json.zlib"

    def _reach(self, number: int, image_id: int) -> str:
        return f"{self._folder}/rounds/{number}/reach/{image_id}.png"

    def _traits(self, number: int, shard: int) -> str:
        return f"{self._folder}/rounds/{number}/traits/{shard}.npz"

    def _plannable(self, number: int) -> str:
        return f"{self._folder}/rounds/{number}/traits/plannable"

    def _edit(self, annotation_id: int, revision: int) -> str:
        return f"{self._folder}/edits/{annotation_id}-{revision}.png"


def encode_edit(labels: NDArray[np.uint8], changed: NDArray[np.bool_]) -> bytes:
    """The file of an edit: ``labels`` where ``changed`` is true, both (H, W).

    That takes seconds for a large image, and so is done before the ledger is locked.
    """
    kept = np.where(changed, labels, 0).astype(np.uint8)
    layers = [Image.fromarray(layer) for layer in (kept, changed * np.uint8(255))]
    return _png(Image.merge("LA", layers))


def _png(opened: Image.Image) -> bytes:
    content = io.BytesIO()
    opened.save(content, format="PNG")
    return content.getvalue()


def _unpacked(content: bytes, name: str) -> NDArray[np.int32]:
    """The 2-D array of integers in an .npz file; its size is checked before it is allocated."""
    npy: Any = np.lib.format
    with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(f"{name}.npy") as entry:
        npy.read_magic(entry)
        shape, _, dtype = npy.read_array_header_1_0(entry)
        if len(shape) != 2 or shape[0] * shape[1] > MAX_PIXELS or dtype.kind not in "iu":
            raise ValueError(f"it claims to hold {shape} values of type {dtype}")
        entry.seek(0)
        return np.asarray(npy.read_array(entry, allow_pickle=False), dtype=np.int32)
