"""The ledger: recording what annotators did, and judging superpixels by the entries in force."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from alc_backend.store.models import (
    Attempt,
    EntryKind,
    Image,
    LedgerEntry,
    Project,
    Query,
    Round,
    Score,
    Withdrawal,
    utc_now,
)

FEW_IMAGES = 1000
"""The most images that a query to the database lists by id; for more, it reads all entries."""


@dataclass(frozen=True)
class Reply:
    """What one annotation in Label Studio says to a query: a class, or a skip.

    ``class_id`` is None for a skip; ``annotator`` is the id of a user of Label Studio;
    ``lead_time`` is in seconds. ``answered_at`` is when the annotation was first submitted,
    ``updated_at`` when it was last changed. ``round_number`` is the round whose query the
    annotator saw, None for the query's present round; ``overlap`` the number of annotators it was
    put to, None for the project's present number.
    """

    annotation_id: int
    class_id: int | None
    annotator: str
    lead_time: float | None
    answered_at: datetime
    updated_at: datetime
    round_number: int | None = None
    overlap: int | None = None


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


def record(session: Session, query: Query, reply: Reply) -> LedgerEntry | None:
    """Append an entry for ``reply`` to the ledger and return it; None when nothing is new.

    The same annotation may arrive any number of times, by webhook and by reconciliation, in any
    order: an entry is appended only when the annotation is newer than its last entry, or as old
    with another content.
    """
    image = query.superpixel.image
    project = lock(session, image.project_id)
    last = last_revision(session, project.id, reply.annotation_id)
    if not _is_news(session, project.id, last, reply):
        return None
    # a revision answers the question as it was first asked
    question = last or _as_shown(session, query, project.id, reply.round_number)
    if reply.class_id is None:
        kind = EntryKind.SKIP
    else:
        kind = EntryKind.ACCEPT if reply.class_id == question.pseudo_label else EntryKind.CORRECT
    if last is not None and (kind, reply.class_id, reply.updated_at) == (
        last.kind,
        last.class_id,
        last.updated_at,
    ):
        return None
    entry = LedgerEntry(
        project_id=project.id,
        image_id=image.id,
        superpixel_id=query.superpixel_id,
        annotation_id=reply.annotation_id,
        revision=last.revision + 1 if last else 0,
        kind=kind,
        class_id=reply.class_id,
        pseudo_label=question.pseudo_label,
        row=question.row,
        col=question.col,
        round_number=question.round_number,
        overlap=last.overlap if last else reply.overlap or project.overlap,
        adjudication=query.adjudication,
        annotator=reply.annotator,
        lead_time=reply.lead_time,
        answered_at=reply.answered_at,
        updated_at=reply.updated_at,
    )
    session.add(entry)
    session.flush()
    return entry


def record_edit(session: Session, image: Image, edit: Edit) -> LedgerEntry | None:
    """Append an entry for ``edit`` to the ledger and return it; None when it is known or older.

    The caller writes the edited label map (``ProjectFiles.write_edit``) in the same transaction.
    """
    lock(session, image.project_id)
    last = last_revision(session, image.project_id, edit.annotation_id)
    if not _is_news(session, image.project_id, last, edit):
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
        revision=last.revision + 1 if last else 0,
        kind=EntryKind.SKIP if edit.skipped else EntryKind.EDIT,
        changes=edit.changes,
        round_number=latest or 0,
        annotator=edit.annotator,
        lead_time=edit.lead_time,
        answered_at=edit.answered_at,
        updated_at=edit.updated_at,
    )
    session.add(entry)
    session.flush()
    return entry


def withdraw(session: Session, project_id: int, annotation_id: int) -> LedgerEntry | None:
    """Append an entry for a deleted annotation and return it; None when there is nothing to undo.

    An annotation that the ledger does not know yet will never enter it, even if a late webhook
    reports it.
    """
    lock(session, project_id)
    tried = (Attempt.project_id == project_id, Attempt.annotation_id == annotation_id)
    session.execute(delete(Attempt).where(*tried))
    last = last_revision(session, project_id, annotation_id)
    if last is None:
        if session.get(Withdrawal, (project_id, annotation_id)) is None:
            session.add(Withdrawal(project_id=project_id, annotation_id=annotation_id))
        return None
    if last.kind == EntryKind.DELETED:
        return None
    entry = LedgerEntry(
        project_id=project_id,
        image_id=last.image_id,
        superpixel_id=last.superpixel_id,
        annotation_id=annotation_id,
        revision=last.revision + 1,
        kind=EntryKind.DELETED,
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
    session.add(entry)
    session.flush()
    return entry


def lock(session: Session, project_id: int) -> Project:
    """The project, locked until the transaction ends: one at a time appends to its ledger."""
    return session.get_one(Project, project_id, with_for_update={"of": Project, "key_share": True})


def last_revision(session: Session, project_id: int, annotation_id: int) -> LedgerEntry | None:
    """The last entry about an annotation; None when there is none."""
    return session.scalars(
        select(LedgerEntry)
        .where(LedgerEntry.project_id == project_id, LedgerEntry.annotation_id == annotation_id)
        .order_by(LedgerEntry.revision.desc())
        .limit(1)
    ).first()


def _is_news(
    session: Session, project_id: int, last: LedgerEntry | None, new: Reply | Edit
) -> bool:
    """Whether ``new`` may tell more than the annotation's last entry."""
    if last is None:
        return session.get(Withdrawal, (project_id, new.annotation_id)) is None
    older = new.updated_at < last.updated_at
    same = isinstance(new, Edit) and new.updated_at == last.updated_at
    return last.kind != EntryKind.DELETED and not older and not same


@dataclass(frozen=True)
class _Question:
    pseudo_label: int
    row: int
    col: int
    round_number: int


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
            return _Question(shown.pseudo_label, shown.row, shown.col, round_number)
    return _Question(query.pseudo_label, query.row, query.col, query.question_round)


def position(session: Session, project_id: int) -> int:
    """The id of the project's last ledger entry; 0 when there is none."""
    return (
        session.scalar(select(func.max(LedgerEntry.id)).where(LedgerEntry.project_id == project_id))
        or 0
    )


def standing(
    session: Session,
    project_id: int,
    upto: int | None = None,
    images: Collection[int] | None = None,
) -> list[LedgerEntry]:
    """The entries in force, in replay order: each annotation's last one, unless it was deleted.

    ``upto`` is the id of the last entry to look at (default: all). ``images`` (ids) are those that
    the caller needs: up to FEW_IMAGES of them, only their entries are returned; else all are.
    """
    entries = select(LedgerEntry).where(LedgerEntry.project_id == project_id)
    if upto is not None:
        entries = entries.where(LedgerEntry.id <= upto)
    if images is not None and len(images) <= FEW_IMAGES:
        entries = entries.where(LedgerEntry.image_id.in_(images))
    return _standing(session, entries)


def is_disputed(session: Session, superpixel_id: int, overlap: int) -> bool:
    """Whether annotators disagree about a superpixel and nobody has settled it."""
    entries = _standing(
        session, select(LedgerEntry).where(LedgerEntry.superpixel_id == superpixel_id)
    )
    return superpixel_id in judge(entries, overlap).disputed


def _standing(session: Session, entries: Select[Any]) -> list[LedgerEntry]:
    entries = entries.order_by(LedgerEntry.id)
    latest = {entry.annotation_id: entry for entry in session.scalars(entries)}
    in_force = (entry for entry in latest.values() if entry.kind != EntryKind.DELETED)
    return sorted(in_force, key=replay_order)


def replay_order(entry: LedgerEntry) -> tuple[datetime, int]:
    """The key by which entries are sorted for replay: a moment, then the annotation's id.

    A revised answer counts from when it was first given; an edit from when it was last submitted.
    """
    moment = entry.updated_at if entry.kind == EntryKind.EDIT else entry.answered_at
    return moment, entry.annotation_id


@dataclass
class Judgement:
    """What the entries in force say about superpixels, by row id.

    ``resolved``: the answer that settles a superpixel; ``disputed``: the classes that annotators
    disagree about, in the order they were given; ``waiting``: superpixels that need more
    annotators; ``edited``: those of which more than half was changed by hand in the dataset
    project.
    """

    resolved: dict[int, LedgerEntry] = field(default_factory=dict)
    disputed: dict[int, tuple[int, ...]] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    edited: set[int] = field(default_factory=set)

    @property
    def settled(self) -> set[int]:
        """The superpixels (row ids) that need no query any more."""
        return self.resolved.keys() | self.edited


def judge(entries: Iterable[LedgerEntry], overlap: int) -> Judgement:
    """The judgement that the entries in force lead to; ``entries`` are in replay order.

    ``overlap`` is the number of annotators that the project asks now; a query needs no more than
    were asked when it was answered. With one annotator, the latest answer wins. With several,
    agreement resolves a superpixel, and disagreement waits for an adjudication, whose latest answer
    wins.
    """
    judgement = Judgement()
    given: dict[int, list[LedgerEntry]] = {}
    for entry in entries:
        if entry.kind == EntryKind.EDIT:
            judgement.edited.update(
                change["superpixel"] for change in entry.changes or () if change["most"]
            )
        elif entry.kind != EntryKind.SKIP and entry.superpixel_id is not None:
            given.setdefault(entry.superpixel_id, []).append(entry)
    for superpixel_id, answers in given.items():
        adjudicated = [answer for answer in answers if answer.adjudication]
        required = min(answers[-1].overlap, overlap)
        if adjudicated or required <= 1:
            judgement.resolved[superpixel_id] = _latest(adjudicated or answers)
            continue
        votes = votes_of(answers)
        classes = tuple(dict.fromkeys(_class_of(vote) for vote in votes))
        if len(votes) < required:
            judgement.waiting.add(superpixel_id)
        elif len(classes) == 1:
            judgement.resolved[superpixel_id] = _latest(votes)
        else:
            judgement.disputed[superpixel_id] = classes
    return judgement


def votes_of(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """The last answer of each annotator, adjudications left out, in the order of ``entries``."""
    votes: dict[str, LedgerEntry] = {}
    for entry in entries:
        is_answer = entry.class_id is not None
        if is_answer and not entry.adjudication:
            votes.pop(entry.annotator, None)  # its position is that of the last answer
            votes[entry.annotator] = entry
    return list(votes.values())


def _latest(answers: Sequence[LedgerEntry]) -> LedgerEntry:
    """The answer in force: the last one, unless it only confirms the correction before it."""
    latest = answers[0]
    for answer in answers[1:]:
        confirms = (
            latest.kind == EntryKind.CORRECT
            and answer.kind == EntryKind.ACCEPT
            and answer.class_id == latest.class_id
        )
        if not confirms:
            latest = answer
    return latest


def _class_of(answer: LedgerEntry) -> int:
    assert answer.class_id is not None  # an accept or a correction names a class
    return answer.class_id


def judgement(session: Session, project_id: int, upto: int | None = None) -> Judgement:
    """The judgement on a project's superpixels by the entries up to an id (default: all)."""
    overlap = session.get_one(Project, project_id).overlap
    return judge(standing(session, project_id, upto), overlap)
