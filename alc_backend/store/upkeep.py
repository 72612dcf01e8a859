"""Upkeep: what is derived from the ledger follows it, in the transaction that writes it.

What stands for each superpixel, and the counts (:mod:`alc_backend.store.derived`). Whoever appends
entries does so within :func:`keeping`; whoever takes an image out of the dataset, or changes how
many annotators are asked, calls :func:`set_removed` or :func:`set_overlap`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.store import ledger, pixel_counts, tallies
from alc_backend.store.derived import Counted, ImageState, Standing, Tally
from alc_backend.store.kinds import ANSWERS, EntryKind, Removal
from alc_backend.store.models import TRAIN, Image, LedgerEntry, Project, Superpixel
from alc_backend.store.stands import Stand, corrected_in, stands
from alc_backend.store.tallies import Key
from alc_backend.store.upserts import upsert

AT_ONCE = 500
"""Superpixels, images or annotations that are looked at together."""

TAUGHT = (*ANSWERS, EntryKind.RULED_OUT, EntryKind.DELETED)
"""The kinds of entries that change what is to be asked next."""

T = TypeVar("T")

SHOWN = 3
"""Differences that :func:`differences` names."""


@contextmanager
def keeping(session: Session, project: Project, annotation_id: int) -> Iterator[None]:
    """Let what is derived follow the entries about one annotation that the block appends.

    The project is locked (:func:`alc_backend.store.ledger.lock`).
    """
    before = ledger.standing_of(session, project.id, [annotation_id]).get(annotation_id, [])
    position = ledger.position(session, project.id)
    yield
    session.flush()
    after = ledger.standing_of(session, project.id, [annotation_id]).get(annotation_id, [])
    new = session.execute(
        select(LedgerEntry.id, LedgerEntry.image_id, LedgerEntry.kind)
        .where(
            LedgerEntry.project_id == project.id,
            LedgerEntry.annotation_id == annotation_id,
            LedgerEntry.id > position,
        )
        .order_by(LedgerEntry.id)
    ).all()
    if not new:
        return
    changes = _difference(tallies.said(before), tallies.said(after))
    if annotation_id > 0:  # what the machine withdraws teaches nothing
        changes[Key(Counted.TAUGHT)] += sum(row.kind in TAUGHT for row in new)
    tallies.add(session, project.id, changes)
    _note_last(session, project.id, {row.image_id: row.id for row in new})
    known, there = {entry.id for entry in before}, {entry.id for entry in after}
    changed = [entry for entry in (*before, *after) if (entry.id in known) != (entry.id in there)]
    pixel_counts.forget(session, {entry.image_id for entry in changed})
    refresh(session, project, {one for entry in changed for one in _about(entry)})


def _about(entry: LedgerEntry) -> Iterator[int]:
    """The superpixels (row ids) that an entry says something about."""
    if entry.superpixel_id is not None:
        yield entry.superpixel_id
    for change in entry.changes or ():
        if change["superpixel"] is not None:
            yield change["superpixel"]


def _difference(before: Mapping[T, int], after: Mapping[T, int]) -> Counter[T]:
    """What must be added to ``before`` to make it ``after``."""
    changes = Counter(after)
    changes.subtract(before)
    return changes


def refresh(session: Session, project: Project, superpixels: Collection[int]) -> None:
    """Judge some superpixels (row ids) anew, and write down what stands for them."""
    changes: Counter[Key] = Counter()
    for part in batched(sorted(superpixels), AT_ONCE):
        new = _judged(session, project, part)
        old = _kept(session, Standing.superpixel_id.in_(part))
        changed = [one for one in old if old[one] != new.get(one)]
        if changed:
            session.execute(delete(Standing).where(Standing.superpixel_id.in_(changed)))
        _write(session, project.id, {o: s for o, s in new.items() if old.get(o) != s})
        for stand in old.values():
            changes.subtract(stand.counts())
        for stand in new.values():
            changes.update(stand.counts())
        _add_corrected(
            session, project.id, _difference(corrected_in(old.values()), corrected_in(new.values()))
        )
    tallies.add(session, project.id, changes)


def _add_corrected(session: Session, project_id: int, changes: Mapping[int, int]) -> None:
    """Add to the counts of corrected superpixels that images (row ids) have."""
    rows = [
        {"image_id": image, "project_id": project_id, "corrected": count}
        for image, count in sorted(changes.items())
        if count
    ]
    upsert(session, ImageState, rows, add=["corrected"])


def _judged(session: Session, project: Project, superpixels: list[int]) -> dict[int, Stand]:
    """What stands for some superpixels (row ids), by the ledger."""
    entries = ledger.standing_about(session, superpixels)
    found = stands(entries, ledger.judge(entries, project.overlap))
    wanted = set(superpixels)
    return {superpixel: stand for superpixel, stand in found.items() if superpixel in wanted}


def _kept(session: Session, which: object) -> dict[int, Stand]:
    """What is written down of the superpixels (row ids) that ``which`` selects."""
    rows = session.execute(
        select(
            Standing.superpixel_id, Standing.image_id, Standing.entry_id, Standing.class_id,
            Standing.kind, Standing.way, Standing.waiting, Standing.disputed,
        ).where(which)  # type: ignore[arg-type]
    )  # fmt: skip
    return {
        row[0]: Stand._make([*row[1:-1], None if row.disputed is None else tuple(row.disputed)])
        for row in rows
    }


def _write(session: Session, project_id: int, found: Mapping[int, Stand]) -> None:
    if found:
        session.execute(
            insert(Standing),
            [
                {
                    **stand._asdict(),
                    "superpixel_id": superpixel,
                    "project_id": project_id,
                    "disputed": None if stand.disputed is None else list(stand.disputed),
                }
                for superpixel, stand in sorted(found.items())
            ],
        )


def _note_last(session: Session, project_id: int, last: Mapping[int, int]) -> None:
    """Note the last ledger entry (id) of each image (row id)."""
    rows = [
        {"image_id": image, "project_id": project_id, "last_entry": entry}
        for image, entry in sorted(last.items())
    ]
    upsert(session, ImageState, rows, replace=["last_entry"])


def note_doubts(session: Session, project_id: int, doubts: Mapping[int, int]) -> None:
    """Note how doubtful images (row ids) are, in millionths of their pixels."""
    rows = [
        {"image_id": image, "project_id": project_id, "doubt": doubt}
        for image, doubt in sorted(doubts.items())
    ]
    upsert(session, ImageState, rows, replace=["doubt"])


def set_removed(session: Session, project_id: int, wanted: Mapping[int, Removal | None]) -> None:
    """Take images (row ids) out of the dataset, each for a reason, or bring them back (None).

    What was said about images that are out counts no more, and counts again once they are back.
    """
    project = ledger.lock(session, project_id)
    for part in batched(sorted(wanted), AT_ONCE):
        found = select(Image).where(Image.id.in_(part))
        images = session.scalars(found, execution_options={"populate_existing": True}).all()
        moved = [one for one in images if (one.removed is None) != (wanted[one.id] is None)]
        ids = [image.id for image in moved]
        said_in = set(
            session.scalars(
                select(LedgerEntry.annotation_id).where(LedgerEntry.image_id.in_(ids)).distinct()
            )
        )
        changes = _of_images(session, [image.id for image in moved if image.split == TRAIN])
        counted = {image.id: wanted[image.id] is None for image in moved if image.split == TRAIN}
        added: Counter[Key] = Counter()
        for image_id, counts in changes.items():
            (added.update if counted[image_id] else added.subtract)(counts)
        before = _said(session, project_id, said_in)
        for image in images:
            image.removed = wanted[image.id]
        session.flush()
        added.update(_difference(before, _said(session, project_id, said_in)))
        tallies.add(session, project_id, added)
        about = select(Superpixel.id).where(Superpixel.image_id.in_(ids))
        refresh(session, project, set(session.scalars(about)))


def _said(session: Session, project_id: int, annotations: Collection[int]) -> Counter[Key]:
    """What some annotations add to the counts."""
    found: Counter[Key] = Counter()
    for entries in ledger.standing_of(session, project_id, annotations).values():
        found.update(tallies.said(entries))
    return found


def _of_images(session: Session, images: Collection[int]) -> dict[int, Counter[Key]]:
    """What each of some images (row ids), with its superpixels, adds to the counts."""
    many = dict.fromkeys(images, 0)
    rows = session.execute(
        select(Superpixel.image_id, func.count())
        .where(Superpixel.image_id.in_(images))
        .group_by(Superpixel.image_id)
    )
    many.update((row[0], row[1]) for row in rows)
    return {image: image_added(count) for image, count in many.items()}


def image_added(superpixels: int) -> Counter[Key]:
    """What an image with so many superpixels adds to the counts of a project."""
    return Counter({Key(Counted.IMAGES): 1, Key(Counted.ASKABLE): superpixels})


def set_overlap(session: Session, project_id: int, overlap: int) -> None:
    """Change the number of annotators that a project asks, and judge its superpixels by it."""
    project = ledger.lock(session, project_id)
    project.overlap = overlap
    session.flush()
    mine = Standing.project_id == project_id
    refresh(session, project, set(session.scalars(select(Standing.superpixel_id).where(mine))))
    session.execute(  # the label maps may be others
        update(ImageState).where(ImageState.project_id == project_id).values(pixels_to=None)
    )


def differences(session: Session, project_id: int) -> list[str]:
    """How what is kept differs from what the ledger says: a sentence for each of SHOWN or fewer."""
    project = session.get_one(Project, project_id)
    counts: Counter[Key] = Counter()
    corrected: Counter[int] = Counter()
    found: list[str] = []
    for images, expected in _expected(session, project):
        kept = _kept(session, Standing.image_id.in_(images))
        found += [
            f"superpixel {one}: kept is {kept.get(one)}, the ledger says {expected.get(one)}"
            for one in sorted(kept.keys() | expected.keys())
            if kept.get(one) != expected.get(one)
        ]
        for stand in expected.values():
            counts.update(stand.counts())
        corrected.update(corrected_in(expected.values()))
    counts.update(_expected_counts(session, project_id))
    kept_counts = tallies.read(session, project_id)
    found += [
        f"count of {' '.join(str(part) for part in key if part)}: kept is {kept_counts[key]}, the "
        f"ledger says {counts[key]}"
        for key in sorted(kept_counts.keys() | counts.keys())
        if kept_counts[key] != counts[key]
    ]
    mine = (ImageState.project_id == project_id, ImageState.last_entry.is_not(None))
    rows = session.execute(select(ImageState.image_id, ImageState.last_entry).where(*mine))
    if {row[0]: row[1] for row in rows} != _expected_last(session, project_id):
        found.append("the last entries of images are not those of the ledger")
    noted = (ImageState.project_id == project_id, ImageState.corrected != 0)
    rows = session.execute(select(ImageState.image_id, ImageState.corrected).where(*noted))
    if {row[0]: row[1] for row in rows} != corrected:
        found.append("the corrected superpixels of images are not those of the ledger")
    return found[:SHOWN]


def rebuild(session: Session, project_id: int) -> None:
    """Make all that is derived from a project's ledger anew; what a network said stays."""
    project = ledger.lock(session, project_id)
    for table in (Standing, Tally):
        session.execute(delete(table).where(table.project_id == project_id))
    session.execute(
        update(ImageState)
        .where(ImageState.project_id == project_id)
        .values(last_entry=None, corrected=0, pixels_to=None)
    )
    counts: Counter[Key] = Counter()
    for _, expected in _expected(session, project):
        _write(session, project_id, expected)
        _add_corrected(session, project_id, corrected_in(expected.values()))
        for stand in expected.values():
            counts.update(stand.counts())
    counts.update(_expected_counts(session, project_id))
    tallies.add(session, project_id, counts)
    for part in batched(_expected_last(session, project_id).items(), AT_ONCE):
        _note_last(session, project_id, dict(part))


def _expected(session: Session, project: Project) -> Iterator[tuple[list[int], dict[int, Stand]]]:
    """What stands by the ledger for the superpixels of some images (row ids) after the others."""
    images = session.scalars(select(Image.id).where(Image.project_id == project.id)).all()
    for part in batched(sorted(images), AT_ONCE):
        entries = ledger.standing(session, project.id, images=part)
        yield part, stands(entries, ledger.judge(entries, project.overlap))


def _expected_counts(session: Session, project_id: int) -> Counter[Key]:
    """The counts by the ledger and the images, but for those of what stands for superpixels."""
    mine = LedgerEntry.project_id == project_id
    annotations = session.scalars(
        select(LedgerEntry.annotation_id).where(mine, LedgerEntry.annotation_id > 0).distinct()
    ).all()
    counts: Counter[Key] = Counter()
    for part in batched(sorted(annotations), AT_ONCE):
        counts.update(_said(session, project_id, part))
    taught = select(func.count()).where(
        mine, LedgerEntry.annotation_id > 0, LedgerEntry.kind.in_(TAUGHT)
    )
    counts[Key(Counted.TAUGHT)] = session.scalar(taught) or 0
    ours = (Image.project_id == project_id, Image.split == TRAIN, Image.removed.is_(None))
    images = session.scalar(select(func.count(Image.id)).where(*ours)) or 0
    of_ours = exists().where(Image.id == Superpixel.image_id, *ours)
    askable = session.scalar(select(func.count(Superpixel.id)).where(of_ours)) or 0
    counts[Key(Counted.IMAGES)], counts[Key(Counted.ASKABLE)] = images, askable
    return +counts


def _expected_last(session: Session, project_id: int) -> dict[int, int]:
    """The last ledger entry (id) of each image (row id) that has any."""
    rows = session.execute(
        select(LedgerEntry.image_id, func.max(LedgerEntry.id))
        .where(LedgerEntry.project_id == project_id)
        .group_by(LedgerEntry.image_id)
    )
    return {row[0]: row[1] for row in rows}
