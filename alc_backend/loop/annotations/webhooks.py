"""The inbox: what Label Studio's webhooks report is kept at once, and read into the ledger later.

Touches the table of events, and by ``answers`` and ``mask_edits`` the ledger; reads Label Studio
where an event cannot be understood without it. :class:`Letterbox` has a thread of its own. Called
by the service, by commands and by ``rounds.preparation``.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta

from sqlalchemy import delete, func, or_, select
from sqlalchemy.exc import OperationalError

from alc_backend.common.retries import pause_after
from alc_backend.common.types import Json
from alc_backend.errors import LabelStudioAwayError, NotFoundError
from alc_backend.labelstudio.annotation import Annotation, parse, positive_integer
from alc_backend.labelstudio.client import Client
from alc_backend.loop.annotations import answers, mask_edits, outcomes
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store.database import Store
from alc_backend.store.models import MAX_ID, Event, Project, utc_now

log = logging.getLogger(__name__)


ANNOTATIONS_DELETED, TASKS_DELETED = "ANNOTATIONS_DELETED", "TASKS_DELETED"
PAGE = 200
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

    Label Studio waits for this while a labeler submits: nothing else happens here.
    """
    project = payload.get("project")
    number = project.get("id") if isinstance(project, dict) else project
    if positive_integer(number, "project") > MAX_ID:
        raise ValueError(f"there can be no project {number}")
    json.dumps(payload, allow_nan=False)  # what a database refuses would take others along
    event = Event(
        project_id=project_id,
        label_studio_project=number,
        action=action,
        payload=payload,
    )
    _parsed(event)
    return event


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
    """Read the waiting events into the ledger, oldest first; counts what became of each annotation.

    ``client`` is called when an event cannot be understood without Label Studio. An event that
    cannot be read in is tried again later: while Label Studio or the database is away until it can,
    else MAX_TRIES times; after that it is left out, with its reason. ``stop`` is asked after every
    event whether to leave the rest.
    """
    counts: Counter[str] = Counter()
    after = 0
    while not stop():
        with store.reading() as session:
            due = or_(Event.next_try_at.is_(None), Event.next_try_at <= utc_now())
            events = session.scalars(
                select(Event)
                .where(Event.processed_at.is_(None), Event.id > after, due)
                .order_by(Event.id)
                .limit(PAGE)
            ).all()
        if not events:
            break
        for event in events:
            after = event.id
            counts += _read_in(store, client, event)
            if stop():
                break
    return counts


def forget_old(store: Store) -> None:
    """Remove events that were read in, or left out, more than KEEP_DAYS ago."""
    limit = utc_now() - timedelta(days=KEEP_DAYS)
    with store.session() as session:
        session.execute(delete(Event).where(Event.processed_at < limit))


def _read_in(store: Store, client: Callable[[], Client], event: Event) -> Counter[str]:
    counts: Counter[str] = Counter()
    problem: str | None = None
    retry, patient = True, False
    try:
        counts = _outcomes(store, client, event)
        unknown = [name for name in outcomes.PROBLEMS if counts[name]]
        problem = unknown[0] if unknown else None
    except ValueError as error:
        counts[Outcome.UNREADABLE] += 1
        problem, retry = str(error), False
    except (LabelStudioAwayError, OperationalError) as error:
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


def _outcomes(store: Store, client: Callable[[], Client], event: Event) -> Counter[str]:
    with store.reading() as session:
        project = session.get(Project, event.project_id)
    if project is None:
        raise NotFoundError(f"project {event.project_id} is gone")
    gone, given = _parsed(event)
    if event.action == TASKS_DELETED:
        gone = answers.annotations_of_tasks(store, project, event.label_studio_project, gone)
    counts = answers.withdraw(store, project.id, gone)
    for annotation, task in given:
        if event.label_studio_project == project.query_project:
            counts[answers.record(store, project, annotation, task)] += 1
        else:
            counts[mask_edits.record(store, client, project, annotation)] += 1
    return counts


def _parsed(event: Event) -> tuple[list[int], list[tuple[Annotation, Json]]]:
    """What an event says is gone, and the annotations that it brings, each with its task.

    Gone are annotations or, in a TASKS_DELETED event, tasks, by number. Raises ValueError for an
    event that has neither, naming what is wrong.
    """
    about = "tasks" if event.action == TASKS_DELETED else "annotations"
    records = event.payload.get(about) or event.payload.get(about[:-1])
    if isinstance(records, dict):
        records = [records]
    if not isinstance(records, list) or not all(isinstance(item, dict) for item in records):
        raise ValueError(f"the event has no {about}")
    if event.action in (ANNOTATIONS_DELETED, TASKS_DELETED):
        return [positive_integer(item.get("id"), "id") for item in records], []
    tasks = event.payload.get("task")
    given = []
    for index, item in enumerate(records):
        task = tasks[index] if isinstance(tasks, list) and index < len(tasks) else tasks
        task = task if isinstance(task, dict) else {}
        given.append((parse(item, item.get("task") or task.get("id")), task))
    return [], given
