"""Direct edits: annotations of the dataset project on their way into the ledger.

An annotation there is a whole set of masks, begun from those that were shown. What counts is what
the annotator changed: regions relabelled, added or erased. Everything else stays with the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from alc_backend.common.types import Json
from alc_backend.datasets.classes import uncovered_class
from alc_backend.labelstudio.annotation import Annotation
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.regions import Region, read_regions
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import EntryKind, Image, Project, Superpixel


def record(
    store: Store, client: Callable[[], Client], project: Project, annotation: Annotation
) -> str:
    """Write what an annotation of a dataset task changed into the ledger, once.

    Returns what became of it. Raises ValueError for regions that do not fit the image,
    LabelStudioError when the prediction it began from cannot be fetched.
    """
    with store.reading() as session:
        image = session.scalars(
            select(Image).where(
                Image.project_id == project.id, Image.dataset_task == annotation.task_id
            )
        ).first()
        last = ledger.last_revision(session, project.id, annotation.annotation_id)
    if image is None:
        return Outcome.UNKNOWN_TASK
    begun_with = annotation.annotation_id == image.initial_annotation
    taken_at = image.initial_annotation_at
    if last is None and taken_at is not None and annotation.updated_at <= taken_at:
        return Outcome.KNOWN  # the first label map came from it, or from a newer one
    if last is not None and (
        last.kind == EntryKind.DELETED or annotation.updated_at <= last.updated_at
    ):
        return Outcome.KNOWN
    files = store.files(project.id)
    superpixels = files.read_superpixels(image.id)
    uncovered = uncovered_class(project.classes)
    shape = superpixels.shape
    if begun_with:
        shown = files.read_label_map("initial", image.id)
        before: list[Region] = []
        covered = np.ones(shape, dtype=np.bool_)
    else:
        before = _shown(client, annotation, project.classes, shape)
        shown, covered = _paint(before, shape, uncovered)
    if annotation.cancelled:
        edited, changed = shown, np.zeros(shape, dtype=np.bool_)
    else:
        now = read_regions(annotation.result, project.classes, shape)
        if begun_with:  # as the first label map was painted
            now = sorted(now, key=lambda region: -int(region.mask.sum()))
        edited, covered_now = _paint(_order(now, before), shape, uncovered)
        changed = (covered | covered_now) & ~(covered & (shown == edited))
    with store.reading() as session:
        rows = session.execute(
            select(Superpixel.number, Superpixel.id, Superpixel.size).where(
                Superpixel.image_id == image.id
            )
        ).all()
    edit = ledger.Edit(
        annotation_id=annotation.annotation_id,
        annotator=annotation.annotator,
        lead_time=annotation.lead_time,
        answered_at=annotation.created_at,
        updated_at=annotation.updated_at,
        skipped=annotation.cancelled,
        changes=changes(
            shown, covered, edited, changed, superpixels, {row.number: row for row in rows}
        ),
    )
    with store.session() as session:
        entry = ledger.record_edit(session, image, edit)
        if entry is None:
            return Outcome.KNOWN
        files.write_edit(entry.annotation_id, entry.revision, edited, changed)
    return Outcome.RECORDED


def changes(
    shown: NDArray[np.uint8],
    covered: NDArray[np.bool_],
    edited: NDArray[np.uint8],
    changed: NDArray[np.bool_],
    superpixels: NDArray[np.int32],
    rows: dict[int, Any],
) -> list[Json]:
    """What an edit changed, per superpixel: ``from`` and ``to`` (most frequent classes), pixels.

    All arrays (H, W); ``rows`` gives the id and size of each superpixel number. ``from`` is None
    where nothing was shown; ``most`` says that more than half of the superpixel was changed;
    superpixel 0 (``superpixel`` None) is what can not be asked about.
    """
    found: list[Json] = []
    for number in np.unique(superpixels[changed]).tolist():
        here = changed & (superpixels == number)
        row = rows.get(number)
        pixels = int(here.sum())
        before = here & covered
        found.append(
            {
                "superpixel": row.id if row else None,
                "number": number,
                "from": _mode(shown[before]) if before.any() else None,
                "to": _mode(edited[here]),
                "pixels": pixels,
                "most": row is not None and 2 * pixels > row.size,
            }
        )
    return found


def _mode(classes: NDArray[np.uint8]) -> int:
    return int(np.bincount(classes).argmax())


def _paint(
    regions: Sequence[Region], shape: tuple[int, ...], uncovered: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The label map of regions painted in their order, and where there are any."""
    labels = np.full(shape, uncovered, dtype=np.uint8)
    covered = np.zeros(shape, dtype=np.bool_)
    for region in regions:
        labels[region.mask] = region.class_id
        covered |= region.mask
    return labels, covered


def _order(now: Sequence[Region], before: Sequence[Region]) -> list[Region]:
    """What was shown and left alone lies below what the annotator relabelled or painted."""
    known = {(region.name, region.class_id): region.mask for region in before}

    def is_new(region: Region) -> bool:
        mask = known.get((region.name, region.class_id))
        return mask is None or not np.array_equal(mask, region.mask)

    return sorted(now, key=is_new)


def _shown(
    client: Callable[[], Client],
    annotation: Annotation,
    classes: list[str],
    shape: tuple[int, ...],
) -> list[Region]:
    """The regions that an annotator began from.

    Those of the prediction, from the record or from Label Studio; when it is gone, the regions
    that Label Studio says were left as they were.
    """
    shown = annotation.shown
    if shown is None and annotation.parent_prediction is not None:
        prediction = client().get_or_none(f"/api/predictions/{annotation.parent_prediction}/")
        shown = None if prediction is None else prediction["result"]
    if shown is None:
        shown = [
            item
            for item in annotation.result
            if isinstance(item, dict) and item.get("origin") == "prediction"
        ]
    return read_regions(shown, classes, shape)
