"""Answers in CVAT on their way into the ledger: the tags of the frames of finished jobs.

A webhook only says which job changed; everything is read from CVAT. An answer is the newest tag of
a frame beside the one that it began with, or else that one; a frame without tags was skipped. Reads
CVAT; writes the ledger, and how far each job was read. Called by ``rounds.platforms`` and the
service.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from http import HTTPStatus

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from alc_backend.common.retries import pause_after
from alc_backend.common.types import Json, Progress
from alc_backend.cvat.client import COMPLETED, UPDATE_JOB, Job, Tag
from alc_backend.cvat.client import Cvat as Server
from alc_backend.errors import CvatError, PlatformAwayError, SettingsError
from alc_backend.loop.annotations.answers import TRIES
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store import ledger, recording
from alc_backend.store.cvat import CvatJob, CvatProject, CvatQuestion, CvatTask
from alc_backend.store.database import Store
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import MAX_ID, Project, utc_now

log = logging.getLogger(__name__)

NOBODY = "unknown"
"""The annotator of a job that nobody was assigned to."""

AT_ONCE = 50
"""Reported jobs that are read in one go."""


def collect(
    store: Store, server: Server, project_id: int, *, full: bool, progress: Progress
) -> Counter[str]:
    """Read the finished jobs of all rounds that have changed since; counts what became of answers.

    With ``full``, all finished jobs. A task or a job that CVAT refuses to give holds up no other:
    it counts as unreadable. Raises CvatAwayError.
    """
    with store.reading() as session:
        tasks = session.scalars(
            select(CvatTask)
            .where(
                CvatTask.project_id == project_id,
                CvatTask.task.is_not(None),
                CvatTask.gone_at.is_(None),
            )
            .order_by(CvatTask.id)
        ).all()
    counts: Counter[str] = Counter()
    for done, task in enumerate(tasks):
        progress(done, len(tasks), f"reading the answers of CVAT's task {task.task}")
        try:
            jobs = _jobs(store, server, task)
        except CvatError as error:
            if isinstance(error, PlatformAwayError):
                raise
            log.warning("the jobs of CVAT's task %s: %s", task.task, error)
            counts[Outcome.UNREADABLE] += 1
            continue
        for job in jobs:
            counts += _collect_job(store, server, project_id, task, job, full=full)
    with store.session() as session:
        session.get_one(CvatProject, project_id).collected_at = utc_now()
    return counts


def _jobs(store: Store, server: Server, task: CvatTask) -> list[Job]:
    """The jobs of a task; none of one that is gone from CVAT, which is noted."""
    assert task.task is not None
    jobs = server.jobs(task.task)
    if jobs:
        return jobs
    try:
        server.size_of(task.task)
    except CvatError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        log.warning("CVAT no longer has task %s; what was answered in it stays", task.task)
        with store.session() as session:
            session.get_one(CvatTask, task.id).gone_at = utc_now()
            session.execute(
                update(CvatJob)
                .where(CvatJob.cvat_task_id == task.id)
                .values(reported_at=None, problem=None)
            )
    return []


def _collect_job(
    store: Store, server: Server, project_id: int, task: CvatTask, job: Job, *, full: bool
) -> Counter[str]:
    with store.session() as session:
        row = session.get(CvatJob, job.number)
        if row is None:
            row = CvatJob(job=job.number, cvat_task_id=task.id, first=job.first, last=job.last)
            session.add(row)
        read_to, reported_at, problem = row.read_to, row.reported_at, row.problem
    if job.state != COMPLETED or (read_to == job.updated_at and not full):
        if reported_at is not None or (problem is not None and job.state != COMPLETED):
            _note(store, job.number, reported_at)
        return Counter()
    try:
        return _read(store, server, project_id, task.id, job)
    except CvatError as error:
        if isinstance(error, PlatformAwayError):
            raise
        log.warning("job %s of CVAT: %s", job.number, error)
        with store.session() as session:
            _put_off(session.get_one(CvatJob, job.number), str(error))
        return Counter({Outcome.UNREADABLE: 1})


def _read(store: Store, server: Server, project_id: int, task_id: int, job: Job) -> Counter[str]:
    """Write the answers of a finished job into the ledger."""
    with store.reading() as session:
        reported_at = session.get_one(CvatJob, job.number).reported_at
        questions = session.scalars(
            select(CvatQuestion)
            .where(
                CvatQuestion.cvat_task_id == task_id,
                CvatQuestion.frame.between(job.first, job.last),
            )
            .order_by(CvatQuestion.frame)
        ).all()
        number = session.get_one(CvatProject, project_id).questions
        task = session.get_one(CvatTask, task_id).task
    labels = {} if number is None else server.labels("project", number)
    by_frame: dict[int, list[Tag]] = {}
    for tag in server.tags(job.number):
        by_frame.setdefault(tag.frame, []).append(tag)
    counts: Counter[str] = Counter()
    for question in questions:
        tags = by_frame.get(question.frame, ())
        outcome = _write(store, project_id, question, job, task, tags, labels)
        counts[outcome] += 1
        if outcome == Outcome.UNKNOWN_CLASS:
            log.warning("frame %s of CVAT's task %s has an unknown tag", question.frame, task)
    if unknown := counts[Outcome.UNKNOWN_CLASS]:  # read again until that is put right
        problem = (
            f"of job {job.number} of task {task}, {unknown} frames have a tag that names no class; "
            "give CVAT's label the name of its class again"
        )
        _note(store, job.number, reported_at, problem=problem)
    else:
        _note(store, job.number, reported_at, job)
    return counts


def _write(
    store: Store,
    project_id: int,
    question: CvatQuestion,
    job: Job,
    task: int | None,
    tags: Collection[Tag],
    labels: Mapping[int, str],
) -> Outcome:
    for attempt in range(1, TRIES + 1):
        try:
            with store.session() as session:
                return _record(session, project_id, question, job, task, tags, labels)
        except IntegrityError:  # another process wrote the same revision at the same moment
            if attempt == TRIES:
                raise
    raise AssertionError("unreachable")


def _record(
    session: Session,
    project_id: int,
    question: CvatQuestion,
    job: Job,
    task: int | None,
    tags: Collection[Tag],
    labels: Mapping[int, str],
) -> Outcome:
    """Write what a frame says into the ledger, if that is new."""
    classes = session.get_one(Project, project_id).class_ids
    said = [(tag.number, classes.get(labels.get(tag.label, ""))) for tag in tags]
    others = [(number, class_id) for number, class_id in said if class_id != question.preset]
    class_id = max(others or said, default=(0, None), key=lambda pair: pair[0])[1]
    if said and class_id is None:
        return Outcome.UNKNOWN_CLASS
    last = ledger.last_revisions(session, project_id, question.id).get(0)
    if last is not None and last.kind != EntryKind.DELETED and last.class_id == class_id:
        return Outcome.KNOWN
    if last is None and not others and _is_answered_anew(session, project_id, question):
        return Outcome.KNOWN
    reply = recording.Reply(
        annotation_id=question.id,
        class_id=class_id,
        annotator=job.annotator or NOBODY,
        lead_time=None,
        answered_at=job.updated_at if last is None else last.answered_at,
        updated_at=job.updated_at,
        round_number=question.round_number,
        overlap=1,
        task_id=task,
    )
    query = session.get_one(CvatQuestion, question.id).query
    entry = recording.record(session, query, reply)
    return Outcome.KNOWN if entry is None else Outcome.RECORDED


def _is_answered_anew(session: Session, project_id: int, question: CvatQuestion) -> bool:
    """Whether the same was asked in a later round, and answered there.

    What nobody has changed in a frame that was left over says nothing then.
    """
    later = session.scalars(
        select(CvatQuestion.id).where(
            CvatQuestion.query_id == question.query_id, CvatQuestion.id > question.id
        )
    ).all()
    entries = (ledger.last_revisions(session, project_id, number).get(0) for number in later)
    return any(entry is not None and entry.kind != EntryKind.DELETED for entry in entries)


def _note(
    store: Store,
    number: int,
    reported_at: object,
    read: Job | None = None,
    *,
    problem: str | None = None,
) -> None:
    """Write down that a job was looked at, which had been reported at ``reported_at``; and how far.

    ``problem`` is what keeps it from being read to its end. A report that came meanwhile stays.
    """
    with store.session() as session:
        row = session.get_one(CvatJob, number)
        row.problem = problem
        if read is not None:
            row.read_to = read.updated_at
        if row.reported_at == reported_at:
            row.reported_at, row.tries, row.next_try_at = None, 0, None


def note_report(store: Store, questions: int, payload: Json) -> bool:
    """Note that a webhook of a CVAT project (id) reported a job; whether it is one with questions.

    Nothing that it says is believed but which job it is. Raises ValueError for what is no report
    of a changed job.
    """
    if payload.get("event") == "ping":
        return False
    job = payload.get("job")
    number = job.get("id") if isinstance(job, dict) else None
    if payload.get("event") != UPDATE_JOB or type(number) is not int or not 0 < number <= MAX_ID:
        raise ValueError(f"only {UPDATE_JOB} is expected, with the id of a job")
    with store.session() as session:
        row = session.scalars(
            select(CvatJob)
            .join(CvatTask, CvatTask.id == CvatJob.cvat_task_id)
            .join(CvatProject, CvatProject.project_id == CvatTask.project_id)
            .where(CvatJob.job == number, CvatProject.questions == questions)
        ).first()
        if row is not None:
            row.reported_at, row.tries, row.next_try_at = utc_now(), 0, None
        return row is not None


def read_reported(store: Store) -> Counter[str]:
    """Read the jobs that webhooks reported; counts what became of their answers.

    While CVAT or the database is away, they wait, as long as it takes. So does one that CVAT
    refuses to give, until it is found by reconciling.
    """
    due = _reported(store)
    counts: Counter[str] = Counter()
    if not due:
        return counts
    try:
        with Server.from_settings(store.settings) as server:
            for position, row in enumerate(due):
                try:
                    counts += _read_reported(store, server, row)
                except OperationalError as error:
                    _postpone(store, [row], str(error))
                except CvatError as error:
                    if isinstance(error, PlatformAwayError):
                        _postpone(store, due[position:], str(error))
                        break
                    _postpone(store, [row], str(error))
    except (CvatError, SettingsError) as error:
        _postpone(store, due, str(error))
    return counts


def _reported(store: Store) -> list[CvatJob]:
    with store.reading() as session:
        return list(
            session.scalars(
                select(CvatJob)
                .where(
                    CvatJob.reported_at.is_not(None),
                    or_(CvatJob.next_try_at.is_(None), CvatJob.next_try_at <= utc_now()),
                )
                .order_by(CvatJob.reported_at)
                .limit(AT_ONCE)
            )
        )


def _read_reported(store: Store, server: Server, row: CvatJob) -> Counter[str]:
    job, task = server.job(row.job), row.cvat_task
    return _collect_job(store, server, task.project_id, task, job, full=False)


def _postpone(store: Store, rows: Iterable[CvatJob], reason: str) -> None:
    log.warning("jobs of CVAT wait: %s", reason)
    with store.session() as session:
        for known in rows:
            row = session.get_one(CvatJob, known.job)
            if row.reported_at is not None:
                _put_off(row, reason)


def _put_off(row: CvatJob, reason: str) -> None:
    """Let a job that could not be read wait, longer each time, before it is tried again."""
    row.problem = reason
    row.tries += 1
    row.next_try_at = utc_now() + timedelta(seconds=pause_after(row.tries))
