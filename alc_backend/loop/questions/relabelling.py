"""The machine on its own word: classes that are right often enough are written without a person.

Off unless ``ALC_RELABEL`` asks for it. Writes the ledger; knows nothing of Label Studio. Called by
``asking`` and ``rounds.publishing`` after each plan.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.loop.leases import Lease
from alc_backend.loop.questions import auditing
from alc_backend.loop.questions.auditing import Audit
from alc_backend.loop.questions.learning import Learnt
from alc_backend.loop.questions.planning import Plan, not_to_be_asked
from alc_backend.store import ledger, machine, recording
from alc_backend.store.database import Store
from alc_backend.store.kinds import EntryKind
from alc_backend.store.ledger import Judgement
from alc_backend.store.machine import MachineLabel
from alc_backend.store.models import LedgerEntry, Project, Round, Superpixel

log = logging.getLogger(__name__)


def relabel(store: Store, round_: Round, plan: Plan, lease: Lease) -> None:
    """Withdraw the machine's labels of classes that are not right often enough, and write new ones.

    A class is, where the lower bound of its precision, by the audits of the round that wrote it,
    reaches ``ALC_RELABEL_PRECISION``. Written are, one batch a class, the superpixels of which that
    class is proposed, that a person could be asked about and that no person has said anything of.
    What an admin has undone is not written again in the same round; what was withdrawn here is,
    once the bound is high enough again. With ``ALC_RELABEL=off`` it only withdraws.
    May be repeated at any moment. Raises CancelledError when another worker has taken the part
    over.
    """
    _withdraw(store, round_, lease)
    if store.settings.relabel == "audited":
        _write(store, round_, plan.learnt, lease)


def _judged(
    session: Session, round_: Round
) -> tuple[Project, list[LedgerEntry], Judgement, Mapping[tuple[int, int], Audit]]:
    """The project, locked, its entries in force, their judgement, and the audits."""
    project = ledger.lock(session, round_.project_id)
    standing = ledger.standing(session, project.id)
    judged = ledger.judge(standing, project.overlap)
    return project, standing, judged, auditing.audits(session, project.id, judged, standing)


def _withdraw(store: Store, round_: Round, lease: Lease) -> None:
    """Withdraw all batches in force of classes whose bound has fallen too low."""
    with store.reading() as session:
        if not machine.has_written(session, round_.project_id):
            return
    with store.session() as session:
        project, standing, _, audits = _judged(session, round_)
        lease.lock(session)  # after the project, as everyone does
        batches = {
            (entry.annotation_id, entry.round_number, entry.class_id)
            for entry in standing
            if entry.kind == EntryKind.MACHINE and entry.class_id is not None
        }
        for number, round_number, class_id in sorted(batches, reverse=True):
            bound = audits.get((round_number, class_id or 0), Audit()).bound
            if bound < store.settings.relabel_precision:
                recording.withdraw(session, project.id, number)
                log.warning(
                    "batch %s of the machine (%s) is withdrawn: its precision may be as low as "
                    "%.3f", -number, project.classes[class_id or 0], bound,
                )  # fmt: skip


def _write(store: Store, round_: Round, learnt: Learnt, lease: Lease) -> None:
    """Write a batch for each class that has earned it."""
    with store.session() as session:
        project, standing, judged, audits = _judged(session, round_)
        lease.lock(session)
        left = _left_alone(standing, judged)
        closed = set(not_to_be_asked(session, project, round_, judged, learnt).tolist())
        undone = machine.undone(session, round_)
        about = auditing.proposed(learnt)
        for (number, class_id), audit in sorted(audits.items()):
            if number != round_.number or audit.bound < store.settings.relabel_precision:
                continue
            refused = left | {
                entry.superpixel_id
                for entry in standing
                if entry.kind == EntryKind.RULED_OUT and entry.proposed == class_id
            }
            chosen = []
            for index in np.flatnonzero(about == class_id).tolist():
                row_id = int(learnt.traits.superpixels[index])
                present = judged.machine.get(row_id)
                if (
                    index not in closed
                    and row_id not in refused
                    and (row_id, class_id) not in undone
                    and (present is None or present.class_id != class_id)
                ):
                    chosen.append(index)
            batch = machine.record_machine(
                session, round_, class_id, _labels(session, learnt, chosen)
            )
            if batch is not None:
                log.info(
                    "batch %s of the machine: %s superpixels are %s (%s of %s audits were right)",
                    batch, len(chosen), project.classes[class_id], audit.right, audit.asked,
                )  # fmt: skip


def _left_alone(standing: Iterable[LedgerEntry], judged: Judgement) -> set[int | None]:
    """The superpixels (row ids) of which a person has named a class, or changed a part by hand."""
    left: set[int | None] = set(judged.settled | judged.disputed.keys() | judged.waiting)
    for entry in standing:
        left.update(change["superpixel"] for change in entry.changes or ())
    return left


def _labels(session: Session, learnt: Learnt, chosen: list[int]) -> list[MachineLabel]:
    """What is to be written about superpixels (indices), in their order."""
    traits = learnt.traits
    ids = traits.superpixels[chosen].tolist()
    images: dict[int, int] = {}
    for part in batched(ids, auditing.AT_ONCE):
        where = Superpixel.id.in_(part)
        rows = session.execute(select(Superpixel.id, Superpixel.image_id).where(where))
        images.update((row[0], row[1]) for row in rows)
    return [
        MachineLabel(
            row_id, images[row_id], int(traits.rows[index]), int(traits.cols[index]),
            int(traits.labels[index]),
        )
        for index, row_id in zip(chosen, ids, strict=True)
    ]  # fmt: skip
