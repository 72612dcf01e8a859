"""The ledger: its entries in force, and judging superpixels by them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Select, case, exists, select
from sqlalchemy.orm import Session, aliased

from alc_backend.common.batches import batched
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import Image, LedgerEntry, Project, Superpixel

FEW_IMAGES = 1000
"""The most images that a query to the database lists by id; for more, it reads all entries."""

BY_PEOPLE = LedgerEntry.annotation_id + 0 > 0
"""The condition that an entry is not by the machine; + 0, or else SQLite would look entries up by
it, by which it finds nearly all of them."""


def lock(session: Session, project_id: int) -> Project:
    """The project, locked until the transaction ends: one at a time appends to its ledger."""
    return session.get_one(Project, project_id, with_for_update={"of": Project, "key_share": True})


def last_revisions(session: Session, project_id: int, annotation_id: int) -> dict[int, LedgerEntry]:
    """The last entry about an annotation at each of its positions; none when it is not known."""
    entries = session.scalars(
        select(LedgerEntry)
        .where(LedgerEntry.project_id == project_id, LedgerEntry.annotation_id == annotation_id)
        .order_by(LedgerEntry.position, LedgerEntry.revision)
    )
    return {entry.position: entry for entry in entries}


def in_force_of(session: Session, project_id: int, annotation_id: int) -> list[LedgerEntry]:
    """The entries in force of an annotation, by position; none when it is gone or not known."""
    found = last_revisions(session, project_id, annotation_id).values()
    return [entry for entry in found if entry.kind != EntryKind.DELETED]


def position(session: Session, project_id: int) -> int:
    """The id of the project's last ledger entry; 0 when there is none."""
    mine = select(LedgerEntry.id).where(LedgerEntry.project_id == project_id)
    return session.scalar(mine.order_by(LedgerEntry.id.desc()).limit(1)) or 0


def standing(
    session: Session,
    project_id: int,
    upto: int | None = None,
    images: Collection[int] | None = None,
    *,
    removed: bool = False,
) -> list[LedgerEntry]:
    """The entries in force, in replay order: the last one of each annotation, or of each of its
    tiles, unless it was deleted.

    ``upto`` is the id of the last entry to look at (default: all). ``images`` (ids) are those that
    the caller needs: up to FEW_IMAGES of them, only their entries are returned; else all are. Those
    about images that are out of the dataset are left out unless ``removed``.
    """
    wanted = [LedgerEntry.project_id == project_id]
    if images is not None and len(images) <= FEW_IMAGES:
        wanted = [LedgerEntry.image_id.in_(images)]  # alone: SQLite might take the other's index
    if not removed:
        wanted.append(Image.removed.is_(None))
    return _standing(session, wanted, upto)


def standing_about(
    session: Session, superpixels: Collection[int], upto: int | None = None
) -> list[LedgerEntry]:
    """The entries in force about some superpixels (row ids) of a project, in replay order.

    The edits of their images are among them. ``upto`` is that of :func:`standing`.
    """
    found: dict[int, LedgerEntry] = {}
    for part in batched(sorted(superpixels), FEW_IMAGES):
        images = select(Superpixel.image_id).where(Superpixel.id.in_(part)).distinct()
        for which in (
            (LedgerEntry.superpixel_id.in_(part),),
            (LedgerEntry.image_id.in_(images), LedgerEntry.superpixel_id.is_(None)),
        ):
            wanted = [Image.removed.is_(None), *which]
            found.update((entry.id, entry) for entry in _standing(session, wanted, upto))
    return sorted(found.values(), key=replay_order)


def standing_of(
    session: Session, project_id: int, annotations: Collection[int]
) -> dict[int, list[LedgerEntry]]:
    """The entries in force of some annotations, by annotation, in replay order.

    Those about images that are out of the dataset are left out, and so are annotations without any.
    """
    found: dict[int, list[LedgerEntry]] = {}
    for part in batched(sorted(annotations), FEW_IMAGES):
        wanted = [
            LedgerEntry.project_id == project_id,
            LedgerEntry.annotation_id.in_(part),
            Image.removed.is_(None),
        ]
        for entry in _standing(session, wanted):
            found.setdefault(entry.annotation_id, []).append(entry)
    return found


def in_force_by_people(project_id: int) -> Select[LedgerEntry]:
    """Selects what people said of the images in the dataset, and is in force, in no order."""
    return (
        in_force()
        .join(Image, Image.id == LedgerEntry.image_id)
        .where(
            LedgerEntry.project_id == project_id,
            BY_PEOPLE,
            Image.removed.is_(None),
        )
    )


def in_force(upto: int | None = None) -> Select[LedgerEntry]:
    """Selects the last entry of each annotation, or of each of its tiles, unless it was deleted."""
    later = aliased(LedgerEntry)
    revised = exists().where(
        later.project_id == LedgerEntry.project_id,
        later.annotation_id == LedgerEntry.annotation_id,
        later.position == LedgerEntry.position,
        later.revision > LedgerEntry.revision,
    )
    entries = select(LedgerEntry)
    if upto is not None:
        revised = revised.where(later.id <= upto)
        entries = entries.where(LedgerEntry.id <= upto)
    return entries.where(~revised, LedgerEntry.kind != EntryKind.DELETED)


def _standing(
    session: Session, wanted: Sequence[ColumnElement[bool]], upto: int | None = None
) -> list[LedgerEntry]:
    entries = in_force(upto).join(Image, Image.id == LedgerEntry.image_id).where(*wanted)
    return sorted(session.scalars(entries), key=replay_order)


def stream(
    session: Session, project_id: int, upto: int
) -> Iterator[tuple[LedgerEntry, int | None]]:
    """All entries in force up to an id, in replay order, each with its superpixel's number.

    Those about images that are out of the dataset are among them. A thousand are in memory at once.
    """
    moment = case(
        (LedgerEntry.kind == EntryKind.EDIT, LedgerEntry.updated_at),
        else_=LedgerEntry.answered_at,
    )
    entries = (
        in_force(upto)
        .add_columns(Superpixel.number)
        .outerjoin(Superpixel, Superpixel.id == LedgerEntry.superpixel_id)
        .where(LedgerEntry.project_id == project_id)
        .order_by(moment, LedgerEntry.annotation_id, LedgerEntry.position)
        .execution_options(yield_per=FEW_IMAGES)
    )
    for row in session.execute(entries):
        yield row[0], row[1]


def replay_order(entry: LedgerEntry) -> tuple[datetime, int, int]:
    """The key by which entries are sorted for replay: a moment, the annotation's id, the position.

    A revised answer counts from when it was first given; an edit from when it was last submitted.
    """
    moment = entry.updated_at if entry.kind == EntryKind.EDIT else entry.answered_at
    return moment, entry.annotation_id, entry.position


@dataclass
class Judgement:
    """What the entries in force say about superpixels, by row id.

    ``resolved``: the answer that settles a superpixel; ``disputed``: the classes that annotators
    disagree about, in the order they were given, or the one that a review doubts; ``waiting``:
    superpixels that need more annotators; ``edited``: those of which more than half was changed by
    hand in the dataset project. ``machine``: what the machine wrote last of a superpixel that no
    answer resolves, and of which nobody has ruled that class out; it settles nothing.
    """

    resolved: dict[int, LedgerEntry] = field(default_factory=dict)
    disputed: dict[int, tuple[int, ...]] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    edited: set[int] = field(default_factory=set)
    machine: dict[int, LedgerEntry] = field(default_factory=dict)

    @property
    def settled(self) -> set[int]:
        """The superpixels (row ids) that need no query any more."""
        return self.resolved.keys() | self.edited

    @property
    def rests_on_machine(self) -> set[int]:
        """The superpixels (row ids) labelled by the machine that nobody has confirmed or edited."""
        return self.machine.keys() - self.edited


def judge(entries: Iterable[LedgerEntry], overlap: int) -> Judgement:
    """The judgement that the entries in force lead to; ``entries`` are in replay order.

    ``overlap`` is the number of annotators that the project asks now; a query needs no more than
    were asked when it was answered. With one annotator, the latest answer wins. With several,
    agreement resolves a superpixel, and disagreement waits for an adjudication, whose latest answer
    wins. An answer that a later review doubts waits for one, too, until another answer is given;
    an adjudication is doubted by nobody. The machine has no voice in this.
    """
    entries = list(entries)
    judgement = Judgement()
    given: dict[int, list[LedgerEntry]] = {}
    for entry in entries:
        if entry.kind == EntryKind.EDIT:
            judgement.edited.update(
                change["superpixel"] for change in entry.changes or () if change["most"]
            )
        elif entry.is_answer and entry.superpixel_id is not None:
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
    _doubt(judgement, given, entries)
    judgement.machine = _on_its_own_word(entries, judgement.resolved.keys())
    return judgement


def _doubt(
    judgement: Judgement,
    given: Mapping[int, Sequence[LedgerEntry]],
    entries: Iterable[LedgerEntry],
) -> None:
    """Let what reviews doubt of the answers ``given`` (by superpixel) be disputed.

    Of several reviews of a class, the latest counts.
    """
    reviews = {
        (entry.superpixel_id, entry.proposed): entry
        for entry in entries
        if entry.kind == EntryKind.REVIEWED
    }
    for (superpixel_id, class_id), review in reviews.items():
        answer = judgement.resolved.get(superpixel_id or 0)
        if answer is None or answer.adjudication or answer.class_id != class_id:
            continue
        same = [one for one in given[answer.superpixel_id or 0] if one.class_id == class_id]
        if review.class_id is None and all(one.updated_at < review.updated_at for one in same):
            del judgement.resolved[superpixel_id or 0]
            judgement.disputed[superpixel_id or 0] = (_class_of(answer),)


def _on_its_own_word(
    entries: Iterable[LedgerEntry], resolved: Collection[int]
) -> dict[int, LedgerEntry]:
    """What the machine wrote last of each superpixel that no answer resolves.

    Not where a person ruled that class out.
    """
    written: dict[int, LedgerEntry] = {}
    refused: set[tuple[int, int | None]] = set()
    for entry in entries:
        if entry.superpixel_id is None:
            continue
        if entry.kind == EntryKind.MACHINE:
            written[entry.superpixel_id] = entry
        elif entry.kind == EntryKind.RULED_OUT:
            refused.add((entry.superpixel_id, entry.proposed))
    return {
        superpixel_id: entry
        for superpixel_id, entry in written.items()
        if superpixel_id not in resolved and (superpixel_id, entry.class_id) not in refused
    }


def votes_of(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """The last answer of each annotator, adjudications left out, in the order of ``entries``."""
    votes: dict[str, LedgerEntry] = {}
    for entry in entries:
        if entry.is_answer and not entry.adjudication:
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
