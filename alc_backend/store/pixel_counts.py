"""How many pixels each class has in the label maps; an image is counted again when its changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.core.arrays import VOID
from alc_backend.store import ledger
from alc_backend.store.derived import ImageState
from alc_backend.store.models import TRAIN, Image, LedgerEntry
from alc_backend.store.upserts import upsert

AT_ONCE = 500
"""Images, or annotations, that a query lists."""


def read(session: Session, project_id: int) -> tuple[NDArray[np.int64], list[int]]:
    """The pixels of each class id, int64 (256,), in the label maps that were counted.

    They are those of the images under correction as they are now. The images (row ids) whose maps
    were not counted come second, by key.
    """
    counted = (ImageState.image_id == Image.id) & ImageState.pixels_to.is_not(None)
    rows = session.execute(
        select(Image.id, Image.key, ImageState.pixels)
        .outerjoin(ImageState, counted)
        .where(Image.project_id == project_id, Image.split == TRAIN, Image.removed.is_(None))
        .execution_options(yield_per=AT_ONCE)
    )
    pixels = np.zeros(VOID + 1, dtype=np.int64)
    lacking: list[tuple[str, int]] = []
    for row in rows:
        if row.pixels is None:
            lacking.append((row.key, row.id))
        else:
            pixels[: len(row.pixels)] += np.array(row.pixels, dtype=np.int64)
    return pixels, [image for _, image in sorted(lacking)]


def note(
    session: Session,
    project_id: int,
    position: int,
    overlap: int,
    counts: Mapping[int, NDArray[np.int64]],
) -> None:
    """Keep the pixels of each class id, int64 (256,), in the label maps of some images (row ids).

    They are those after the ledger entry of the id ``position``, where ``overlap`` annotators are
    asked; what has changed since is left out. Locks the project.
    """
    if ledger.lock(session, project_id).overlap != overlap:
        return
    changed = _changed_since(session, project_id, position)
    rows = [
        {
            "image_id": image,
            "project_id": project_id,
            "pixels": np.trim_zeros(many, "b").tolist(),
            "pixels_to": position,
        }
        for image, many in sorted(counts.items())
        if image not in changed
    ]
    upsert(session, ImageState, rows, replace=["pixels", "pixels_to"])


def forget(session: Session, images: Collection[int]) -> None:
    """Let the label maps of some images (row ids), which may have changed, be counted anew."""
    for part in batched(sorted(images), AT_ONCE):
        session.execute(
            update(ImageState)
            .where(ImageState.image_id.in_(part), ImageState.pixels_to.is_not(None))
            .values(pixels_to=None)
        )


def _changed_since(session: Session, project_id: int, position: int) -> set[int]:
    """The images (row ids) that annotations with later entries than ``position`` are about.

    An annotation whose number is given again may have been about another image before.
    """
    newer = (LedgerEntry.project_id == project_id, LedgerEntry.id > position)
    annotations = set(session.scalars(select(LedgerEntry.annotation_id).where(*newer)))
    found: set[int] = set()
    for part in batched(sorted(annotations), AT_ONCE):
        about = (LedgerEntry.project_id == project_id, LedgerEntry.annotation_id.in_(part))
        found.update(session.scalars(select(LedgerEntry.image_id).where(*about)))
    return found
