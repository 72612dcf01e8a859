"""Reconciling: paging through Label Studio's annotations to repair what webhooks lost.

Reads Label Studio; writes the ledger by ``answers`` and ``mask_edits``, queries by ``query_tasks``
and ``recovery``, and how far the project is reconciled. Called by commands, the service, and
``rounds.preparation``.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import update

from alc_backend.common.types import Json, Progress
from alc_backend.errors import AlcError, LabelStudioError, NotFoundError
from alc_backend.labelstudio import projects
from alc_backend.labelstudio.annotation import parse
from alc_backend.labelstudio.client import Client, is_outage
from alc_backend.labelstudio.query import Key, asked_about
from alc_backend.labelstudio.task_pages import LeftOut
from alc_backend.labelstudio.times import read_time
from alc_backend.loop import image_tasks, task_sync
from alc_backend.loop.annotations import (
    answers,
    attempts,
    mask_edits,
    outcomes,
    recovery,
    restored,
    unread_tasks,
)
from alc_backend.loop.annotations.known import Known
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store import recording, upkeep
from alc_backend.store.database import Store
from alc_backend.store.models import Project, Round, utc_now

log = logging.getLogger(__name__)


FIELDS = (
    "id,data,overlap,is_labeled,updated_at,annotations,result,completed_by,was_cancelled,created_at,"
    "lead_time,parent_prediction"
)
"""What is read of each task (Label Studio applies the list to what lies within a task, too)."""

MANY_GONE, SHARE_GONE = 20, 0.1
"""How many annotations may have vanished from Label Studio before withdrawing is refused.

The larger of a number and a share of those in the ledger.
"""

SLACK = timedelta(minutes=2)
"""How far before the last known moment changes are looked for: transactions end out of order."""

FULL_EVERY = timedelta(days=1)
"""How long at most only what changed is looked at: what has gone with its task does not tell."""


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

    Looks at the tasks that changed since the last time or have annotations of larger numbers than
    were known then, by which those are found that Label Studio dated back. With ``full``, the first
    time, after FULL_EVERY, when tasks have gone, and when Label Studio's last change is older than
    it was, looks at every task that somebody answered. Queries that the store lacks, because an
    older backup was restored, are made again first. Closed tasks that Label Studio serves again are
    closed once more. Answers in the ledger whose annotation was deleted are withdrawn; when that is
    a large share of them, or Label Studio was restored from a dump that lacks them, only with
    ``accept_deletions``; so are images removed whose tasks are gone. Where Label Studio was
    restored, it is noted that the open round's queue must be put into it again. A task that Label
    Studio does not give counts as UNREADABLE, and what is in force of it stays. Raises
    NotFoundError when the project has no query project, or Label Studio no longer has it or the
    dataset project, LabelStudioError.
    """
    with store.reading() as session:
        project = session.get(Project, project_id)
    if project is None or project.query_project is None:
        raise NotFoundError(f"project {project_id} has no query project; run `alc init`")
    for number, role in (
        (project.query_project, projects.QUERIES),
        (project.dataset_project, projects.DATASET),
    ):
        if number is not None:
            projects.check_there(client, number, role)
    settings = client.get(f"/api/projects/{project.query_project}")
    both = [number for number in (project.query_project, project.dataset_project) if number]
    newest, changed_last = _newest(client, both)
    full |= _take_overlap(store, project, settings)
    full = full or _is_full_due(client, project, both, newest)
    task_sync.sync_tasks(store, client, project_id, look=full)
    compared = image_tasks.sync_images(store, client, project, look=full)
    full, began = full or _have_tasks_gone(store, project), utc_now()
    since = None if full else project.reconciled_to
    known = Known(store, project_id)
    counts: Counter[str] = Counter()
    seen: set[int] = set()
    missing: set[int] = set()
    served: dict[int, Key] = {}
    for label_studio_project in both:
        about = f"reading the annotations of Label Studio project {label_studio_project}"
        changed, conjunction = _changed(since, project.reconciled_annotation or 0)
        unread, read = LeftOut(), set[int]()
        tasks = client.tasks_by_id(
            label_studio_project, changed, conjunction, leave_out=unread, include=FIELDS
        )
        for done, task in enumerate(tasks):
            if done % 20 == 0:
                progress(done, done + 1, about)
            here = {int(item["id"]) for item in task["annotations"]}
            seen |= here
            missing |= known.of_task(label_studio_project, int(task["id"])) - here
            read.add(int(task["id"]))
            served |= _served(project, label_studio_project, task)
            for item in task["annotations"]:
                outcome = _record(store, client, project, label_studio_project, task, item, known)
                counts[outcome] += 1
        for task_id in unread:
            seen |= known.of_task(label_studio_project, task_id)
            counts[Outcome.UNREADABLE] += 1
        of = None if since is None else read
        unread_tasks.note(store, project_id, label_studio_project, unread, of)
    if since is None:
        missing |= known.annotations() - seen
    with store.session() as session:
        restored.note_earlier(session, project_id, settings.get("model_version"))
    away = [] if accept_deletions else known.given(missing - seen)
    lost = restored.lost(client, away)
    counts += Counter({Outcome.LOST: len(lost)})
    gone = _deleted(client, sorted(missing - seen - lost), known, accept_deletions)
    counts += answers.withdraw(store, project_id, gone)
    image_tasks.settle(store, client, project, compared, accept_deletions=accept_deletions)
    task_sync.close_reopened(store, client, project_id, served)
    with store.session() as session:
        recovery.propose(session, project_id)
        restored.note_lost(session, project_id, settings.get("model_version"), lost)
        row = session.get_one(Project, project_id)
        row.reconciled_at = utc_now()
        # A moment that is still to come would hide what happens until then.
        row.reconciled_to = newest and min(newest, row.reconciled_at)
        row.reconciled_task = changed_last
        # One may be made after its project was read, and before one of a larger number that is
        # seen: only the numbers that were known when this began are past.
        before = 0 if since is None else project.reconciled_annotation or 0
        row.reconciled_annotation = min(max(known.newest, before), max(seen | {before}))
        if since is None:
            attempts.forget_gone(session, project_id, seen)
            row.reconciled_fully_at = began
    return counts


def _served(project: Project, label_studio_project: int, task: Json) -> dict[int, Key]:
    """What a task asks, by its number, where it is one of queries and Label Studio serves it."""
    if label_studio_project != project.query_project or task["is_labeled"]:
        return {}
    return {int(task["id"]): asked_about(task.get("data"))}


def _is_full_due(
    client: Client, project: Project, both: list[int], newest: datetime | None
) -> bool:
    """Whether to look at everything, ``newest`` being Label Studio's last change."""
    last, known = project.reconciled_fully_at, project.reconciled_to
    if last is None or known is None or utc_now() - last > FULL_EVERY:
        return True
    if newest is None or newest < known:
        return True  # tasks have gone, or it was restored from a dump
    return restored.went_back(client, both, project.reconciled_task, known)


def _have_tasks_gone(store: Store, project: Project) -> bool:
    """Whether somebody has noticed, since all was looked at, that tasks have gone.

    What changed does not tell of the answers in them.
    """
    with store.reading() as session:
        noticed = session.get_one(Project, project.id).tasks_gone_at
    last = project.reconciled_fully_at
    return noticed is not None and (last is None or noticed >= last)


def _deleted(client: Client, missing: list[int], known: Known, accept: bool) -> list[int]:
    """Those of the annotations that Label Studio really does not have any more.

    One of which Label Studio does not say counts as there. Raises LabelStudioError when they are
    too many of the ``known`` ones, unless one is to ``accept`` that, and in an outage.
    """
    counted = 0 if accept or len(missing) <= MANY_GONE else len(known.annotations())
    gone: list[int] = []
    for number in missing:
        try:
            if not client.exists(f"/api/annotations/{number}/"):
                gone.append(number)
        except LabelStudioError as error:
            if is_outage(error):
                raise
            log.warning("annotation %s stays in force: %s", number, error)
        if not accept and len(gone) > max(MANY_GONE, SHARE_GONE * counted):
            raise LabelStudioError(
                f"Label Studio no longer has {len(gone)} or more of the {counted} annotations in "
                "the ledger; nothing was withdrawn. Is LABEL_STUDIO_URL the right installation? If "
                "they were deleted on purpose, run `alc reconcile --full --accept-deletions`"
            )
    return gone


def _record(
    store: Store,
    client: Client,
    project: Project,
    label_studio_project: int,
    task: Json,
    item: Json,
    known: Known,
) -> Outcome:
    """Write one annotation (``item``) of a task into the ledger; returns what became of it.

    What Label Studio does not give for this one, such as the prediction it began from, makes it
    UNREADABLE until it changes, or everything is looked at again. Raises LabelStudioError in an
    outage.
    """
    try:
        annotation = parse(item, int(task["id"]))
        if known.is_current(annotation.annotation_id, annotation.updated_at):
            return Outcome.KNOWN
        about = asked_about(task.get("data"))
        asks = label_studio_project == project.query_project
        if asks and known.may_lack(annotation.round_number, about):
            known.recovered = True
            recovery.recover_queries(store, client, project)
        outcome = write_annotation(store, lambda: client, project, label_studio_project, task, item)
    except (AlcError, ValueError) as error:
        if is_outage(error):
            raise
        log.warning("annotation %s: %s", item.get("id"), error)
        return Outcome.UNREADABLE
    if outcome in outcomes.PROBLEMS:
        log.warning("annotation %s is %s", item.get("id"), outcome)
    return outcome


def write_annotation(
    store: Store,
    client: Callable[[], Client],
    project: Project,
    label_studio_project: int,
    task: Json,
    item: Json,
) -> Outcome:
    """Write one annotation (``item``) of a task, as Label Studio has them, into the ledger.

    Returns what became of it. What contradicts the ledger is asked for once more: by then, what was
    read too early has changed. Raises ValueError for what cannot be read, LabelStudioError when
    that, or what an edit began from, cannot be fetched.
    """
    annotation = parse(item, int(task["id"]))
    number, moment = annotation.annotation_id, annotation.updated_at
    with store.reading() as session:
        again = recording.contradicts(session, project.id, number, moment)
    if again:
        found = client().get_or_none(f"/api/annotations/{number}/")
        if found is None or parse(found, int(task["id"])).updated_at != moment:
            return Outcome.KNOWN
    if label_studio_project == project.query_project:
        return answers.record(store, project, annotation, task, again=again)
    return mask_edits.record(store, client, project, annotation, again=again)


def _changed(since: datetime | None, beyond: int) -> tuple[list[Json], str]:
    """Filters, and how they combine, for the tasks to look at.

    They are those that changed since a moment or have annotations numbered ``beyond`` the known
    ones, or else all that are answered.
    """
    if since is None:
        return [
            {"filter": f"filter:tasks:{name}", "operator": "greater", "type": "Number", "value": 0}
            for name in ("total_annotations", "cancelled_annotations")
        ], "or"
    moment = (since - SLACK).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    item = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime"}
    numbered = {"filter": "filter:tasks:annotations_ids", "operator": "greater", "type": "Number"}
    return [{**item, "value": moment}, {**numbered, "value": beyond}], "or"


def _newest(client: Client, projects: list[int]) -> tuple[datetime | None, int | None]:
    """When, by Label Studio's clock, a task of the projects changed last, and which one it was.

    None, twice, without tasks.
    """
    found = []
    for number in projects:
        page = client.get(
            "/api/tasks/",
            project=number,
            fields="task_only",
            include="id,updated_at",
            page_size=1,
            query=json.dumps({"ordering": ["-tasks:updated_at"]}),
        )["tasks"]
        found += [(read_time(task["updated_at"]), int(task["id"])) for task in page]
    return max(found, default=(None, None))


def _take_overlap(store: Store, project: Project, settings: Json) -> bool:
    """Take over the number of annotators per task from the query project's settings.

    Returns whether an admin has changed it: Label Studio then opens all tasks.
    """
    overlap = answers.overlap_of(settings.get("maximum_annotations"))
    if overlap is None or overlap == project.overlap:
        return False
    project.overlap = overlap
    with store.session() as session:
        upkeep.set_overlap(session, project.id, overlap)
        session.execute(  # other answers may be disputed now
            update(Round)
            .where(Round.project_id == project.id, Round.opened_at.is_not(None))
            .values(unasked=True)
        )
    return True
