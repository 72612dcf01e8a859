"""The inbox: what Label Studio's webhooks name is noted at once, and read from Label Studio later.

A webhook is a hint. Whoever has its password can send one, so nothing that it says enters the
ledger: only which annotations it names is noted, and these are read from Label Studio. Touches the
table of events, by ``answers`` and ``mask_edits`` the ledger, and by ``unread_tasks`` its table.
:class:`Letterbox` has a thread of its own. Called by the service, by commands and by
``rounds.preparation``.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.exc import OperationalError

from alc_backend.common.retries import pause_after
from alc_backend.common.types import Json
from alc_backend.errors import (
    AnswerTooLargeError,
    LabelStudioError,
    NotFoundError,
    SettingsError,
)
from alc_backend.labelstudio.annotation import positive_integer
from alc_backend.labelstudio.client import Client, is_outage
from alc_backend.labelstudio.task_pages import LeftOut
from alc_backend.loop import image_tasks
from alc_backend.loop.annotations import answers, outcomes, restored, unread_tasks
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.annotations.reconciliation import FIELDS, write_annotation
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.incoming import Event
from alc_backend.store.models import MAX_ID, Project, utc_now

log = logging.getLogger(__name__)


ANNOTATIONS_DELETED, TASKS_DELETED = "ANNOTATIONS_DELETED", "TASKS_DELETED"
PAGE = 200
"""The most events that are kept in one transaction."""

AT_ONCE = 50
"""The most events, and the most tasks, that are read in one go."""

MAX_TRIES = 20
"""How often an event that cannot be read in is tried again, over more than an hour."""

KEEP_WITHIN_S = 30.0
"""How long a sender waits at most until its event is kept; after that it is told of a failure."""

KEEP_DAYS = 7
"""How long an event stays in the inbox after it was read in."""


class Letterbox:
    """Keeps events in the inbox, all that have come in by then in one transaction.

    Use it as a context manager: leaving it ends its thread once everything is kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._arrived: queue.SimpleQueue[tuple[Event, Future[int]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="letterbox", daemon=True)

    def __enter__(self) -> Letterbox:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._arrived.put(None)
        self._thread.join()

    def receive(self, project_id: int, action: str, payload: Json) -> int:
        """Keep an event; returns its row id once it is in the database.

        Raises ValueError as :func:`read_event` does, TimeoutError after KEEP_WITHIN_S.
        """
        kept: Future[int] = Future()
        self._arrived.put((read_event(project_id, action, payload), kept))
        return kept.result(KEEP_WITHIN_S)

    def _run(self) -> None:
        while (first := self._arrived.get()) is not None:
            letters = [first]
            while not self._arrived.empty() and len(letters) < PAGE:
                letter = self._arrived.get()
                if letter is None:
                    self._arrived.put(None)
                    break
                letters.append(letter)
            try:
                with self._store.session() as session:
                    session.add_all(event for event, _ in letters)
                    session.flush()
                    numbers = [event.id for event, _ in letters]
            except Exception as error:  # whoever waits is told, and the next letters are taken
                for _, kept in letters:
                    kept.set_exception(error)
            else:
                for (_, kept), number in zip(letters, numbers, strict=True):
                    kept.set_result(number)


def read_event(project_id: int, action: str, payload: Json) -> Event:
    """An event for the inbox; raises ValueError when it is not one of Label Studio's.

    Of the payload it keeps what the event names: ``annotations``, each with its task or None, and
    the ``tasks`` that are gone. Label Studio waits for this while a labeler submits: nothing else
    happens here.
    """
    project = payload.get("project")
    number = project.get("id") if isinstance(project, dict) else project
    return Event(
        project_id=project_id,
        label_studio_project=_id(number, "project"),
        action=action,
        payload=_named(action, payload),
    )


def _named(action: str, payload: Json) -> Json:
    """What a payload names; raises ValueError, saying what is wrong, when that is nothing."""
    about = "tasks" if action == TASKS_DELETED else "annotations"
    records = payload.get(about) or payload.get(about[:-1])
    if isinstance(records, dict):
        records = [records]
    if not isinstance(records, list) or not all(isinstance(item, dict) for item in records):
        raise ValueError(f"the event has no {about}")
    if action == TASKS_DELETED:
        return {"annotations": [], "tasks": [_id(item.get("id"), "id") for item in records]}
    named: list[tuple[int, int | None]] = []
    tasks = payload.get("task")
    for index, item in enumerate(records):
        task = None
        if action != ANNOTATIONS_DELETED:
            given = tasks[index] if isinstance(tasks, list) and index < len(tasks) else tasks
            task = _id(item.get("task") or (isinstance(given, dict) and given.get("id")), "task")
        named.append((positive_integer(item.get("id"), "id"), task))
    return {"annotations": named, "tasks": []}


def _id(value: object, name: str) -> int:
    """An id that Label Studio's database can hold; for any other one it would be out of order."""
    number = positive_integer(value, name)
    if number > MAX_ID:
        raise ValueError(f"there can be no {name} {number}")
    return number


def waiting(store: Store, project_id: int | None = None) -> int:
    """How many events are not in the ledger yet."""
    counted = select(func.count()).select_from(Event).where(Event.processed_at.is_(None))
    if project_id is not None:
        counted = counted.where(Event.project_id == project_id)
    with store.reading() as session:
        return session.scalar(counted) or 0


def drain(
    store: Store, client: Callable[[], Client], stop: Callable[[], bool] = lambda: False
) -> Counter[str]:
    """Read what waiting events name into the ledger, oldest first; counts what became of it.

    Tasks are read from Label Studio many at once; ``client`` is called when there is something to
    read. An event that cannot be read in is tried again later: while Label Studio or the database
    is away, or no token is set, until it can, else MAX_TRIES times; after that it is left out, with
    its reason. ``stop`` is asked after every event whether to leave the rest.
    """
    counts: Counter[str] = Counter()
    after = 0
    while not stop():
        events = _due(store, after)
        if not events:
            break
        tasks = _Tasks(store, client, events)
        for position, event in enumerate(events):
            after = event.id
            try:
                counts += _read_in(store, client, tasks, event)
            except _OutageError as error:
                _postpone(store, events[position:], str(error))
                return counts
            if stop():
                break
    return counts


def _due(store: Store, after: int) -> Sequence[Event]:
    """The next events to read in, AT_ONCE at most, with ids above ``after``."""
    with store.reading() as session:
        due = or_(Event.next_try_at.is_(None), Event.next_try_at <= utc_now())
        return session.scalars(
            select(Event)
            .where(Event.processed_at.is_(None), Event.id > after, due)
            .order_by(Event.id)
            .limit(AT_ONCE)
        ).all()


def _postpone(store: Store, events: Sequence[Event], reason: str) -> None:
    """Let events wait for Label Studio, however long it takes."""
    log.warning("%s events wait: %s", len(events), reason)
    with store.session() as session:
        for event in events:
            session.execute(
                update(Event)
                .where(Event.id == event.id, Event.processed_at.is_(None))
                .values(
                    tries=event.tries + 1,
                    next_try_at=utc_now() + timedelta(seconds=pause_after(event.tries + 1)),
                    outcome=f"to be tried again: {reason}",
                )
            )


def forget_old(store: Store) -> None:
    """Remove events that were read in, or left out, more than KEEP_DAYS ago."""
    limit = utc_now() - timedelta(days=KEEP_DAYS)
    with store.session() as session:
        session.execute(delete(Event).where(Event.processed_at < limit))


class _OutageError(Exception):
    """Label Studio can be asked for nothing at all; the message says why."""


class _Tasks:
    """The tasks that events name, as Label Studio has them, read AT_ONCE at a time when needed."""

    def __init__(self, store: Store, client: Callable[[], Client], events: Sequence[Event]) -> None:
        self._store, self._client = store, client
        self._wanted: dict[int, list[int]] = {}
        self._of = {event.label_studio_project: event.project_id for event in events}
        for event in events:
            tasks = (task for _, task in event.payload["annotations"] if task is not None)
            self._wanted.setdefault(event.label_studio_project, []).extend(tasks)
        self._read: dict[int, dict[int, Json | LabelStudioError | None]] = {}

    def get(self, project: int, task: int) -> Json | None:
        """A task of a Label Studio project; None when there is none. Raises LabelStudioError."""
        read = self._read.get(project, {})
        if task not in read:
            wanted = self._wanted[project]
            ahead = wanted[wanted.index(task) :]
            read = self._ask(project, list(dict.fromkeys(ahead))[:AT_ONCE])
            self._read[project] = read
        found = read[task]
        if isinstance(found, LabelStudioError):
            raise found
        return found

    def _ask(self, project: int, tasks: list[int]) -> dict[int, Json | LabelStudioError | None]:
        those = {"filter": "filter:tasks:id", "operator": "in_list", "type": "Number"}
        unread = LeftOut()
        there = self._client().tasks_by_id(
            project, [{**those, "value": tasks}], leave_out=unread, include=FIELDS
        )
        found = {int(task["id"]): task for task in there}
        unread_tasks.note(self._store, self._of[project], project, unread, found)
        return {**dict.fromkeys(tasks), **found, **unread}


def _read_in(
    store: Store, client: Callable[[], Client], tasks: _Tasks, event: Event
) -> Counter[str]:
    counts: Counter[str] = Counter()
    problem: str | None = None
    retry, patient = True, False
    try:
        counts = _outcomes(store, client, tasks, event)
        unknown = [name for name in outcomes.PROBLEMS if counts[name]]
        problem = unknown[0] if unknown else None
    except (ValueError, AnswerTooLargeError) as error:
        counts[Outcome.UNREADABLE] += 1
        problem, retry = str(error), False
    except (LabelStudioError, SettingsError) as error:
        if isinstance(error, SettingsError) or is_outage(error):
            raise _OutageError(str(error)) from error
        log.warning("event %s waits: %s", event.id, error)
        problem = str(error)
    except OperationalError as error:
        log.warning("event %s waits: %s", event.id, error)
        problem, patient = str(error), True
    except Exception as error:  # one event must not keep the others from the ledger
        log.exception("event %s (%s) cannot be read in", event.id, event.action)
        problem = f"{type(error).__name__}: {error}"
    with store.session() as session:
        row = session.get_one(Event, event.id)
        row.tries += 1
        if problem is not None and retry and (patient or row.tries <= MAX_TRIES):
            row.next_try_at = utc_now() + timedelta(seconds=pause_after(row.tries))
            row.outcome = f"to be tried again: {problem}"
            return Counter()
        row.processed_at = utc_now()
        row.outcome = problem or ", ".join(f"{n} {name}" for name, n in counts.items())
    if problem is not None:
        log.warning("event %s (%s) was left out: %s", event.id, event.action, problem)
    return counts


def _outcomes(
    store: Store, client: Callable[[], Client], tasks: _Tasks, event: Event
) -> Counter[str]:
    with store.reading() as session:
        project = session.get(Project, event.project_id)
    if project is None:
        raise NotFoundError(f"project {event.project_id} is gone")
    where, named = event.label_studio_project, event.payload
    counts: Counter[str] = Counter()
    if named["tasks"] and where == project.dataset_project:
        image_tasks.remove_deleted(store, client(), project, named["tasks"])
    gone = answers.annotations_of_tasks(store, project, where, named["tasks"])
    failed: list[Exception] = []
    for number, task_id in [*((number, None) for number in gone), *named["annotations"]]:
        try:
            counts[_outcome(store, client, tasks, project, where, number, task_id)] += 1
        except OperationalError:
            raise
        except Exception as error:  # one annotation must not keep the others from the ledger
            if isinstance(error, SettingsError) or is_outage(error):
                raise
            failed.append(error)
    if failed:
        raise min(failed, key=_is_final)
    return counts


def _is_final(error: Exception) -> bool:
    """Whether what failed so will fail so again."""
    return isinstance(error, (ValueError, AnswerTooLargeError))


def _outcome(
    store: Store,
    client: Callable[[], Client],
    tasks: _Tasks,
    project: Project,
    where: int,
    number: int,
    task_id: int | None,
) -> Outcome:
    """Read one annotation of a Label Studio project (``where``); returns what became of it."""
    task = None if task_id is None else tasks.get(where, task_id)
    held = {record["id"]: record for record in task["annotations"]} if task else {}
    if task is not None and number in held:
        return write_annotation(store, client, project, where, task, held[number])
    outcome = _withdraw(store, client, project, number, was_given=task_id is not None)
    return Outcome.ABSENT if outcome == Outcome.KNOWN and task_id is not None else outcome


def _withdraw(
    store: Store,
    client: Callable[[], Client],
    project: Project,
    number: int,
    *,
    was_given: bool = False,
) -> Outcome:
    """Withdraw an annotation, if it is in force and Label Studio says that it does not exist.

    One that was reported as given (``was_given``) stays where nobody has deleted it, but Label
    Studio was restored from an older dump.
    """
    with store.reading() as session:
        standing = ledger.in_force_of(session, project.id, number)
    if not standing:
        return Outcome.KNOWN
    if client().exists(f"/api/annotations/{number}/"):
        return Outcome.PRESENT
    last = standing[0]
    given = restored.Given(number, last.label_studio_project, last.task_id, last.updated_at)
    if was_given and restored.lost(client(), [given]):
        return Outcome.LOST
    (outcome,) = answers.withdraw(store, project.id, [number])
    return Outcome(outcome)
