"""Direct edits: annotations of the dataset project on their way into the ledger.

An annotation there is a whole set of masks, begun from those that were shown. What counts is what
the annotator changed: regions relabelled, added or erased. Everything else stays with the answers.
Writes the ledger, the map of each edit and, by ``attempts``, what could not be read; reads label
and superpixel maps, and from Label Studio the prediction that an edit began from. Called by
``webhooks`` and ``reconciliation``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from alc_backend.common.types import Json
from alc_backend.core.arrays import strips
from alc_backend.datasets.classes import uncovered_class
from alc_backend.labelstudio.annotation import Annotation
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import DatasetTags, read_dataset_config
from alc_backend.labelstudio.regions import Region, UnknownClassError, read_regions
from alc_backend.loop.annotations import attempts
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store import ledger, recording
from alc_backend.store.database import Store
from alc_backend.store.files import encode_edit
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import Image, LedgerEntry, Project, Superpixel


@dataclass(frozen=True)
class Masks:
    """The masks of one image: ``labels`` uint8 (H, W), and where there are any, bool (H, W)."""

    labels: NDArray[np.uint8]
    covered: NDArray[np.bool_]


def record(
    store: Store,
    client: Callable[[], Client],
    project: Project,
    annotation: Annotation,
    *,
    again: bool = False,
) -> Outcome:
    """Write what an annotation of a dataset task changed into the ledger, once.

    Returns what became of it. ``again``: it contradicts the ledger, and Label Studio, asked after
    that, has it. Raises ValueError for regions that do not fit the image or are too
    many, and for an annotation at which several attempts have ended with the process;
    LabelStudioError when the prediction it began from cannot be fetched.
    """
    with store.reading() as session:
        image = session.scalars(
            select(Image).where(
                Image.project_id == project.id, Image.dataset_task == annotation.task_id
            )
        ).first()
        last = ledger.last_revisions(session, project.id, annotation.annotation_id).get(0)
    if image is None:
        return Outcome.UNKNOWN_TASK
    if not again and _is_known(image, last, annotation):
        return Outcome.KNOWN
    try:
        with attempts.attempt(store, image, annotation.annotation_id, annotation.updated_at):
            return _record(store, client, project, annotation, image, again=again)
    except UnknownClassError:  # what is not understood is no erasure; the attempt says why
        return Outcome.UNKNOWN_CLASS


def _record(
    store: Store,
    client: Callable[[], Client],
    project: Project,
    annotation: Annotation,
    image: Image,
    *,
    again: bool,
) -> Outcome:
    files = store.files(project.id)
    found, edited, changed = _read(store, client, project, annotation, image)
    edit = recording.Edit(
        annotation_id=annotation.annotation_id,
        annotator=annotation.annotator,
        lead_time=annotation.lead_time,
        answered_at=annotation.created_at,
        updated_at=annotation.updated_at,
        skipped=annotation.cancelled,
        changes=found,
        label_studio_project=project.dataset_project,
        task_id=annotation.task_id,
    )
    content = encode_edit(edited, changed)
    with store.session() as session:
        entry = recording.record_edit(session, image, edit, again=again)
        if entry is None:
            return Outcome.KNOWN
        files.write_edit(entry.annotation_id, entry.revision, content)
    return Outcome.RECORDED


def _read(
    store: Store,
    client: Callable[[], Client],
    project: Project,
    annotation: Annotation,
    image: Image,
) -> tuple[list[Json], NDArray[np.uint8], NDArray[np.bool_]]:
    """What an edit changed: for the ledger, the label map after it, and where, both (H, W)."""
    files = store.files(project.id)
    shape = (image.height, image.width)
    tags = _tags(client, project)
    if _is_initial(image, annotation):
        initial = files.read_label_map("initial", image.id)
        before, after = _since_initial(project, tags, annotation, initial)
    else:
        before, after = _since_prediction(client, project, tags, annotation, shape)
    changed = (before.covered | after.covered) & ~(before.covered & (before.labels == after.labels))
    with store.reading() as session:
        rows = session.execute(
            select(Superpixel.number, Superpixel.id, Superpixel.size).where(
                Superpixel.image_id == image.id
            )
        ).all()
    superpixels = files.read_superpixels(image.id)
    by_number = {row.number: row for row in rows}
    return (
        changes(before, after.labels, changed, superpixels, by_number),
        after.labels,
        changed,
    )


def _is_known(image: Image, last: LedgerEntry | None, annotation: Annotation) -> bool:
    """Whether the ledger, or the first label map, has an annotation as it is or a newer one."""
    if last is not None and last.kind == EntryKind.DELETED:
        return True
    if last is not None and last.is_of(image.id, None, annotation.created_at):
        return annotation.updated_at <= last.updated_at
    taken_at, taken = image.initial_annotation_at, image.initial_annotation
    if taken_at is None or taken is None:
        return False
    return annotation.updated_at <= taken_at and annotation.annotation_id <= taken


def _is_initial(image: Image, annotation: Annotation) -> bool:
    """Whether the first label map came from an annotation, or a revision of it.

    One that was first given after that has its number from Label Studio, restored from an older
    dump.
    """
    taken_at = image.initial_annotation_at
    return annotation.annotation_id == image.initial_annotation and (
        taken_at is None or annotation.created_at <= taken_at
    )


def _tags(client: Callable[[], Client], project: Project) -> DatasetTags:
    """What the label config says at this moment of the regions that annotators make."""
    found = client().get(f"/api/projects/{project.dataset_project}", include="label_config")
    return read_dataset_config(found["label_config"]).knowing(project.renamed)


def _since_initial(
    project: Project, tags: DatasetTags, annotation: Annotation, initial: NDArray[np.uint8]
) -> tuple[Masks, Masks]:
    """The masks before and after an edit of the annotation that the first label map came from."""
    before = Masks(initial, np.ones(initial.shape, dtype=np.bool_))
    if annotation.cancelled:
        return before, before
    shape = (initial.shape[0], initial.shape[1])
    now = read_regions(tags.masks(annotation.result), project.classes, shape)
    now.sort(key=lambda region: -region.area)  # as the first label map was painted
    return before, _paint(now, shape, uncovered_class(project.classes))


def _since_prediction(
    client: Callable[[], Client],
    project: Project,
    tags: DatasetTags,
    annotation: Annotation,
    shape: tuple[int, int],
) -> tuple[Masks, Masks]:
    """The masks before and after an edit that began from what a prediction showed."""
    uncovered = uncovered_class(project.classes)
    shown = read_regions(tags.masks(_shown(client, annotation)), project.classes, shape)
    before = _paint(shown, shape, uncovered)
    if annotation.cancelled:
        return before, before
    now = read_regions(tags.masks(annotation.result), project.classes, shape)
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
    counts: dict[int, _Counts] = {}
    for strip in strips(changed.shape):
        here = changed[strip]
        if not here.any():
            continue
        shown = np.where(before.covered[strip][here], before.labels[strip][here], _NOT_SHOWN)
        keys = superpixels[strip][here].astype(np.int64) << 17 | shown.astype(np.int64) << 8
        found, pixels = np.unique(keys | edited[strip][here], return_counts=True)
        for key, many in zip(found.tolist(), pixels.tolist(), strict=True):
            counts.setdefault(key >> 17, _Counts()).add(key >> 8 & 511, key & 255, many)
    return [_change(number, counts[number], rows.get(number)) for number in sorted(counts)]


def _change(number: int, counts: _Counts, row: Any) -> Json:
    """What an edit changed in one superpixel, ``row`` None where there is none in the database."""
    pixels = sum(counts.after.values())
    return {
        "superpixel": row.id if row else None,
        "number": number,
        "from": _mode(counts.before) if counts.before else None,
        "to": _mode(counts.after),
        "pixels": pixels,
        "most": row is not None and 2 * pixels > row.size,
    }


_NOT_SHOWN = np.int64(256)
"""In place of the class of a pixel where nothing was shown."""


@dataclass
class _Counts:
    """How many changed pixels of a superpixel had each class before and have it after an edit."""

    before: Counter[int] = field(default_factory=Counter)
    after: Counter[int] = field(default_factory=Counter)

    def add(self, before: int, after: int, pixels: int) -> None:
        self.after[after] += pixels
        if before != _NOT_SHOWN:
            self.before[before] += pixels


def _mode(counts: Counter[int]) -> int:
    """The most frequent class; of equally frequent ones the smallest."""
    return min(counts, key=lambda class_id: (-counts[class_id], class_id))


def _paint(regions: Sequence[Region], shape: tuple[int, int], uncovered: int) -> Masks:
    """Regions painted in their order; ``uncovered`` is the class where there are none."""
    labels = np.full(shape, uncovered, dtype=np.uint8)
    covered = np.zeros(shape, dtype=np.bool_)
    for region in regions:
        region.paint(labels, region.class_id)
        region.paint(covered, True)
    return Masks(labels, covered)


def _order(now: Sequence[Region], before: Sequence[Region]) -> list[Region]:
    """The regions of now in the order to paint them: those that were left alone come first."""
    known = {(region.name, region.class_id): region.edges for region in before}

    def is_new(region: Region) -> bool:
        edges = known.get((region.name, region.class_id))
        return edges is None or not np.array_equal(edges, region.edges)

    return sorted(now, key=is_new)


def _shown(client: Callable[[], Client], annotation: Annotation) -> list[Any]:
    """The regions that an annotator began from: those of the prediction that was shown.

    When that is gone from Label Studio, they are the regions that Label Studio marks as taken over
    from it unchanged.
    """
    if annotation.parent_prediction is not None:
        prediction = client().get_or_none(f"/api/predictions/{annotation.parent_prediction}/")
        if prediction is not None:
            return list(prediction["result"])
    return [
        item
        for item in annotation.result
        if isinstance(item, dict) and item.get("origin") == "prediction"
    ]
