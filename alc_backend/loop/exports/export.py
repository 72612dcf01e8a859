"""The repaired dataset of a project, written to a folder that says where it came from.

Reads a snapshot, image after image; writes the folder, and nothing of the store. Called by
``alc export``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

from alc_backend.common.files import sync_below, sync_folder
from alc_backend.common.types import Progress
from alc_backend.datasets import cityscapes, layouts
from alc_backend.datasets.dataset import OutputImage
from alc_backend.errors import DatasetError
from alc_backend.loop.exports import changes, class_statistics, data_card, manifest, snapshot
from alc_backend.loop.exports.snapshot import Digest
from alc_backend.store.database import Store


def export_project(
    store: Store,
    project_id: int,
    folder: Path,
    *,
    format_name: str = layouts.DATASET,
    with_images: bool = True,
    label_ids: dict[str, int] | None = None,
    progress: Progress = lambda done, total, key: None,
) -> int:
    """Replay the label maps and write them to ``folder`` in a format; returns how many.

    Beside the dataset lie ``changes.csv`` and ``changes.json``, ``classes.csv``, a data card
    ``README.md`` and ``manifest.json``. The same state of the store gives the same bytes. Without
    ``with_images`` the images are left out; ``label_ids`` are the ids of Cityscapes, by class name.
    The folder appears as a whole: it must be new, empty, or an earlier export, which is replaced.
    Raises DatasetError for another folder, an unknown format, an image key that is no file name,
    and when the folder cannot be written.
    """
    write = layouts.writer_of(format_name)
    if label_ids is not None:
        write = partial(cityscapes.write, given=label_ids)
    taken = snapshot.take(store, project_id)
    sha = Digest(taken)
    census = data_card.Census(taken)
    told = changes.Changes(taken)

    def repaired() -> Iterator[OutputImage]:
        for done, image in enumerate(taken.images):
            progress(done, len(taken.images), image.key)
            maps = snapshot.read_maps(taken, image)
            sha.add(image, maps)
            census.add(maps, told.of(image, maps))
            path = taken.files.image(image.id, image.suffix) if with_images else None
            yield OutputImage(image.key, image.suffix, path, maps.labels, maps.superpixels)

    with _staged(folder) as root:
        write(root, taken.project.classes, repaired())
        changes.write(root, census.changes)
        class_statistics.write(root, census.classes)
        digest = sha.finish()
        data_card.write(root, census, format_name, with_images, digest)
        manifest.write(root, taken, format_name, with_images, digest, sha.entries)
    return len(taken.images)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder``, which takes its place once it is complete and on the disk."""
    target = folder.resolve()
    _refuse_other_files(target)
    staging = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        staging.mkdir(parents=True)
        yield staging
        sync_below(staging)
        _swap(staging, target)
    except OSError as error:
        raise DatasetError(
            f"{folder}: cannot be written ({error}); choose another folder"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        sync_folder(target.parent)
        return
    _refuse_other_files(target)
    before = target.with_name(f".{target.name}.{uuid4().hex}.old")
    target.rename(before)
    try:
        staging.rename(target)
    except OSError:
        before.rename(target)
        raise
    sync_folder(target.parent)  # before the earlier export is removed
    shutil.rmtree(before)


def _refuse_other_files(target: Path) -> None:
    """DatasetError when ``target`` holds anything that replacing an earlier export would lose."""
    if not target.exists():
        return
    if not target.is_dir():
        raise DatasetError(f"{target}: is a file; choose a folder")
    if not any(target.iterdir()):
        return
    try:
        known = manifest.read(target)["files"]
    except DatasetError as error:
        raise DatasetError(
            f"{target}: is not empty, and no earlier export that could be replaced; choose a new "
            "folder"
        ) from error
    others = [name for name in manifest.files(target) if name not in known]
    if others:
        raise DatasetError(
            f"{target}: holds {others[0]}, which is not of the earlier export; move it away or "
            "choose a new folder"
        )
    altered = manifest.altered(target, known)
    if altered:
        raise DatasetError(
            f"{target}: {altered[0]} was changed since the earlier export; move it away or choose "
            "a new folder"
        )
