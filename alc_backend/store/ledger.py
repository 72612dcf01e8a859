"""The ledger of answers: writing entries, and what the entries in force say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from alc_backend.store.models import (
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

ACCEPT, CORRECT, SKIP, EDIT, DELETED = "accept", "correct", "skip", "edit", "deleted"


FEW_IMAGES = 1000
"""Up to so many, a database is asked for the entries about single images."""


@dataclass(frozen=True)
class Reply:
    """An annotation of a query task as it stands in Label Studio, in the store's words.

    ``class_id`` is None for a skip; ``round_number`` is the round in which the question was shown,
    None for the present one; ``overlap`` the number of annotators it was put to, None for as many
    as the project asks.
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
    """An annotation of a dataset task as it stands in Label Studio: masks changed by hand.

    ``changes`` lists per superpixel what changed, as
    :func:`alc_backend.loop.annotations.mask_edits.changes` gives it.
    """

    annotation_id: int
    annotator: str
    lead_time: float | None
    answered_at: datetime
    updated_at: datetime
    skipped: bool
    changes: list[dict[str, Any]]


def record(session: Session, query: Query, reply: Reply) -> LedgerEntry | None:
    """Append ``reply`` to the ledger; None when it says nothing new.

    The same annotation may arrive any number of times, by webhook and by reconciling, in any
    order: an entry is written only for a newer state of the annotation than the last one, or for
    another content at the same moment.
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
    answer = LedgerEntry(
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
    session.add(answer)
    session.flush()
    return answer


def record_edit(session: Session, image: Image, edit: Edit) -> LedgerEntry | None:
    """Append ``edit`` to the ledger, as :func:`record` does; None when it is known or older.

    The caller writes its map (``ProjectFiles.write_edit``) in the same transaction.
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
    answer = LedgerEntry(
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
    session.add(answer)
    session.flush()
    return answer


def withdraw(session: Session, project_id: int, annotation_id: int) -> LedgerEntry | None:
    """Note that an annotation is gone; None when that is known or the ledger never had it.

    One that the ledger never had will not enter it any more, should news of it come late.
    """
    lock(session, project_id)
    last = last_revision(session, project_id, annotation_id)
    if last is None:
        if session.get(Withdrawal, (project_id, annotation_id)) is None:
            session.add(Withdrawal(project_id=project_id, annotation_id=annotation_id))
        return None
    if last.kind == EntryKind.DELETED:
        return None
    answer = LedgerEntry(
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
    session.add(answer)
    session.flush()
    return answer


def lock(session: Session, project_id: int) -> Project:
    """Let one transaction at a time write a project's ledger: its entries come in order."""
    return session.get_one(Project, project_id, with_for_update={"of": Project, "key_share": True})


def last_revision(session: Session, project_id: int, annotation_id: int) -> LedgerEntry | None:
    """The ledger's last entry about an annotation."""
    return session.scalars(
        select(LedgerEntry)
        .where(LedgerEntry.project_id == project_id, LedgerEntry.annotation_id == annotation_id)
        .order_by(LedgerEntry.revision.desc())
        .limit(1)
    ).first()


def _is_news(
    session: Session, project_id: int, last: LedgerEntry | None, new: Reply | Edit
) -> bool:
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
    """The question that the annotator saw: a task may stay open in a browser across rounds."""
    if round_number not in (None, query.round.number):
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
    return _Question(query.pseudo_label, query.row, query.col, query.round.number)


def position(session: Session, project_id: int) -> int:
    """The number of the project's last ledger entry; 0 when there is none."""
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
    """The entries in force: of every annotation the last revision, withdrawn ones left out.

    In the order of replay. ``upto`` leaves out ledger entries above that number; only those about
    ``images`` (ids) where these are given.
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
    latest = {answer.annotation_id: answer for answer in session.scalars(entries)}
    return sorted((a for a in latest.values() if a.kind != EntryKind.DELETED), key=place)


def place(answer: LedgerEntry) -> tuple[datetime, int]:
    """Where an entry stands in the replay.

    An answer stays where it was given when it is revised; an edit is a living document, and counts
    from when it was last submitted.
    """
    moment = answer.updated_at if answer.kind == EntryKind.EDIT else answer.answered_at
    return moment, answer.annotation_id


@dataclass
class Judgement:
    """What the entries in force say about each superpixel (row ids).

    ``resolved``: the answer that settles it; ``disputed``: the classes that annotators disagree
    about, in the order they were given; ``waiting``: it needs more annotators; ``edited``: most of
    it was changed by hand in the dataset project.
    """

    resolved: dict[int, LedgerEntry] = field(default_factory=dict)
    disputed: dict[int, tuple[int, ...]] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    edited: set[int] = field(default_factory=set)

    @property
    def settled(self) -> set[int]:
        """The superpixels that are not to be asked about any more."""
        return self.resolved.keys() | self.edited


def judge(entries: Iterable[LedgerEntry], overlap: int) -> Judgement:
    """Judge every superpixel by the entries in force, in their order (algorithm.md, "Answers").

    ``overlap`` is the number of annotators that the project asks now; a query needs no more than
    were asked when it was answered. With one annotator the latest accept or correct wins. With
    several, agreement resolves, disagreement waits for an adjudication, whose latest answer wins.
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


def votes_of(answers: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """The last accept or correct of each annotator, adjudications left out, in their order."""
    votes: dict[str, LedgerEntry] = {}
    for answer in answers:
        if answer.class_id is not None and not answer.adjudication:
            votes.pop(answer.annotator, None)
            votes[answer.annotator] = answer
    return list(votes.values())


def _latest(answers: Sequence[LedgerEntry]) -> LedgerEntry:
    """The last of ``answers``; accepting what an earlier correction wrote leaves that in force."""
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
    """What the ledger says about each superpixel of a project, up to an entry's number."""
    overlap = session.get_one(Project, project_id).overlap
    return judge(standing(session, project_id, upto), overlap)
