"""Answers on their way from Label Studio into the ledger, by webhook and by reconciling."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from alc_backend.errors import LabelStudioError, NotFoundError
from alc_backend.labelstudio.annotation import Annotation, parse, positive_integer
from alc_backend.labelstudio.client import Client
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import Answer, Image, Project, Query, Superpixel, utc_now

log = logging.getLogger(__name__)

RECORDED, KNOWN, DELETED = "recorded", "known", "deleted"
UNKNOWN_TASK, UNKNOWN_CLASS = "of an unknown task", "of an unknown class"
UNREADABLE = "unreadable"

_COUNTERS = ("total_annotations", "cancelled_annotations")
_FILTERS = [
    {"filter": f"filter:tasks:{name}", "operator": "greater", "type": "Number", "value": 0}
    for name in _COUNTERS
]
ANSWERED_TASKS = json.dumps(
    {"filters": {"conjunction": "or", "items": _FILTERS}, "ordering": ["tasks:id"]}
)
"""Data Manager query for the tasks that somebody answered or skipped."""


def record(store: Store, query_project: int, annotation: Annotation) -> str:
    """Write one annotation into the ledger, once; returns what became of it."""
    try:
        return _record(store, query_project, annotation)
    except IntegrityError:  # the same annotation came by another way at the same moment
        return KNOWN


def _record(store: Store, query_project: int, annotation: Annotation) -> str:
    with store.session() as session:
        query = _query(session, query_project, annotation.task_id)
        if query is None:
            return UNKNOWN_TASK
        classes = session.get_one(Project, query.superpixel.image.project_id).classes
        if annotation.choice is not None and annotation.choice not in classes:
            return UNKNOWN_CLASS
        choice = annotation.choice
        reply = ledger.Reply(
            annotation_id=annotation.annotation_id,
            class_id=None if choice is None else classes.index(choice),
            deleted=False,
            annotator=annotation.annotator,
            lead_time=annotation.lead_time,
            answered_at=annotation.created_at,
            updated_at=annotation.updated_at,
            round_number=annotation.round_number,
        )
        return RECORDED if ledger.record(session, query, reply) else KNOWN


def withdraw(store: Store, query_project: int, annotation_id: int) -> str:
    """Note that an annotation was deleted in Label Studio; returns what became of it."""
    with store.session() as session:
        answer = session.scalars(
            select(Answer)
            .join(Project, Project.id == Answer.project_id)
            .where(Project.query_project == query_project, Answer.annotation_id == annotation_id)
            .limit(1)
        ).first()
        if answer is None:
            return UNKNOWN_TASK
        query = session.scalars(
            select(Query).where(Query.superpixel_id == answer.superpixel_id)
        ).one()
        now = utc_now()
        reply = ledger.Reply(
            annotation_id=annotation_id,
            class_id=None,
            deleted=True,
            annotator=answer.annotator,
            lead_time=None,
            answered_at=answer.answered_at,
            updated_at=now,
        )
        return DELETED if ledger.record(session, query, reply) else KNOWN


def record_event(store: Store, event: str, payload: dict[str, Any]) -> Counter[str]:
    """Write what a webhook reports into the ledger; counts what became of each annotation.

    Raises ValueError naming the field when the payload is not one of Label Studio's.
    """
    counts: Counter[str] = Counter()
    project = payload.get("project")
    query_project = project.get("id") if isinstance(project, dict) else None
    if not isinstance(query_project, int):
        raise ValueError("webhook payload has no project id")
    records = payload.get("annotations") or payload.get("annotation")
    if isinstance(records, dict):
        records = [records]
    if not isinstance(records, list) or not all(isinstance(item, dict) for item in records):
        raise ValueError("webhook payload has no annotation")
    for item in records:
        if event == "ANNOTATIONS_DELETED":
            number = positive_integer(item.get("id"), "id")
            counts[withdraw(store, query_project, number)] += 1
        else:
            task = payload.get("task")
            task_id = item.get("task") or (task.get("id") if isinstance(task, dict) else None)
            counts[record(store, query_project, parse(item, task_id))] += 1
    return counts


def reconcile(store: Store, client: Client, project_id: int) -> Counter[str]:
    """Page through Label Studio's annotations and repair what webhooks lost.

    Counts what became of each annotation. Answers in the ledger whose annotation is gone are
    withdrawn, after asking for each whether it really is.
    """
    with store.reading() as session:
        project = session.get(Project, project_id)
        if project is None or project.query_project is None:
            raise NotFoundError(f"project {project_id} has no query project; run `alc init`")
        before = {a.annotation_id for a in ledger.standing(session, project_id)}
    counts: Counter[str] = Counter()
    seen: set[int] = set()
    for task in client.tasks(project.query_project, query=ANSWERED_TASKS):
        for item in task["annotations"]:
            seen.add(int(item["id"]))
            try:
                outcome = record(store, project.query_project, parse(item, int(task["id"])))
            except ValueError as error:
                log.warning("annotation %s: %s", item["id"], error)
                outcome = UNREADABLE
            counts[outcome] += 1
            if outcome in (UNKNOWN_TASK, UNKNOWN_CLASS):
                log.warning("annotation %s is %s", item["id"], outcome)
    for annotation_id in sorted(before - seen):
        if _is_gone(client, annotation_id):
            counts[withdraw(store, project.query_project, annotation_id)] += 1
    return counts


def _is_gone(client: Client, annotation_id: int) -> bool:
    try:
        client.get(f"/api/annotations/{annotation_id}/")
    except LabelStudioError as error:
        if error.status == 404:
            return True
        raise
    return False


def _query(session: Session, query_project: int, task_id: int) -> Query | None:
    return session.scalars(
        select(Query)
        .join(Superpixel, Superpixel.id == Query.superpixel_id)
        .join(Image, Image.id == Superpixel.image_id)
        .join(Project, Project.id == Image.project_id)
        .where(Query.task_id == task_id, Project.query_project == query_project)
    ).first()
