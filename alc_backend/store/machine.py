"""Batches of labels that the machine writes into the ledger by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from alc_backend.store import upkeep
from alc_backend.store.kinds import EntryKind
from alc_backend.store.ledger import lock
from alc_backend.store.models import LedgerEntry, Round, utc_now

MACHINE = "machine"
"""The annotator of what the machine wrote by itself; people are numbers in Label Studio."""

ADMIN = "admin"
"""Who withdraws a batch of the machine by hand; the machine withdraws its own as MACHINE."""


@dataclass(frozen=True)
class MachineLabel:
    """What the machine says of a superpixel (row id) by itself; the rest is as a tile has it."""

    superpixel_id: int
    image_id: int
    row: int
    col: int
    pseudo_label: int


def record_machine(
    session: Session, round_: Round, class_id: int, labels: Sequence[MachineLabel]
) -> int | None:
    """Append a batch of the machine's own labels, all of one class, to the ledger.

    Returns the batch's number, from 1 in each project, or None without labels. It is revoked by
    :func:`alc_backend.store.recording.withdraw`, as the annotation of the negative number.
    """
    if not labels:
        return None
    project = lock(session, round_.project_id)
    lowest = session.scalar(
        select(func.min(LedgerEntry.annotation_id)).where(LedgerEntry.project_id == project.id)
    )
    batch = max(0, -(lowest or 0)) + 1
    with upkeep.keeping(session, project, -batch):
        session.add_all(_entries(round_, class_id, labels, batch))
    return batch


def _entries(
    round_: Round, class_id: int, labels: Sequence[MachineLabel], batch: int
) -> Iterator[LedgerEntry]:
    """The entries of a batch."""
    now = utc_now()
    for position, label in enumerate(labels, start=1):
        yield LedgerEntry(
            project_id=round_.project_id,
            image_id=label.image_id,
            superpixel_id=label.superpixel_id,
            annotation_id=-batch,
            position=position,
            revision=0,
            kind=EntryKind.MACHINE,
            class_id=class_id,
            proposed=class_id,
            pseudo_label=label.pseudo_label,
            row=label.row,
            col=label.col,
            round_number=round_.number,
            annotator=MACHINE,
            answered_at=now,
            updated_at=now,
        )


def has_written(session: Session, project_id: int) -> bool:
    """Whether the machine has ever written a batch in a project."""
    batches = select(LedgerEntry.id).where(
        LedgerEntry.project_id == project_id, LedgerEntry.annotation_id < 0
    )
    return session.scalar(batches.limit(1)) is not None


def undone(session: Session, round_: Round) -> set[tuple[int | None, int | None]]:
    """What a person took back of what the machine wrote in a round: superpixel (row id), class."""
    rows = session.execute(
        select(LedgerEntry.superpixel_id, LedgerEntry.proposed).where(
            LedgerEntry.project_id == round_.project_id,
            LedgerEntry.round_number == round_.number,
            LedgerEntry.annotation_id < 0,
            LedgerEntry.kind == EntryKind.DELETED,
            LedgerEntry.annotator != MACHINE,
        )
    )
    return {(row.superpixel_id, row.proposed) for row in rows}
