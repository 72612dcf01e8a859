"""Recording: what annotators did becomes entries of the ledger, each thing once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from alc_backend.store import upkeep
from alc_backend.store.incoming import Attempt
from alc_backend.store.kinds import EntryKind
from alc_backend.store.ledger import in_force_of, last_revisions, lock
from alc_backend.store.models import (
    Image,
    LedgerEntry,
    Project,
    Query,
    Round,
    Score,
    Superpixel,
    utc_now,
)
from alc_backend.store.pages import Page


@dataclass(frozen=True)
class Reply:
    """What one annotation in Label Studio says to a query: a class, or a skip.

    ``class_id`` is None for a skip; ``annotator`` is the id of a user of Label Studio;
    ``lead_time`` is in seconds. ``answered_at`` is when the annotation was first submitted,
    ``updated_at`` when it was last changed. ``round_number`` is the round whose query the
    annotator saw, None for the query's present round; ``overlap`` the number of annotators it was
    put to, None for the project's present number. ``label_studio_project`` and ``task_id`` are
    where it was given, None where that is not known. Of the answer to a page it is what one tile
    says, at a ``position`` from 1: ``ruled_out`` when it was unticked, and ``class_id`` is None;
    ``repeated`` is that of :class:`~alc_backend.store.pages.Tile`, ``review`` that of
    :class:`~alc_backend.store.pages.Page`.
    """

    annotation_id: int
    class_id: int | None
    annotator: str
    lead_time: float | None
    answered_at: datetime
    updated_at: datetime
    round_number: int | None = None
    overlap: int | None = None
    label_studio_project: int | None = None
    task_id: int | None = None
    position: int = 0
    ruled_out: bool = False
    repeated: bool = False
    review: bool = False


@dataclass(frozen=True)
class Edit:
    """What one annotation in Label Studio changed in the masks of an image by hand.

    ``changes`` has one item for each superpixel, as
    :func:`alc_backend.loop.annotations.mask_edits.changes` returns them; ``skipped`` says that the
    annotator skipped the image. The other fields are those of :class:`Reply`.
    """

    annotation_id: int
    annotator: str
    lead_time: float | None
    answered_at: datetime
    updated_at: datetime
    skipped: bool
    changes: list[dict[str, Any]]
    label_studio_project: int | None = None
    task_id: int | None = None


def record(
    session: Session, query: Query, reply: Reply, *, again: bool = False
) -> LedgerEntry | None:
    """Append an entry for ``reply`` to the ledger and return it; None when nothing is new.

    The same annotation may arrive any number of times, by webhook and by reconciliation, in any
    order: an entry is appended only when the annotation is newer than its last entry, or as old
    with another content. What :func:`contradicts` the ledger is so only when Label Studio, asked
    after that, says so ``again``.
    """
    project = lock(session, query.superpixel.image.project_id)
    shown = _as_shown(session, query, project.id, reply.round_number)
    with upkeep.keeping(session, project, reply.annotation_id):
        entry = _append(session, project, shown, reply, again=again)
        if entry is not None:
            _leave(session, project.id, reply.annotation_id, {reply.position})
    return entry


def record_page(
    session: Session, page: Page, reply: Reply, ticked: Collection[int] | None, *, again: bool
) -> list[LedgerEntry]:
    """Append an entry for each tile of a page to the ledger; returns those that are new.

    ``ticked`` are the positions that were left ticked, None where the page was skipped. ``reply``
    says the rest: its class is that of ticked tiles, its ``lead_time`` is the whole page's.
    ``again`` is that of :func:`record`. Raises ValueError for a position that the page has not.
    """
    positions = {tile.position for tile in page.tiles}
    if unknown := set(ticked or ()) - positions:
        raise ValueError(f"page {page.key} has {len(positions)} tiles, and none {min(unknown)}")
    project = lock(session, page.project_id)
    share = None if reply.lead_time is None else reply.lead_time / len(positions)
    found = []
    with upkeep.keeping(session, project, reply.annotation_id):
        for tile in page.tiles:
            is_ticked = ticked is not None and tile.position in ticked
            said = replace(
                reply,
                position=tile.position,
                class_id=page.proposed if is_ticked else None,
                ruled_out=ticked is not None and not is_ticked,
                repeated=ticked is not None and tile.repeated,
                review=ticked is not None and page.review,
                lead_time=share,
            )
            shown = _Question(
                tile.superpixel, tile.pseudo_label, tile.row, tile.col, page.round.number,
                proposed=page.proposed,
            )  # fmt: skip
            entry = _append(session, project, shown, said, again=again)
            if entry is not None:
                found.append(entry)
        if found:
            _leave(session, project.id, reply.annotation_id, positions)
    return found


def _append(
    session: Session, project: Project, shown: _Question, reply: Reply, *, again: bool
) -> LedgerEntry | None:
    """Append what one annotation says to one question, if that is new."""
    superpixel = shown.superpixel
    revisions = last_revisions(session, project.id, reply.annotation_id)
    before = revisions.get(reply.position)
    given = (superpixel.image_id, superpixel.id, reply.answered_at)
    same = before is not None and before.is_of(*given)
    last = before if same else None
    if not _is_news(before, reply, same=same, again=again):
        return None
    # a revision answers the question as it was first asked
    question = last or shown
    kind = _kind_of(reply, question.pseudo_label)
    if last is not None and (kind, reply.class_id, reply.updated_at) == (
        last.kind,
        last.class_id,
        last.updated_at,
    ):
        return None
    entry = LedgerEntry(
        project_id=project.id,
        image_id=superpixel.image_id,
        superpixel_id=superpixel.id,
        annotation_id=reply.annotation_id,
        label_studio_project=reply.label_studio_project,
        task_id=reply.task_id,
        position=reply.position,
        revision=before.revision + 1 if before else 0,
        kind=kind,
        class_id=reply.class_id,
        proposed=shown.proposed,
        pseudo_label=question.pseudo_label,
        row=question.row,
        col=question.col,
        round_number=question.round_number,
        overlap=last.overlap if last else reply.overlap or project.overlap,
        adjudication=shown.adjudication,
        annotator=reply.annotator,
        lead_time=reply.lead_time,
        answered_at=reply.answered_at,
        updated_at=reply.updated_at,
    )
    session.add(entry)
    session.flush()
    return entry


def _kind_of(reply: Reply, pseudo_label: int | None) -> EntryKind:
    """What a reply says to a question that shows this label."""
    if reply.repeated:
        return EntryKind.REPEATED
    if reply.review:
        return EntryKind.REVIEWED
    if reply.ruled_out:
        return EntryKind.RULED_OUT
    if reply.class_id is None:
        return EntryKind.SKIP
    return EntryKind.ACCEPT if reply.class_id == pseudo_label else EntryKind.CORRECT


def _leave(session: Session, project_id: int, annotation_id: int, kept: Collection[int]) -> None:
    """Withdraw what an earlier annotation of the same number said at other positions."""
    for entry in in_force_of(session, project_id, annotation_id):
        if entry.position not in kept:
            session.add(_withdrawal(entry))
    session.flush()


def record_edit(
    session: Session, image: Image, edit: Edit, *, again: bool = False
) -> LedgerEntry | None:
    """Append an entry for ``edit`` to the ledger and return it; None when it is known or older.

    The caller writes the edited label map (``ProjectFiles.write_edit``) in the same transaction.
    ``again`` is that of :func:`record`.
    """
    project = lock(session, image.project_id)
    last = last_revisions(session, image.project_id, edit.annotation_id).get(0)
    same = last is not None and last.is_of(image.id, None, edit.answered_at)
    if not _is_news(last, edit, same=same, again=again):
        return None
    latest = session.scalar(
        select(func.max(Round.number)).where(
            Round.project_id == image.project_id, Round.opened_at.is_not(None)
        )
    )
    entry = LedgerEntry(
        project_id=image.project_id,
        image_id=image.id,
        annotation_id=edit.annotation_id,
        label_studio_project=edit.label_studio_project,
        task_id=edit.task_id,
        revision=last.revision + 1 if last else 0,
        kind=EntryKind.SKIP if edit.skipped else EntryKind.EDIT,
        changes=edit.changes,
        round_number=latest or 0,
        annotator=edit.annotator,
        lead_time=edit.lead_time,
        answered_at=edit.answered_at,
        updated_at=edit.updated_at,
    )
    with upkeep.keeping(session, project, edit.annotation_id):
        session.add(entry)
        session.flush()
        _leave(session, image.project_id, edit.annotation_id, {0})
    return entry


def withdraw(
    session: Session, project_id: int, annotation_id: int, by: str | None = None
) -> list[LedgerEntry]:
    """Append an entry for a deleted annotation, for each of its tiles; returns them.

    A batch of the machine is one whose number is negative. ``by`` is who says so, where that is not
    the annotator. Nothing happens where none is in force.
    """
    project = lock(session, project_id)
    tried = (Attempt.project_id == project_id, Attempt.annotation_id == annotation_id)
    session.execute(delete(Attempt).where(*tried))
    with upkeep.keeping(session, project, annotation_id):
        gone = [_withdrawal(entry) for entry in in_force_of(session, project_id, annotation_id)]
        for entry in gone:
            entry.annotator = by or entry.annotator
        session.add_all(gone)
    return gone


def _withdrawal(last: LedgerEntry) -> LedgerEntry:
    """The entry that says that an annotation is gone, whose last one this is."""
    return LedgerEntry(
        project_id=last.project_id,
        image_id=last.image_id,
        superpixel_id=last.superpixel_id,
        annotation_id=last.annotation_id,
        label_studio_project=last.label_studio_project,
        task_id=last.task_id,
        position=last.position,
        revision=last.revision + 1,
        kind=EntryKind.DELETED,
        proposed=last.proposed,
        pseudo_label=last.pseudo_label,
        row=last.row,
        col=last.col,
        round_number=last.round_number,
        overlap=last.overlap,
        adjudication=last.adjudication,
        annotator=last.annotator,
        lead_time=None,
        answered_at=last.answered_at,
        updated_at=utc_now(),
    )


def contradicts(
    session: Session, project_id: int, annotation_id: int, updated_at: datetime
) -> bool:
    """Whether an annotation, last changed at a moment, is at odds with what the ledger has.

    It was withdrawn, or is older than its last entry and yet unknown. Either it was read before
    that, or Label Studio was restored from a dump, or its clock set back. One that is older and
    known (Label Studio was restored) contradicts nothing: the later entry stays.
    """
    entries = session.execute(
        select(LedgerEntry.id, LedgerEntry.kind, LedgerEntry.updated_at).where(
            LedgerEntry.project_id == project_id, LedgerEntry.annotation_id == annotation_id
        )
    ).all()
    if not entries:
        return False
    last = max(entries, key=lambda entry: entry.id)  # by the database, SQLite would read them all
    moments = {entry.updated_at for entry in entries}
    return last.kind == EntryKind.DELETED or (
        updated_at < last.updated_at and updated_at not in moments
    )


def _is_news(last: LedgerEntry | None, new: Reply | Edit, *, same: bool, again: bool) -> bool:
    """Whether ``new`` may tell more than the last entry of its number.

    ``same``: that is about the same annotation; ``again`` is that of :func:`record`.
    """
    if last is None:
        return True
    if last.kind == EntryKind.DELETED:
        return again
    if not same:
        return True
    if new.updated_at < last.updated_at:
        return again
    return isinstance(new, Reply) or new.updated_at > last.updated_at


@dataclass(frozen=True)
class _Question:
    """What an annotator was shown, under the names that an entry has for it."""

    superpixel: Superpixel
    pseudo_label: int
    row: int
    col: int
    round_number: int
    adjudication: bool = False
    proposed: int | None = None


def _as_shown(
    session: Session, query: Query, project_id: int, round_number: int | None
) -> _Question:
    """The query as the annotator saw it: a task may stay open in a browser across rounds."""
    if round_number not in (None, query.question_round):
        shown = session.scalars(
            select(Score)
            .join(Round, Round.id == Score.round_id)
            .where(
                Round.project_id == project_id,
                Round.number == round_number,
                Score.superpixel_id == query.superpixel_id,
            )
        ).first()
        if shown is not None and round_number is not None:
            return _Question(
                query.superpixel, shown.pseudo_label, shown.row, shown.col, round_number,
                query.adjudication,
            )  # fmt: skip
    return _Question(
        query.superpixel, query.pseudo_label, query.row, query.col, query.question_round,
        query.adjudication,
    )  # fmt: skip
