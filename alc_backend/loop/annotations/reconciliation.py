"""Reconciling: paging through Label Studio's annotations to repair what webhooks lost."""

from __future__ import annotations

import json
import logging
from collections import Counter
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from alc_backend.common.types import Json, Progress
from alc_backend.errors import AlcError, LabelStudioError, NotFoundError
from alc_backend.labelstudio.annotation import parse
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import Key, asked_about
from alc_backend.labelstudio.times import read_time
from alc_backend.loop import query_tasks
from alc_backend.loop.annotations import answers, mask_edits, outcomes, recovery
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import (
    TRAIN,
    Image,
    LedgerEntry,
    Project,
    Query,
    Round,
    Superpixel,
    utc_now,
)

log = logging.getLogger(__name__)


FIELDS = (
    "id,data,overlap,updated_at,annotations,result,completed_by,was_cancelled,created_at,lead_time,"
    "parent_prediction"
)
"""What is read of each task (Label Studio applies the list to what lies within a task, too)."""

MANY_GONE, SHARE_GONE = 20, 0.1
"""Answers that may vanish at once from Label Studio without anybody saying that they should."""

SLACK = timedelta(minutes=2)
"""How far before the last known moment changes are looked for: transactions end out of order."""


def reconcile(
    store: Store,
    client: Client,
    project_id: int,
    *,
    full: bool = False,
    accept_deletions: bool = False,
    progress: Progress = lambda done, total, message: None,
) -> Counter[str]:
    """Bring the ledger to what Label Studio holds; counts what became of each annotation.

    Looks at the tasks that changed since the last time, or, with ``full`` and the first time, at
    every task that somebody answered. Queries that the store lacks, because an older backup was
    restored, are made again first. Answers in the ledger whose annotation is gone are withdrawn;
    when that is a large share of them, only with ``accept_deletions``. Raises NotFoundError when
    the project has no query project, LabelStudioError.
    """
    with store.reading() as session:
        project = session.get(Project, project_id)
        if project is None or project.query_project is None:
            raise NotFoundError(f"project {project_id} has no query project; run `alc init`")
    _read_overlap(store, client, project)
    if query_tasks.sync_tasks(store, client, project_id):
        full = True  # tasks have gone, and the answers in them: what changed does not tell
    since = None if full else project.reconciled_to
    counts: Counter[str] = Counter()
    seen: set[int] = set()
    suspects: set[int] = set()
    known = Known(store, project_id)
    parts = [number for number in (project.query_project, project.dataset_project) if number]
    newest = _newest(client, parts) or project.reconciled_to
    for label_studio_project in parts:
        about = f"reading the annotations of Label Studio project {label_studio_project}"
        changed, conjunction = _changed(since)
        tasks = client.tasks_by_id(label_studio_project, changed, conjunction, include=FIELDS)
        for done, task in enumerate(tasks):
            if done % 20 == 0:
                progress(done, done + 1, about)
            here = {int(item["id"]) for item in task["annotations"]}
            seen |= here
            suspects |= known.of_task(label_studio_project, int(task["id"])) - here
            for item in task["annotations"]:
                outcome = _record(store, client, project, label_studio_project, task, item, known)
                counts[outcome] += 1
    if since is None:
        suspects |= known.annotations - seen
    most = None if accept_deletions else max(MANY_GONE, SHARE_GONE * len(known.annotations))
    gone: list[int] = []
    for number in sorted(suspects - seen):
        if client.get_or_none(f"/api/annotations/{number}/") is None:
            gone.append(number)
        if most is not None and len(gone) > most:
            raise LabelStudioError(
                f"Label Studio no longer has {len(gone)} or more of the {len(known.annotations)} "
                "annotations in the ledger; nothing was withdrawn. Is LABEL_STUDIO_URL the right "
                "installation? If they were deleted on purpose, run "
                "`alc reconcile --full --accept-deletions`"
            )
    counts += answers.withdraw(store, project_id, gone)
    with store.session() as session:
        _propose(session, project_id)
        row = session.get_one(Project, project_id)
        row.reconciled_to, row.reconciled_at = newest, utc_now()
    return counts


def _record(
    store: Store,
    client: Client,
    project: Project,
    label_studio_project: int,
    task: Json,
    item: Json,
    known: Known,
) -> str:
    try:
        annotation = parse(item, int(task["id"]))
        if known.is_current(annotation.annotation_id, annotation.updated_at):
            return Outcome.KNOWN
        if label_studio_project == project.query_project:
            if known.is_beyond(annotation.round_number, asked_about(task.get("data"))):
                known.looked = True
                recovery.take_in(store, client, project)
            outcome = answers.record(store, project, annotation, task)
        else:
            outcome = mask_edits.record(store, lambda: client, project, annotation)
    except LabelStudioError:
        raise
    except (AlcError, ValueError) as error:
        log.warning("annotation %s: %s", item.get("id"), error)
        return Outcome.UNREADABLE
    if outcome in outcomes.PROBLEMS:
        log.warning("annotation %s is %s", item.get("id"), outcome)
    return outcome


class Known:
    """What the store knew when reconciling began.

    ``looked``: queries that it did not know were looked for.
    """

    def __init__(self, store: Store, project_id: int) -> None:
        with store.reading() as session:
            project = session.get_one(Project, project_id)
            standing = ledger.standing(session, project_id)
            asked = select(Query.superpixel_id, Query.adjudication, Query.task_id)
            tasks = {
                (row.superpixel_id, row.adjudication): row.task_id for row in session.execute(asked)
            }
            shown = select(Image.id, Image.dataset_task).where(Image.project_id == project_id)
            dataset_tasks = {row.id: row.dataset_task for row in session.execute(shown)}
            images = select(Image.key).where(Image.project_id == project_id, Image.split == TRAIN)
            self._images = set(session.scalars(images))
            keys = (Image.key, Superpixel.number, Query.adjudication)
            self._keys = {Key(*row) for row in query_tasks.columns(session, project_id, *keys)}
            numbers = select(Round.number).where(Round.project_id == project_id)
            self._rounds = set(session.scalars(numbers))
        self.looked = False
        self.annotations = {entry.annotation_id for entry in standing}
        self._updated_at = {entry.annotation_id: entry.updated_at for entry in standing}
        self._of_task: dict[tuple[int | None, int | None], set[int]] = {}
        for entry in standing:
            place = (
                (project.dataset_project, dataset_tasks.get(entry.image_id))
                if entry.superpixel_id is None
                else (
                    project.query_project,
                    tasks.get((entry.superpixel_id or 0, entry.adjudication)),
                )
            )
            self._of_task.setdefault(place, set()).add(entry.annotation_id)

    def of_task(self, label_studio_project: int, task_id: int) -> set[int]:
        """The annotations in force that were given to a task."""
        return self._of_task.get((label_studio_project, task_id), set())

    def is_beyond(self, round_number: int | None, key: Key) -> bool:
        """Whether a query of ours, or the round it was shown in, is to be looked for."""
        if self.looked or key.image not in self._images:
            return False
        return key not in self._keys or (
            round_number is not None and round_number not in self._rounds
        )

    def is_current(self, annotation_id: int, updated_at: datetime) -> bool:
        """Whether the ledger has an annotation as it was at ``updated_at``."""
        return self._updated_at.get(annotation_id) == updated_at


def _propose(session: Session, project_id: int) -> None:
    """Let adjudications that were made again say between which classes they decide."""
    asked = (
        select(Query)
        .join(Round, Round.id == Query.round_id)
        .where(Round.project_id == project_id, Query.adjudication, Query.proposed.is_(None))
    )
    silent = session.scalars(asked).all()
    if not silent:
        return
    judged = ledger.judgement(session, project_id)
    given: dict[int | None, list[LedgerEntry]] = {}
    for entry in ledger.standing(session, project_id):
        given.setdefault(entry.superpixel_id, []).append(entry)
    for query in silent:
        votes = ledger.votes_of(given.get(query.superpixel_id, []))
        classes = judged.disputed.get(query.superpixel_id) or [vote.class_id for vote in votes]
        query.proposed = list(dict.fromkeys(classes)) or None


def _changed(since: datetime | None) -> tuple[list[Json], str]:
    """Filters for the tasks with annotations, or for those that changed since a moment."""
    if since is None:
        return [
            {"filter": f"filter:tasks:{name}", "operator": "greater", "type": "Number", "value": 0}
            for name in ("total_annotations", "cancelled_annotations")
        ], "or"
    moment = (since - SLACK).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    item = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime"}
    return [{**item, "value": moment}], "and"


def _newest(client: Client, projects: list[int]) -> datetime | None:
    """When, by Label Studio's clock, a task of the projects changed last."""
    moments = []
    for number in projects:
        page = client.get(
            "/api/tasks/",
            project=number,
            fields="task_only",
            include="id,updated_at",
            page_size=1,
            query=json.dumps({"ordering": ["-tasks:updated_at"]}),
        )["tasks"]
        moments += [read_time(task["updated_at"]) for task in page]
    return max(moments, default=None)


def _read_overlap(store: Store, client: Client, project: Project) -> None:
    """Follow the number of annotations per task that an admin sets in the query project."""
    found = client.get(f"/api/projects/{project.query_project}").get("maximum_annotations")
    overlap = answers.overlap_of(found)
    if overlap is not None and overlap != project.overlap:
        project.overlap = overlap
        with store.session() as session:
            session.get_one(Project, project.id).overlap = overlap
            session.execute(  # other answers may be disputed now
                update(Round)
                .where(Round.project_id == project.id, Round.opened_at.is_not(None))
                .values(unasked=True)
            )
        query_tasks.close_again(store, client, project.id)
