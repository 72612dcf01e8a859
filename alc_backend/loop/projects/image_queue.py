"""The queue of images that wait for their first label maps.

Images that were added to the dataset project are noted in the database, where workers claim one
after another; :mod:`alc_backend.loop.projects.initial_labels` is what they do with each. Touches
the table of arrivals; reads the list of tasks in Label Studio. Called by commands, the service and
``initial_labels``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from alc_backend.errors import NotFoundError
from alc_backend.labelstudio import projects
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import asked_about
from alc_backend.labelstudio.task_pages import LeftOut
from alc_backend.loop import leases
from alc_backend.store.database import Store
from alc_backend.store.importing import key_of_task
from alc_backend.store.incoming import Arrival
from alc_backend.store.models import TRAIN, Image, Project, Superpixel, utc_now

SHARD = 20
"""Images that one job does before more urgent jobs have their turn."""

MAX_SHARDS = 64
"""Jobs that one project puts on the queue at once."""

MAX_CLAIMS = 3
"""How often an image is tried that something fails at, or workers die at, before it is left."""

MAX_RETRIES = 20
"""How often an image is put off at most while Label Studio itself answers; more than an hour."""


@dataclass(frozen=True)
class Waiting:
    """How many images of a project wait, are being worked at (claimed), and could not be done.

    ``error`` is what keeps all of them waiting, ``problem`` names the first that could not be done,
    with the reason; each may be None.
    """

    waiting: int
    claimed: int
    failed: int
    error: str | None
    problem: str | None

    @property
    def left(self) -> int:
        """Images that are still to be done."""
        return self.waiting + self.claimed


@dataclass(frozen=True)
class Count:
    """How many images a project holds, and how many superpixels in them.

    ``hidden`` and ``empty`` count detections that were left out: those that others cover, and
    those without a mask.
    """

    images: int
    superpixels: int
    hidden: int
    empty: int


def note(store: Store, client: Client, project_id: int, *, retry: bool = False) -> tuple[int, int]:
    """Put the dataset project's images that are not in the store into the queue.

    Returns how many were added and how many are in the store already. With ``retry`` those that
    could not be done are tried again, and so is what kept all images waiting. A task that Label
    Studio does not give is one that could not be done. Raises NotFoundError for a project that is
    not in Label Studio yet, LabelStudioError.
    """
    with store.session() as session:
        project = session.get_one(Project, project_id)
        if project.dataset_project is None:
            raise NotFoundError(
                f"project {project.name!r} has no dataset project in Label Studio; run `alc init`"
            )
        if retry:
            project.warm_start_error = None
            session.execute(
                update(Arrival)
                .where(Arrival.project_id == project_id, Arrival.finished_at.is_not(None))
                .values(error=None, finished_at=None, claims=0, retries=0, retry_at=None)
            )
        known = {
            row.key: row.dataset_task
            for row in session.execute(
                select(Image.dataset_task, Image.key).where(
                    Image.project_id == project_id, Image.split == TRAIN
                )
            )
        }
        arrivals = session.scalars(select(Arrival).where(Arrival.project_id == project_id)).all()
    projects.check_there(client, project.dataset_project, projects.DATASET)
    unread = LeftOut()
    tasks = client.tasks(project.dataset_project, leave_out=unread, fields="task_only")
    found = {int(task["id"]): asked_about(task["data"]).image for task in tasks}
    found |= dict.fromkeys(unread, "")
    _forget_deleted(store, arrivals, found)
    ours, noted = set(known.values()), {arrival.dataset_task for arrival in arrivals}
    new: list[Arrival] = []
    present = 0
    for task, key in found.items():
        if task in ours or (key in known and known[key] not in found):
            present += 1
        elif task not in noted:
            new.append(Arrival(project_id=project_id, dataset_task=task))
            if task in unread:
                new[-1].error, new[-1].finished_at = str(unread[task]), utc_now()
            elif key in known:
                new[-1].error, new[-1].finished_at = twin(key, known[key]), utc_now()
    for first in range(0, len(new), 500):
        part = new[first:][:500]
        try:
            with store.session() as session:
                session.add_all(part)
        except IntegrityError:  # another process notes the same images
            return note(store, client, project_id)
    return sum(arrival.finished_at is None for arrival in new), present


def free_key(store: Store, project_id: int, task: int) -> str:
    """The key of an image whose task, say 7, gives it none: ``task-7``.

    Where another image of the project is called so, ``task-7-2``, and so on.
    """
    base = key_of_task(task)
    with store.reading() as session:
        taken = {
            row.key: row.dataset_task
            for row in session.execute(
                select(Image.key, Image.dataset_task).where(
                    Image.project_id == project_id,
                    Image.split == TRAIN,
                    Image.key.startswith(base, autoescape=True),
                )
            )
        }
    keys = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    return next(key for key in keys if taken.get(key, task) == task)


def twin(key: str, task: int | None) -> str:
    """What is wrong with a task that has the key of an image which has another ``task``."""
    return (
        f"it has the key {key!r} of task {task}, and a dataset has one image of a name; delete one "
        "of the two tasks, or give this one another `alc.image` in its data, then run `alc pseudo "
        "--retry`"
    )


def _forget_deleted(store: Store, arrivals: Sequence[Arrival], found: Collection[int]) -> None:
    """Forget images that could not be done and whose tasks are not among those that are there."""
    for arrival in arrivals:
        if arrival.finished_at is not None and arrival.dataset_task not in found:
            remove(store, arrival)


def waiting(store: Store, project_id: int) -> Waiting:
    """How many images wait for their first label maps."""
    claimed, failed = Arrival.claimed_by.is_not(None), Arrival.finished_at.is_not(None)
    with store.reading() as session:
        error = session.get_one(Project, project_id).warm_start_error
        counts = {
            (bool(taken), bool(over)): count
            for taken, over, count in session.execute(
                select(claimed, failed, func.count())
                .where(Arrival.project_id == project_id)
                .group_by(claimed, failed)
            )
        }
        first = session.scalars(_failed(project_id).limit(1)).first()
    over = counts.get((False, True), 0) + counts.get((True, True), 0)
    return Waiting(
        waiting=counts.get((False, False), 0),
        claimed=counts.get((True, False), 0),
        failed=over,
        error=error,
        problem=first and _problem(first),
    )


def count(store: Store, project_id: int) -> Count:
    """How many images have their first label maps, and what a detector found in them."""
    ours = (Image.project_id == project_id, Image.split == TRAIN)
    with store.reading() as session:
        starts = session.scalars(select(Image.warm_start).where(*ours)).all()
        superpixels = select(func.count(Superpixel.id)).join(Image).where(*ours)
        found = session.scalar(superpixels) or 0
    hidden, empty = (sum((s or {}).get(name, 0) for s in starts) for name in ("hidden", "empty"))
    return Count(len(starts), found, hidden, empty)


def problems(store: Store, project_id: int) -> list[str]:
    """A sentence for each image that could not be done, with the reason."""
    with store.reading() as session:
        return [_problem(arrival) for arrival in session.scalars(_failed(project_id))]


def _failed(project_id: int) -> Select[Any]:
    """The images that could not be done, by their tasks."""
    return (
        select(Arrival)
        .where(Arrival.project_id == project_id, Arrival.finished_at.is_not(None))
        .order_by(Arrival.dataset_task)
    )


def _problem(arrival: Arrival) -> str:
    return f"task {arrival.dataset_task}: {arrival.error}"


def cancel(store: Store, project_id: int) -> int:
    """Remove the images that wait; returns how many. Those that are claimed are still finished."""
    with store.session() as session:
        gone = session.scalars(
            delete(Arrival)
            .where(
                Arrival.project_id == project_id,
                Arrival.claimed_by.is_(None),
                Arrival.finished_at.is_(None),
            )
            .returning(Arrival.id)
        )
        return len(gone.all())


def due(store: Store) -> dict[int, int]:
    """How many images a worker could claim now, by project id."""
    ready = (
        select(Arrival)
        .join(Project, Project.id == Arrival.project_id)
        .where(Arrival.finished_at.is_(None), Project.warm_start_error.is_(None))
    )
    free = ready.where(Arrival.claimed_by.is_(None), _may_begin())
    with store.reading() as session:
        rows = session.execute(
            free.with_only_columns(Arrival.project_id, func.count()).group_by(Arrival.project_id)
        )
        counts: Counter[int] = Counter()
        for project_id, count in rows:
            counts[project_id] = count
        claimed = session.scalars(ready.where(Arrival.claimed_by.is_not(None))).all()
    counts.update(a.project_id for a in claimed if leases.is_abandoned(a, store.settings))
    return dict(counts)


def shards(count: int) -> int:
    """How many jobs to put on the queue for so many images."""
    return min(-(-count // SHARD), MAX_SHARDS)


def claim(store: Store, project_id: int) -> Arrival | None:
    """Claim the next image for this process; None when there is none to be claimed.

    An image that was tried MAX_CLAIMS times is marked as failed instead.
    """
    with store.session() as session:
        while (arrival := _free(store, session, project_id)) is not None:
            if arrival.claims < MAX_CLAIMS:
                leases.claim(arrival)
                return arrival
            arrival.claimed_by, arrival.finished_at = None, utc_now()
            arrival.error = arrival.error or (
                f"{MAX_CLAIMS} workers died at it, probably for want of memory; see their logs, or "
                "replace the image with a smaller one"
            )
            session.flush()
    return None


def _free(store: Store, session: Session, project_id: int) -> Arrival | None:
    """The next image that no living worker has claimed, locked; None when there is none."""
    left = (
        select(Arrival)
        .where(Arrival.project_id == project_id, Arrival.finished_at.is_(None))
        .order_by(Arrival.id)
        .with_for_update(skip_locked=True)
    )
    free = left.where(Arrival.claimed_by.is_(None), _may_begin())
    found = session.scalars(free.limit(1)).first()
    if found is None:
        claimed = session.scalars(left.where(Arrival.claimed_by.is_not(None)))
        found = next((a for a in claimed if leases.is_abandoned(a, store.settings)), None)
    return found


def _may_begin() -> ColumnElement[bool]:
    return Arrival.retry_at.is_(None) | (Arrival.retry_at <= utc_now())


def give_back(store: Store, arrival: Arrival) -> None:
    """Put an image off because something is away that all images need; the try does not count."""
    with store.session() as session:
        row = session.get(Arrival, arrival.id, with_for_update=True)
        if row is not None and row.claimed_by == arrival.claimed_by:
            row.claims -= 1  # nothing is wrong with it
            leases.put_off(row)


def put_off(store: Store, arrival: Arrival, reason: str) -> bool:
    """Put an image off at which something failed that may pass; whether it will be tried again.

    After MAX_CLAIMS tries it is marked as failed, with the reason.
    """
    if arrival.claims >= MAX_CLAIMS:
        fail(store, arrival, reason)
        return False
    with store.session() as session:
        row = session.get(Arrival, arrival.id, with_for_update=True)
        if row is not None and row.claimed_by == arrival.claimed_by:
            row.error = reason
            leases.put_off(row)
    return True


def forgive(store: Store, arrivals: Iterable[Arrival]) -> None:
    """Let the last try at images that were put off not count: nothing was wrong with them."""
    with store.session() as session:
        session.execute(
            update(Arrival)
            .where(
                Arrival.id.in_([arrival.id for arrival in arrivals]),
                Arrival.claimed_by.is_(None),
                Arrival.finished_at.is_(None),
            )
            .values(claims=Arrival.claims - 1)
        )


def pause(store: Store, project_id: int) -> float | None:
    """Seconds until the next of the images that were put off may be tried; None without any."""
    with store.reading() as session:
        moment = session.scalar(
            select(func.min(Arrival.retry_at)).where(
                Arrival.project_id == project_id,
                Arrival.claimed_by.is_(None),
                Arrival.finished_at.is_(None),
            )
        )
    return None if moment is None else max((moment - utc_now()).total_seconds(), 0.0)


def fail(store: Store, arrival: Arrival, reason: str) -> None:
    """Mark an image as one that could not be done, with the reason."""
    _change(store, arrival, claimed_by=None, error=reason, finished_at=utc_now())


def remove(store: Store, arrival: Arrival) -> None:
    """Remove an image from the queue: it is in the store, or gone from Label Studio."""
    with store.session() as session:
        session.execute(delete(Arrival).where(Arrival.id == arrival.id))


def _change(store: Store, arrival: Arrival, **values: Any) -> None:
    """Change the row of an image, unless another worker has claimed it meanwhile."""
    with store.session() as session:
        session.execute(
            update(Arrival)
            .where(Arrival.id == arrival.id, Arrival.claimed_by == arrival.claimed_by)
            .values(**values)
        )
