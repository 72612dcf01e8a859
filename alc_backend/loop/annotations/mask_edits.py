"""Direct edits: annotations of the dataset project on their way into the ledger.

An annotation there is a whole set of masks, begun from those that were shown. What counts is what
the annotator changed: regions relabelled, added or erased. Everything else stays with the answers.
Writes the ledger and the map of each edit; reads label and superpixel maps, and from Label Studio
the prediction that an edit began from. Called by ``webhooks`` and ``reconciliation``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from alc_backend.store.models import EntryKind, Image, LedgerEntry, Project, Superpixel


@dataclass(frozen=True)
class Masks:
    """The masks of one image: ``labels`` uint8 (H, W), and where there are any, bool (H, W)."""

    labels: NDArray[np.uint8]
    covered: NDArray[np.bool_]


def record(
    store: Store, client: Callable[[], Client], project: Project, annotation: Annotation
) -> Outcome:
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
    if _is_known(image, last, annotation):
        return Outcome.KNOWN
    files = store.files(project.id)
    superpixels = files.read_superpixels(image.id)
    if annotation.annotation_id == image.initial_annotation:
        initial = files.read_label_map("initial", image.id)
        before, after = _since_initial(project, annotation, initial)
    else:
        before, after = _since_prediction(client, project, annotation, superpixels.shape)
    changed = (before.covered | after.covered) & ~(before.covered & (before.labels == after.labels))
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
            before, after.labels, changed, superpixels, {row.number: row for row in rows}
        ),
    )
    with store.session() as session:
        entry = ledger.record_edit(session, image, edit)
        if entry is None:
            return Outcome.KNOWN
        files.write_edit(entry.annotation_id, entry.revision, after.labels, changed)
    return Outcome.RECORDED


def _is_known(image: Image, last: LedgerEntry | None, annotation: Annotation) -> bool:
    """Whether the ledger, or the first label map, has an annotation as it is or a newer one."""
    if last is None:
        taken_at = image.initial_annotation_at
        return taken_at is not None and annotation.updated_at <= taken_at
    return last.kind == EntryKind.DELETED or annotation.updated_at <= last.updated_at


def _since_initial(
    project: Project, annotation: Annotation, initial: NDArray[np.uint8]
) -> tuple[Masks, Masks]:
    """The masks before and after an edit of the annotation that the first label map came from."""
    before = Masks(initial, np.ones(initial.shape, dtype=np.bool_))
    if annotation.cancelled:
        return before, before
    now = read_regions(annotation.result, project.classes, initial.shape)
    now.sort(key=lambda region: -int(region.mask.sum()))  # as the first label map was painted
    return before, _paint(now, initial.shape, uncovered_class(project.classes))


def _since_prediction(
    client: Callable[[], Client], project: Project, annotation: Annotation, shape: tuple[int, ...]
) -> tuple[Masks, Masks]:
    """The masks before and after an edit that began from what a prediction showed."""
    uncovered = uncovered_class(project.classes)
    shown = _shown(client, annotation, project.classes, shape)
    before = _paint(shown, shape, uncovered)
    if annotation.cancelled:
        return before, before
    now = read_regions(annotation.result, project.classes, shape)
    return before, _paint(_order(now, shown), shape, uncovered)


def changes(
    before: Masks,
    edited: NDArray[np.uint8],
    changed: NDArray[np.bool_],
    superpixels: NDArray[np.int32],
    rows: dict[int, Any],
) -> list[Json]:
    """What an edit changed in each superpixel, as the ledger keeps it.

    ``edited`` is the label map after the edit, ``changed`` tells which pixels count; all arrays
    are (H, W). ``rows`` gives the row id and size of each superpixel number. Each change has the
    superpixel's row id (``superpixel``) and ``number``, the most frequent classes before and after
    (``from``, None where nothing was shown, and ``to``), how many ``pixels``, and whether that is
    ``most`` of the superpixel. Number 0, row id None, is what cannot be asked about.
    """
    found: list[Json] = []
    for number in np.unique(superpixels[changed]).tolist():
        here = changed & (superpixels == number)
        row = rows.get(number)
        pixels = int(here.sum())
        shown = here & before.covered
        found.append(
            {
                "superpixel": row.id if row else None,
                "number": number,
                "from": _mode(before.labels[shown]) if shown.any() else None,
                "to": _mode(edited[here]),
                "pixels": pixels,
                "most": row is not None and 2 * pixels > row.size,
            }
        )
    return found


def _mode(classes: NDArray[np.uint8]) -> int:
    return int(np.bincount(classes).argmax())


def _paint(regions: Sequence[Region], shape: tuple[int, ...], uncovered: int) -> Masks:
    """Regions painted in their order; ``uncovered`` is the class where there are none."""
    labels = np.full(shape, uncovered, dtype=np.uint8)
    covered = np.zeros(shape, dtype=np.bool_)
    for region in regions:
        labels[region.mask] = region.class_id
        covered |= region.mask
    return Masks(labels, covered)


def _order(now: Sequence[Region], before: Sequence[Region]) -> list[Region]:
    """The regions of now in the order to paint them: those that were left alone come first."""
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
    """The regions that an annotator began from: those of the prediction that was shown.

    They come with the annotation, or else from Label Studio. When the prediction is gone there,
    they are the regions that Label Studio marks as taken over from it unchanged.
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
