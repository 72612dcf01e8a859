"""History: who changed what, undoing an entry, how far annotators agree.

Reads the ledger; :func:`revert` also deletes an annotation in Label Studio and withdraws it in the
ledger. Called by commands and the service's pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.common.types import Json
from alc_backend.core.agreement import Agreement, agreement
from alc_backend.errors import NotFoundError, RoundError
from alc_backend.labelstudio.client import Client
from alc_backend.loop.annotations import answers
from alc_backend.store import ledger, recording, tallies
from alc_backend.store.cvat import CvatProject
from alc_backend.store.database import Store
from alc_backend.store.derived import DISPUTED, WAITING, Counted
from alc_backend.store.kinds import ANSWERS, EntryKind
from alc_backend.store.machine import ADMIN
from alc_backend.store.models import TRAIN, VAL, Image, LedgerEntry, Project, Superpixel
from alc_backend.store.tallies import Key

AT_ONCE = 500
"""Superpixels whose votes are read together."""


@dataclass(frozen=True)
class HistoryLine:
    """What one entry of the ledger says about one superpixel.

    ``answer`` is the entry's number. ``superpixel`` is 0 outside of all superpixels; ``before`` and
    ``after`` are class names, None where there is none (void, a skip); ``pixels`` is how many that
    concerns, where it is known. ``in_force``: the entry still counts, for it was not revised,
    withdrawn or outvoted. Of an answer to a page, ``position`` is that of the tile, from 1, and
    ``proposed`` the class that the page proposed: what was unticked is "ruled out", and has no
    ``after``. What the machine wrote by itself has the position in its batch, whose number is that
    of the ``annotation``, negative. In all other lines they are 0 and None.
    """

    answer: int
    recorded_at: str
    annotator: str
    image: str
    superpixel: int
    kind: EntryKind
    before: str | None
    after: str | None
    pixels: int | None
    round: int
    annotation: int
    in_force: bool
    position: int = 0
    proposed: str | None = None


def list_entries(
    store: Store,
    project_id: int,
    *,
    images: Collection[str] | None = None,
    annotator: str | None = None,
    last: int | None = None,
) -> list[HistoryLine]:
    """The ledger's entries in the order they were recorded, oldest first.

    With ``images`` only those about these image keys, with ``annotator`` only those of this user
    (number in Label Studio), with ``last`` only so many of the last entries. An edit gives a line
    for each superpixel that it changed.
    """
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        entries = (
            select(LedgerEntry, Image.key, Superpixel.number, Superpixel.size)
            .join(Image, Image.id == LedgerEntry.image_id)
            .outerjoin(Superpixel, Superpixel.id == LedgerEntry.superpixel_id)
        )
        if images is None:
            entries = entries.where(LedgerEntry.project_id == project_id)
            entries = entries.order_by(LedgerEntry.id.desc()).limit(last)
        else:
            entries = entries.where(LedgerEntry.image_id.in_(_images(session, project_id, images)))
        if annotator is not None:
            entries = entries.where(LedgerEntry.annotator == annotator)
        rows = sorted(session.execute(entries), key=lambda row: -row[0].id)[:last]
        about = {row[0].image_id for row in rows}
        standing = ledger.standing(session, project_id, images=about)
        judged = ledger.judge(standing, project.overlap)
    in_force = _in_force(standing, judged)

    def name(class_id: int | None) -> str | None:
        if class_id is None or class_id >= len(project.classes):
            return None
        return str(project.classes[class_id])

    found: list[HistoryLine] = []
    for entry, key, number, size in reversed(rows):
        if entry.kind == EntryKind.EDIT:
            changes = [
                (change["number"], name(change["from"]), name(change["to"]), change["pixels"])
                for change in entry.changes or ()
            ]
        else:
            changes = [(number or 0, name(entry.pseudo_label), name(entry.class_id), size)]
        found += [
            HistoryLine(
                answer=entry.id,
                recorded_at=entry.recorded_at.isoformat(timespec="seconds"),
                annotator=entry.annotator,
                image=key,
                superpixel=superpixel,
                kind=entry.kind,
                before=before,
                after=after,
                pixels=pixels,
                round=entry.round_number,
                annotation=entry.annotation_id,
                in_force=entry.id in in_force,
                position=entry.position,
                proposed=name(entry.proposed),
            )
            for superpixel, before, after, pixels in changes
        ]
    return found


def _images(session: Session, project_id: int, keys: Collection[str]) -> list[int]:
    """The images (row ids) of a project that have some keys."""
    named = (
        Image.project_id == project_id, Image.split.in_((TRAIN, VAL)), Image.key.in_(keys)
    )  # fmt: skip
    return list(session.scalars(select(Image.id).where(*named)))


def _in_force(standing: Iterable[LedgerEntry], judged: ledger.Judgement) -> set[int]:
    """The numbers of the entries that still count."""
    resolving = {entry.superpixel_id: entry for entry in judged.resolved.values()}
    counting = (*judged.resolved.values(), *judged.machine.values())
    return {entry.id for entry in counting} | {
        entry.id
        for entry in standing
        if not entry.is_by_machine and _counts(entry, judged, resolving.get(entry.superpixel_id))
    }


def _counts(entry: LedgerEntry, judged: ledger.Judgement, resolving: LedgerEntry | None) -> bool:
    """Whether what a person did counts beside the entry, if any, that resolved its superpixel."""
    return (
        entry.kind in (EntryKind.EDIT, EntryKind.SKIP, EntryKind.REPEATED, EntryKind.REVIEWED)
        or entry.superpixel_id in judged.disputed
        or entry.superpixel_id in judged.waiting
        or _agrees(entry, resolving)
        or _excludes(entry, resolving)
    )


def _agrees(entry: LedgerEntry, resolving: LedgerEntry | None) -> bool:
    """Whether an entry is one of the votes whose agreement resolved a superpixel."""
    return (
        resolving is not None
        and resolving.overlap > 1
        and not resolving.adjudication
        and entry.class_id == resolving.class_id
    )


def _excludes(entry: LedgerEntry, resolving: LedgerEntry | None) -> bool:
    """Whether an entry rules a class out that the superpixel was not given after all."""
    return entry.kind == EntryKind.RULED_OUT and (
        resolving is None or resolving.class_id != entry.proposed
    )


@dataclass(frozen=True)
class Undone:
    """An entry that was undone, and the numbers of all withdrawn: it, a page's tiles or a batch."""

    entry: LedgerEntry
    entries: tuple[int, ...]


def revert(store: Store, client: Callable[[], Client], project_id: int, entry_id: int) -> Undone:
    """Undo an answer or an edit: delete its annotation in Label Studio and withdraw it here.

    In CVAT, its tags stay, and are not read any more.
    A tile is undone with its whole page, which is one annotation. The question is asked again.
    What the machine wrote by itself is undone with its whole batch, of which Label Studio knows
    nothing: ``client`` is not called then.
    Raises NotFoundError for an unknown number, RoundError when it is undone already,
    LabelStudioError when Label Studio does not delete it (nothing is changed then).
    """
    with store.reading() as session:
        entry = session.get(LedgerEntry, entry_id)
        if entry is None or entry.project_id != project_id:
            raise NotFoundError(f"there is no answer {entry_id}; `alc answers log` lists them")
        standing = ledger.in_force_of(session, project_id, entry.annotation_id)
        in_cvat = session.get(CvatProject, project_id) is not None
    if not standing:
        raise RoundError(f"answer {entry_id} was withdrawn already")
    if entry.is_by_machine:
        with store.session() as session:
            recording.withdraw(session, project_id, entry.annotation_id, by=ADMIN)
    else:
        if not in_cvat:
            client().delete(f"/api/annotations/{entry.annotation_id}/", missing_ok=True)
        answers.withdraw(store, project_id, [entry.annotation_id])
    return Undone(entry, tuple(one.id for one in standing))


@dataclass(frozen=True)
class TeamAgreement:
    """How far the annotators of a project agree, and what each of them did.

    ``overlap`` is the number of annotators asked each query, ``among`` their agreement where
    several answered; ``waiting`` and ``disputed`` count superpixels; ``annotators`` tells how often
    each (number in Label Studio) has an entry of each kind in force.
    """

    overlap: int
    among: Agreement
    waiting: int
    disputed: int
    annotators: dict[str, dict[str, int]]

    def as_json(self) -> Json:
        """The figures as ``alc answers agreement --json`` tells them, in one object."""
        values = asdict(self)
        return {"overlap": values.pop("overlap"), **values.pop("among"), **values}


def team_agreement(store: Store, project_id: int) -> TeamAgreement:
    """Measure how far annotators agree, by the entries in force."""
    with store.reading() as session:
        counts = tallies.read(session, project_id)
        votes = list(_shared_votes(session, project_id))
        overlap = session.get_one(Project, project_id).overlap
    people: dict[str, Counter[str]] = {}
    for key, many in counts.items():
        if key.what in (Counted.SAID, Counted.SAID_ON_PAGES):
            people.setdefault(key.who, Counter())[key.about] += many
    return TeamAgreement(
        overlap=overlap,
        among=agreement(votes),
        waiting=counts[Key(Counted.SUPERPIXELS, about=WAITING)],
        disputed=counts[Key(Counted.SUPERPIXELS, about=DISPUTED)],
        annotators={name: dict(kinds) for name, kinds in sorted(people.items())},
    )


def _shared_votes(session: Session, project_id: int) -> Iterator[list[int]]:
    """The classes that annotators gave superpixels which more than one of them answered."""
    answers = (LedgerEntry.project_id == project_id, LedgerEntry.kind.in_(ANSWERS))
    several = (
        select(LedgerEntry.superpixel_id)
        .where(*answers)
        .group_by(LedgerEntry.superpixel_id)
        .having(func.min(LedgerEntry.annotator) < func.max(LedgerEntry.annotator))
    )
    for part in batched(session.scalars(several).all(), AT_ONCE):
        given: dict[int | None, list[LedgerEntry]] = {}
        for entry in ledger.standing_about(session, [one for one in part if one is not None]):
            given.setdefault(entry.superpixel_id, []).append(entry)
        for one in part:
            votes = ledger.votes_of(given.get(one, []))
            yield [vote.class_id for vote in votes if vote.class_id is not None]
