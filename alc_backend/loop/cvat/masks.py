"""Corrected masks on their way to the frames that they came from.

Replaces the masks of those frames alone whose label maps have changed, and which nobody has changed
in CVAT meanwhile. Reads the ledger and label maps; writes CVAT's masks, and which of them are
known. Called by ``rounds.platforms``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from alc_backend.common.batches import batched
from alc_backend.common.locks import only_one
from alc_backend.common.types import Json, Progress
from alc_backend.cvat.client import Cvat as Server
from alc_backend.cvat.shapes import KINDS, digest_of, shapes_of
from alc_backend.store import ledger
from alc_backend.store.cvat import CvatFrame
from alc_backend.store.database import Store
from alc_backend.store.derived import ImageState
from alc_backend.store.label_map_reader import LabelMapReader
from alc_backend.store.models import TRAIN, Image, Project

AT_ONCE = 50
"""Frames whose masks are replaced together."""


def digest_of_map(labels: NDArray[np.uint8]) -> str:
    """A digest of a label map, uint8 (H, W)."""
    height, width = labels.shape
    return hashlib.sha256(f"{height}x{width}:".encode() + labels.tobytes()).hexdigest()


def write_masks(store: Store, server: Server, project_id: int, progress: Progress) -> list[str]:
    """Show the present label maps of a project in the frames that its images came from.

    Returns a sentence for each frame that stays as it is, though its label map changed: where
    somebody has drawn or removed masks in CVAT since, or a label is missing there. What an
    interrupted attempt left is replaced. Waits for another process of this machine that does the
    same. Raises CvatError.
    """
    with only_one(store.settings.data_dir / "locks" / f"masks-{project_id}"):
        return _write_masks(store, server, project_id, progress)


def _write_masks(store: Store, server: Server, project_id: int, progress: Progress) -> list[str]:
    changed = _changed(store, project_id, progress)
    left: list[str] = []
    for task in dict.fromkeys(frame.task for frame, _, _ in changed):
        labels = {name: number for number, name in server.labels("task", task).items()}
        here = [item for item in changed if item[0].task == task]
        for part in batched(here, AT_ONCE):
            left += _replace(store, server, project_id, task, part, labels)
    return left


def _changed(
    store: Store, project_id: int, progress: Progress
) -> list[tuple[CvatFrame, Image, str]]:
    """The frames whose masks are not those of the present label maps, and the maps' digests."""
    with store.reading() as session:
        upto = ledger.position(session, project_id)
        touched = select(ImageState.image_id).where(
            ImageState.project_id == project_id, ImageState.last_entry.is_not(None)
        )
        rows = session.execute(
            select(CvatFrame, Image)
            .join(Image, Image.id == CvatFrame.image_id)
            .where(
                Image.project_id == project_id,
                Image.split == TRAIN,
                Image.removed.is_(None),
                Image.id.in_(touched) | CvatFrame.shapes.is_(None),
            )
            .order_by(CvatFrame.task, CvatFrame.frame)
        ).all()
    maps = LabelMapReader(store, project_id, upto, order=[image.id for _, image in rows])
    found = []
    for done, (frame, image) in enumerate(rows):
        progress(done, len(rows), f"comparing the masks of {image.key}")
        digest = digest_of_map(maps.read(image.id))
        if frame.shapes is None or digest != frame.label_map:
            found.append((frame, image, digest))
    return found


def _replace(
    store: Store,
    server: Server,
    project_id: int,
    task: int,
    part: Sequence[tuple[CvatFrame, Image, str]],
    labels: dict[str, int],
) -> list[str]:
    """Replace the masks of some frames of a task; returns why some of them stay.

    The new ones are drawn before the old ones go.
    """
    with store.reading() as session:
        classes = list(session.get_one(Project, project_id).classes)
        upto = ledger.position(session, project_id)
    there = _masks_of(server, task)
    files = store.files(project_id)
    maps = LabelMapReader(store, project_id, upto, order=[image.id for _, image, _ in part])
    left: list[str] = []
    made: dict[int, list[Json]] = {}
    digests: dict[int, str] = {}
    for frame, image, _ in part:
        where = f"{image.key} (task {task}, frame {frame.frame})"
        if frame.shapes is not None and digest_of(there.get(frame.frame, ())) != frame.shapes:
            left.append(f"{where}: its masks were changed in CVAT, and stay as they are there")
            continue
        labelled = maps.read(image.id)
        superpixels = files.read_superpixels(image.id)
        try:
            made[frame.frame] = shapes_of(labelled, superpixels, frame.frame, classes, labels)
        except KeyError as error:
            left.append(f"{where}: the task has no label {error}; add it to the task in CVAT")
            continue
        digests[image.id] = digest_of_map(labelled)
    written = [frame for frame, image, _ in part if image.id in digests]
    if not written:
        return left
    with store.session() as session:
        for frame in written:
            session.get_one(CvatFrame, frame.image_id).shapes = None
    if new := [shape for shapes in made.values() for shape in shapes]:
        server.create_shapes(task, new)
    if old := [shape for frame in written for shape in there.get(frame.frame, ())]:
        server.delete_shapes(task, old)
    there = _masks_of(server, task)
    with store.session() as session:
        for frame in written:
            row = session.get_one(CvatFrame, frame.image_id)
            row.label_map = digests[frame.image_id]
            row.shapes = digest_of(there.get(frame.frame, ()))
    return left


def _masks_of(server: Server, task: int) -> dict[int, list[Json]]:
    """The masks and polygons of a task, by their frames."""
    found: dict[int, list[Json]] = {}
    for shape in server.shapes(task):
        if shape["type"] in KINDS:
            found.setdefault(shape["frame"], []).append(shape)
    return found
