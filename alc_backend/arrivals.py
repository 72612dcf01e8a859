"""Pictures of the dataset project on their way into the store: their first label maps.

What arrives is noted in the database. Workers take up one picture after another; a picture that
cannot be done is left with its reason, and the others go on.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlparse

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from alc_backend import claims
from alc_backend.datasets.dataset import Sample, checked_classes
from alc_backend.datasets.images import IMAGE_SUFFIXES, read_image
from alc_backend.datasets.names import checked_name
from alc_backend.errors import (
    AlcError,
    DatasetError,
    LabelStudioAwayError,
    LabelStudioError,
    StorageError,
)
from alc_backend.foundation.warm_start import Warmer, WarmStart
from alc_backend.labelstudio import projects
from alc_backend.labelstudio.annotation import parse
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import asked_about
from alc_backend.labelstudio.regions import painted
from alc_backend.store.database import Store
from alc_backend.store.importing import add_sample
from alc_backend.store.models import TRAIN, Arrival, Image, Project, utc_now

log = logging.getLogger(__name__)

Json = dict[str, Any]
Progress = Callable[[int, str], None]
"""Called with the pictures done so far and the name of the last one."""

SHARD = 20
"""Pictures that one job does before more urgent jobs have their turn."""

MAX_SHARDS = 64
"""Jobs that one project puts on the queue at once."""

MAX_CLAIMS = 3
"""How many workers may die at a picture before it is left."""

RETRY_S = 30

ANNOTATIONS = "annotations"


@dataclass(frozen=True)
class Waiting:
    """How many pictures of a project wait, are worked at, and could not be done; by reason."""

    waiting: int
    claimed: int
    failed: int
    error: str | None

    @property
    def left(self) -> int:
        """Pictures that are still to be done."""
        return self.waiting + self.claimed


@dataclass
class Done:
    """What one run did; ``problems`` names each picture that could not be done, with the reason."""

    labelled: int = 0
    superpixels: int = 0
    hidden: int = 0
    empty: int = 0
    problems: list[str] = field(default_factory=list)


def note(store: Store, client: Client, project_id: int, *, retry: bool = False) -> tuple[int, int]:
    """Note the dataset project's pictures that are not in the store, and how many there are.

    Returns how many were noted and how many are in the store already. With ``retry`` those that
    could not be done are to be tried again, and so is what kept all pictures waiting.
    """
    with store.session() as session:
        project = session.get_one(Project, project_id)
        if retry:
            project.warm_start_error = None
            session.execute(
                update(Arrival)
                .where(Arrival.project_id == project_id, Arrival.finished_at.is_not(None))
                .values(error=None, finished_at=None, claims=0, retry_at=None)
            )
        known = session.execute(
            select(Image.dataset_task, Image.key).where(
                Image.project_id == project_id, Image.split == TRAIN
            )
        ).all()
        noted = set(
            session.scalars(select(Arrival.dataset_task).where(Arrival.project_id == project_id))
        )
    tasks, keys = {task for task, _ in known}, {key for _, key in known}
    assert project.dataset_project is not None
    new: list[int] = []
    present = 0
    for task in client.tasks(project.dataset_project, fields="task_only"):
        if task["id"] in tasks or asked_about(task["data"]).image in keys:
            present += 1
        elif task["id"] not in noted:
            new.append(int(task["id"]))
    for first in range(0, len(new), 500):
        part = [Arrival(project_id=project_id, dataset_task=task) for task in new[first:][:500]]
        try:
            with store.session() as session:
                session.add_all(part)
        except IntegrityError:  # somebody else notes the same
            return note(store, client, project_id)
    return len(new), present


def waiting(store: Store, project_id: int) -> Waiting:
    """How many pictures wait for their first label maps."""
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
    over = counts.get((False, True), 0) + counts.get((True, True), 0)
    return Waiting(counts.get((False, False), 0), counts.get((True, False), 0), over, error)


def problems(store: Store, project_id: int) -> list[str]:
    """The pictures that could not be done, each with the reason."""
    with store.reading() as session:
        left = session.scalars(
            select(Arrival)
            .where(Arrival.project_id == project_id, Arrival.finished_at.is_not(None))
            .order_by(Arrival.dataset_task)
        ).all()
    return [f"task {arrival.dataset_task}: {arrival.error}" for arrival in left]


def cancel(store: Store, project_id: int) -> int:
    """Forget the pictures that wait; how many. Those that a worker has are finished."""
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
    """Pictures that a worker could take up now, by project."""
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
    counts.update(a.project_id for a in claimed if claims.is_dead(a, store.settings))
    return dict(counts)


def shards(count: int) -> int:
    """How many jobs to queue for so many pictures."""
    return min(-(-count // SHARD), MAX_SHARDS)


def work(
    store: Store,
    client: Client,
    project_id: int,
    *,
    limit: int | None = SHARD,
    progress: Progress = lambda done, name: None,
) -> Done:
    """Make the first label maps of pictures that wait, ``limit`` at most.

    What keeps every picture from being done (models that cannot be loaded, a label config that
    cannot be read) is kept as the project's ``warm_start_error`` and raised as AlcError. While
    Label Studio, the storage or the database is away, the picture at hand goes back and the error
    is raised.
    """
    done = Done()
    try:
        maker = _Maker(store, client, project_id)
    except (LabelStudioAwayError, StorageError, OperationalError):
        raise
    except AlcError as error:
        with store.session() as session:
            session.get_one(Project, project_id).warm_start_error = str(error)
        raise
    with tempfile.TemporaryDirectory(prefix="alc-arrivals-") as folder:
        while limit is None or done.labelled + len(done.problems) < limit:
            arrival = _claim(store, project_id)
            if arrival is None:
                break
            try:
                with claims.Heartbeat(store, arrival):
                    maker.make(arrival, Path(folder), done)
            except (LabelStudioAwayError, StorageError, OperationalError):
                _give_back(store, arrival)
                raise
            except Exception as error:
                if not isinstance(error, (AlcError, ValueError)):
                    log.exception("task %s", arrival.dataset_task)
                    error = RuntimeError(f"{type(error).__name__}: {error}; see the worker's log")
                _fail(store, arrival, str(error))
                done.problems.append(f"task {arrival.dataset_task}: {error}")
            progress(done.labelled + len(done.problems), f"task {arrival.dataset_task}")
    return done


class _Maker:
    """Brings one picture after another from Label Studio into the store."""

    def __init__(self, store: Store, client: Client, project_id: int) -> None:
        self._store, self._client = store, client
        with store.reading() as session:
            project = session.get_one(Project, project_id)
        config = client.get(f"/api/projects/{project.dataset_project}")["label_config"]
        self._tags = projects.read_dataset_config(config)
        source = f"the label config of Label Studio project {project.dataset_project}"
        if checked_classes(self._tags.classes, source) != project.classes:
            raise DatasetError(
                f"{source} was imported with the classes {', '.join(project.classes)} and now has "
                f"{', '.join(self._tags.classes)}; restore them there, or import into a new project"
            )
        self._project = project
        self._warmer = Warmer(
            WarmStart.of(project.warm_start), project.classes, store.settings, self._tags.prompts
        )

    def make(self, arrival: Arrival, folder: Path, done: Done) -> None:
        """One picture; raises AlcError or ValueError when it cannot be done."""
        task = self._task(arrival)
        if task is None:
            _remove(self._store, arrival)
            return
        url = str(task["data"].get(self._tags.image_field, ""))
        path = folder / f"picture{_suffix(url)}"
        path.write_bytes(self._client.download(url))
        image = read_image(path)
        shape = (image.shape[0], image.shape[1])
        kind, newest = _newest(task)
        maps = painted(
            list(newest["result"]) if newest else [], self._project.classes, self._warmer.uncovered
        )
        found: dict[int, Json] = {}
        origin: Json | None = None
        if maps is None:
            first = self._warmer.from_picture(image)
            labels, superpixels = first.labels, first.superpixels
            found = {number: asdict(thing) for number, thing in first.found.items()}
            counts = {"hidden": first.hidden, "empty": first.empty}
            origin = self._warmer.start.as_dict() | counts
            done.hidden, done.empty = done.hidden + first.hidden, done.empty + first.empty
        elif maps[0].shape != shape:
            raise DatasetError(
                f"its regions are for {maps[0].shape[1]}×{maps[0].shape[0]} pixels, the picture "
                f"has {shape[1]}×{shape[0]}; import the picture again"
            )
        else:
            labels, superpixels = maps[0], self._warmer.from_masks(image, *maps)
        begun = parse(newest, arrival.dataset_task) if newest and kind == ANNOTATIONS else None
        try:
            added = add_sample(
                self._store,
                self._project.id,
                TRAIN,
                Sample(_key(task), path, *shape, labels, superpixels, None),
                url=url,
                task=arrival.dataset_task,
                annotation=begun,
                found=found,
                warm_start=origin,
            )
        except IntegrityError:  # another worker, which took this one for dead, was faster
            added = None
        _remove(self._store, arrival)
        done.labelled += added is not None
        done.superpixels += added or 0

    def _task(self, arrival: Arrival) -> Json | None:
        """The task with its annotations and predictions; None when it was deleted meanwhile."""
        try:
            task: Json = self._client.get(f"/api/tasks/{arrival.dataset_task}")
        except LabelStudioError as error:
            if error.status == 404:
                return None
            raise
        return task


def _claim(store: Store, project_id: int) -> Arrival | None:
    """Take up the next picture that is free; those that workers died at too often have failed."""
    with store.session() as session:
        while (arrival := _free(store, session, project_id)) is not None:
            if arrival.claims < MAX_CLAIMS:
                claims.take(arrival)
                return arrival
            arrival.claimed_by, arrival.finished_at = None, utc_now()
            arrival.error = (
                f"{MAX_CLAIMS} workers died at it, probably for want of memory; see their logs, or "
                "replace the picture with a smaller one"
            )
            session.flush()
    return None


def _free(store: Store, session: Session, project_id: int) -> Arrival | None:
    """The next picture that nobody has, or whose worker has died, locked."""
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
        found = next((a for a in claimed if claims.is_dead(a, store.settings)), None)
    return found


def _may_begin() -> ColumnElement[bool]:
    return Arrival.retry_at.is_(None) | (Arrival.retry_at <= utc_now())


def _give_back(store: Store, arrival: Arrival) -> None:
    later = utc_now() + timedelta(seconds=RETRY_S)
    _change(store, arrival, claimed_by=None, claims=Arrival.claims - 1, retry_at=later)


def _fail(store: Store, arrival: Arrival, reason: str) -> None:
    _change(store, arrival, claimed_by=None, error=reason, finished_at=utc_now())


def _remove(store: Store, arrival: Arrival) -> None:
    with store.session() as session:
        session.execute(delete(Arrival).where(Arrival.id == arrival.id))


def _change(store: Store, arrival: Arrival, **values: Any) -> None:
    """Change an arrival that this worker still has."""
    with store.session() as session:
        session.execute(
            update(Arrival)
            .where(Arrival.id == arrival.id, Arrival.claimed_by == arrival.claimed_by)
            .values(**values)
        )


def _key(task: Json) -> str:
    """The image key: that of a picture that we uploaded, else the task's number."""
    try:
        return checked_name(asked_about(task["data"]).image, "the task's data")
    except DatasetError:
        return f"task-{task['id']}"


def _newest(task: Mapping[str, Any]) -> tuple[str, Json | None]:
    """A task's newest annotation with regions, else such a prediction; which of them it is."""
    for kind in (ANNOTATIONS, "predictions"):
        records: Sequence[Json] = [
            item
            for item in task.get(kind, [])
            if item.get("result") and not item.get("was_cancelled")
        ]
        if records:
            return kind, max(records, key=lambda item: str(item["created_at"]))
    return "", None


def _suffix(url: str) -> str:
    """The file ending of a picture's address, ``.jpg`` when it shows none."""
    parts = urlparse(url)
    names = [parts.path, *parse_qs(parts.query).get("d", [])]
    for name in names:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            return suffix
    return ".jpg"
