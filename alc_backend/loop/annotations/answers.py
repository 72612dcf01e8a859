"""Answers: annotations of the query project on their way into the ledger.

Writes the ledger (by ``store.ledger``), and marks the open round when it has something new to ask;
reads queries. Asks Label Studio for nothing. Called by ``webhooks``, ``reconciliation`` and
``history``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from alc_backend.common.types import Json
from alc_backend.labelstudio.annotation import Annotation
from alc_backend.labelstudio.query import NOT_OURS, Key, asked_about
from alc_backend.loop import page_tasks, task_sync
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store import recording, standing
from alc_backend.store.database import Store
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import (
    TRAIN,
    Image,
    LedgerEntry,
    Project,
    Query,
    Round,
)

log = logging.getLogger(__name__)


TRIES = 5
"""How often a transaction is tried when another process writes the same revision."""


def record(
    store: Store, project: Project, annotation: Annotation, task: Json, *, again: bool = False
) -> Outcome:
    """Write one annotation into the ledger, once; returns what became of it.

    ``task`` is the annotation's task as far as Label Studio tells: its ``data`` says what it asks
    about; its ``overlap`` is the number of annotators that it is put to. ``again``: the annotation
    was withdrawn, and Label Studio has it again.
    """
    for attempt in range(1, TRIES + 1):
        try:
            with store.session() as session:
                return _record(store, session, project, annotation, task, again=again)
        except IntegrityError:  # a revision of it came by another way at the same moment
            if attempt == TRIES:
                raise
    raise AssertionError("unreachable")


def _record(
    store: Store,
    session: Session,
    project: Project,
    annotation: Annotation,
    task: Json,
    *,
    again: bool,
) -> Outcome:
    about = asked_about(task.get("data"))
    choice = annotation.choice
    classes = session.get_one(Project, project.id).class_ids
    if choice is not None and choice not in classes:
        return Outcome.UNKNOWN_CLASS
    reply = recording.Reply(
        annotation_id=annotation.annotation_id,
        class_id=None if choice is None else classes[choice],
        annotator=annotation.annotator,
        lead_time=annotation.lead_time,
        answered_at=annotation.created_at,
        updated_at=annotation.updated_at,
        round_number=annotation.round_number,
        overlap=overlap_of(task.get("overlap")),
        label_studio_project=project.query_project,
        task_id=annotation.task_id,
    )
    if about.page:
        entries = _record_page(store, session, annotation, task, reply, again=again)
    else:
        query = _find_query(session, project.id, annotation.task_id, about)
        if query is None:
            return Outcome.UNKNOWN_TASK
        entry = recording.record(session, query, reply, again=again)
        entries = [] if entry is None else [entry]
    if entries is None:
        return Outcome.UNKNOWN_TASK
    if any(_leaves_unasked(session, project, entry) for entry in entries):
        _mark_unasked(session, project.id)
    return Outcome.RECORDED if entries else Outcome.KNOWN


def _record_page(
    store: Store,
    session: Session,
    annotation: Annotation,
    task: Json,
    reply: recording.Reply,
    *,
    again: bool,
) -> list[LedgerEntry] | None:
    """Write the answer to a page; None for a page that is not this project's."""
    project = session.scalars(
        select(Project).where(Project.query_project == reply.label_studio_project)
    ).one()
    data = task.get("data")
    page = page_tasks.find(session, project, asked_about(data).page) or page_tasks.remember(
        session, store.files(project.id), project, annotation.task_id, data
    )
    if page is None:
        return None
    ticked = annotation.ticked
    if ticked is None and not annotation.cancelled:
        raise ValueError(f"annotation {annotation.annotation_id} answers no page")
    return recording.record_page(session, page, reply, ticked, again=again)


def _leaves_unasked(session: Session, project: Project, entry: LedgerEntry) -> bool:
    """Whether an entry has undone an answer, or makes a disagreement or a doubt."""
    if entry.kind == EntryKind.REPEATED:
        return False
    is_review = entry.kind == EntryKind.REVIEWED
    if entry.revision > 0 and not entry.is_answer and not is_review:
        return True
    assert entry.superpixel_id is not None
    may_be = is_review or max(project.overlap, entry.overlap) > 1
    return may_be and standing.is_disputed(session, entry.superpixel_id)


def _mark_unasked(session: Session, project_id: int) -> None:
    """Note that the queue of the project's last opened round may lack a question."""
    opened = select(Round).where(Round.project_id == project_id, Round.opened_at.is_not(None))
    latest = session.scalars(opened.order_by(Round.number.desc()).limit(1)).first()
    if latest is not None:
        latest.unasked = True


def overlap_of(value: Any) -> int | None:
    """A number of annotators, 1 to 999, as Label Studio gives it; None for anything else."""
    return value if type(value) is int and 1 <= value < 1000 else None


def withdraw(store: Store, project_id: int, annotation_ids: Iterable[int]) -> Counter[str]:
    """Write into the ledger that annotations, of either project, are gone from Label Studio.

    Counts what became of them: DELETED, or KNOWN for those that are not in force.
    """
    counts: Counter[str] = Counter()
    for annotation_id in annotation_ids:
        with store.session() as session:
            gone = recording.withdraw(session, project_id, annotation_id)
            if gone:
                _mark_unasked(session, project_id)
        counts[Outcome.DELETED if gone else Outcome.KNOWN] += 1
    return counts


def annotations_of_tasks(
    store: Store, project: Project, label_studio_project: int, tasks: Iterable[int]
) -> list[int]:
    """The annotations in the ledger that were given to some tasks of one of the two projects."""
    found: set[int] = set()
    with store.reading() as session:
        for task_id in tasks:
            given = select(LedgerEntry.annotation_id).where(
                LedgerEntry.project_id == project.id,
                LedgerEntry.label_studio_project == label_studio_project,
                LedgerEntry.task_id == task_id,
            )
            found.update(session.scalars(given))
    return sorted(found)


def _find_query(session: Session, project_id: int, task_id: int, key: Key) -> Query | None:
    """The query that ``key`` names or, where it names none, the one that has the task.

    A task's number does not tell for ever: Label Studio, restored from an older dump, gives it to
    another task.
    """
    if key == NOT_OURS:
        having = task_sync.select_queries(project_id, Query).where(
            Image.split == TRAIN, Query.task_id == task_id
        )
        return session.scalars(having).first()
    return session.scalars(task_sync.asked_by(project_id, key)).first()
