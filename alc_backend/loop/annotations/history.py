"""Who changed what: the ledger as people read it, undoing an answer, how far annotators agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy import select

from alc_backend.common.types import Json
from alc_backend.core import agreement
from alc_backend.errors import NotFoundError, RoundError
from alc_backend.labelstudio.client import Client
from alc_backend.loop.annotations import answers
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import EntryKind, Image, LedgerEntry, Project, Superpixel


@dataclass(frozen=True)
class Entry:
    """One line of the history: what one entry of the ledger says about one superpixel.

    ``before`` and ``after`` are class names (None where there is none: void, a skip);
    ``in_force`` tells whether the entry still counts: it was not revised, withdrawn or outvoted.
    """

    answer: int
    recorded_at: str
    annotator: str
    image: str
    superpixel: int
    kind: str
    before: str | None
    after: str | None
    pixels: int | None
    round: int
    annotation: int
    in_force: bool


def log(
    store: Store,
    project_id: int,
    *,
    images: Collection[str] | None = None,
    annotator: str | None = None,
    last: int | None = None,
) -> list[Json]:
    """The ledger's entries as they were recorded, oldest first.

    Only those about some images (by image key) or of an annotator where these are given; only
    the ``last`` so many.
    """
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        entries = (
            select(LedgerEntry, Image.key, Superpixel.number, Superpixel.size)
            .join(Image, Image.id == LedgerEntry.image_id)
            .outerjoin(Superpixel, Superpixel.id == LedgerEntry.superpixel_id)
            .where(LedgerEntry.project_id == project_id)
            .order_by(LedgerEntry.id.desc())
        )
        if images is not None:
            entries = entries.where(Image.key.in_(images))
        if annotator is not None:
            entries = entries.where(LedgerEntry.annotator == annotator)
        rows = session.execute(entries.limit(last)).all()
        standing = ledger.standing(session, project_id)
        judged = ledger.judge(standing, project.overlap)
    resolving = {answer.id for answer in judged.resolved.values()}
    said = {answer.superpixel_id: answer for answer in judged.resolved.values()}
    in_force = resolving | {
        entry.id
        for entry in standing
        if entry.kind in (EntryKind.EDIT, EntryKind.SKIP)
        or entry.superpixel_id in judged.disputed
        or entry.superpixel_id in judged.waiting
        or _agrees(entry, said.get(entry.superpixel_id))
    }

    def name(class_id: int | None) -> str | None:
        known = class_id is not None and class_id < len(project.classes)
        return str(project.classes[class_id]) if known and class_id is not None else None

    found: list[Entry] = []
    for answer, key, number, size in reversed(rows):
        if answer.kind == EntryKind.EDIT:
            changes = [
                (change["number"], name(change["from"]), name(change["to"]), change["pixels"])
                for change in answer.changes or ()
            ]
        else:
            changes = [(number or 0, name(answer.pseudo_label), name(answer.class_id), size)]
        found += [
            Entry(
                answer=answer.id,
                recorded_at=answer.recorded_at.isoformat(timespec="seconds"),
                annotator=answer.annotator,
                image=key,
                superpixel=superpixel,
                kind=answer.kind,
                before=before,
                after=after,
                pixels=pixels,
                round=answer.round_number,
                annotation=answer.annotation_id,
                in_force=answer.id in in_force,
            )
            for superpixel, before, after, pixels in changes
        ]
    return [asdict(entry) for entry in found]


def _agrees(entry: LedgerEntry, resolving: LedgerEntry | None) -> bool:
    """Whether a vote is one of those whose agreement resolved a superpixel."""
    return (
        resolving is not None
        and resolving.overlap > 1
        and not resolving.adjudication
        and entry.class_id == resolving.class_id
    )


def revert(store: Store, client: Client, project_id: int, answer_id: int) -> LedgerEntry:
    """Undo an answer or an edit: delete its annotation in Label Studio and withdraw it here.

    The question is asked again. Raises NotFoundError for an unknown number, RoundError when it is
    undone already, LabelStudioError when Label Studio does not delete it (nothing is changed then).
    """
    with store.reading() as session:
        answer = session.get(LedgerEntry, answer_id)
        if answer is None or answer.project_id != project_id:
            raise NotFoundError(f"there is no answer {answer_id}; `alc answers log` lists them")
        last = ledger.last_revision(session, project_id, answer.annotation_id)
    if last is not None and last.kind == EntryKind.DELETED:
        raise RoundError(f"answer {answer_id} was withdrawn already")
    client.delete(f"/api/annotations/{answer.annotation_id}/", missing_ok=True)
    answers.withdraw(store, project_id, [answer.annotation_id])
    return answer


def agreed(store: Store, project_id: int) -> Json:
    """How far annotators agree, and what each of them did."""
    with store.reading() as session:
        overlap = session.get_one(Project, project_id).overlap
        standing = ledger.standing(session, project_id)
    judged = ledger.judge(standing, overlap)
    given: dict[int, list[LedgerEntry]] = {}
    people: dict[str, Counter[str]] = {}
    for entry in standing:
        people.setdefault(entry.annotator, Counter())[entry.kind] += 1
        if entry.superpixel_id is not None:
            given.setdefault(entry.superpixel_id, []).append(entry)
    votes = [
        [vote.class_id for vote in ledger.votes_of(entries) if vote.class_id is not None]
        for entries in given.values()
    ]
    return {
        "overlap": overlap,
        **asdict(agreement.agreement(votes)),
        "waiting": len(judged.waiting),
        "disputed": len(judged.disputed),
        "annotators": {name: dict(counts) for name, counts in sorted(people.items())},
    }
