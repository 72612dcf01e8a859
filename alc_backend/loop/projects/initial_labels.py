"""First label maps for images that wait in the queue, made one after another by a worker.

An image that cannot be done is marked with the reason, and the others go on. Reads Label Studio
(tasks, label config, images); runs the foundation models where an image has no masks there; writes
images, label maps and superpixel maps into the store. Called by the service's jobs and by
``alc pseudo --here``.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlparse

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, OperationalError

from alc_backend.common.types import Json
from alc_backend.datasets.classes import checked_classes
from alc_backend.datasets.dataset import Sample
from alc_backend.datasets.images import IMAGE_SUFFIXES, read_image
from alc_backend.datasets.names import checked_key
from alc_backend.errors import (
    AlcError,
    DatasetError,
    LabelStudioAwayError,
    LabelStudioError,
    StorageError,
)
from alc_backend.foundation.warm_start import Warmer, WarmStart
from alc_backend.labelstudio.annotation import ANNOTATIONS, newest, parse
from alc_backend.labelstudio.client import Client, is_outage
from alc_backend.labelstudio.dataset_config import read_dataset_config
from alc_backend.labelstudio.images import fetch
from alc_backend.labelstudio.query import asked_about
from alc_backend.labelstudio.regions import painted
from alc_backend.loop import leases
from alc_backend.loop.projects import classes, image_queue
from alc_backend.store.database import Store
from alc_backend.store.importing import add_sample
from alc_backend.store.incoming import Arrival
from alc_backend.store.models import TRAIN, Image, Project

log = logging.getLogger(__name__)

Progress = Callable[[int, str], object]
"""Called with the images done so far and the name of the last one."""


OUTAGE = 3
"""If so many images one after another cannot be reached, something is away, not an image."""


@dataclass
class Done:
    """What one run did: how many images it labelled, with how many superpixels.

    ``hidden`` and ``empty`` count detections that were left out; ``problems`` names each image that
    could not be done, with the reason.
    """

    labelled: int = 0
    superpixels: int = 0
    hidden: int = 0
    empty: int = 0
    problems: list[str] = field(default_factory=list)


def work(
    store: Store,
    client: Client,
    project_id: int,
    *,
    limit: int | None = image_queue.SHARD,
    progress: Progress = lambda done, name: None,
    sleep: Callable[[float], None] | None = None,
) -> Done:
    """Make the first label maps of images that wait, ``limit`` at most; returns what was done.

    What keeps every image from being done (models that cannot be loaded, a label config that
    cannot be read) is written down as the project's ``warm_start_error`` and raised as AlcError.
    While Label Studio, the storage or the database is away, or the token is refused, the image at
    hand is put off and the error is raised. Where it is one image that cannot be had, that image is
    put off, and left after some tries; the others go on. ``sleep`` waits, for seconds, until images
    that were put off may be tried again; without it they are left to a later call.
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
            arrival = image_queue.claim(store, project_id)
            if arrival is None:
                pause = image_queue.pause(store, project_id) if sleep else None
                if sleep is None or pause is None:
                    break
                sleep(pause)
                continue
            maker.attempt(arrival, Path(folder), done)
            progress(done.labelled + len(done.problems), f"task {arrival.dataset_task}")
    return done


@dataclass(frozen=True)
class _FirstMaps:
    """The first label map uint8 and superpixel map int32 of an image, both (H, W).

    ``found`` tells what a detector said of each superpixel number, ``origin`` how the models were
    set (None where the task had masks).
    """

    labels: NDArray[np.uint8]
    superpixels: NDArray[np.int32]
    found: dict[int, Json] = field(default_factory=dict)
    origin: Json | None = None
    hidden: int = 0
    empty: int = 0


class _Maker:
    """Brings one image after another from Label Studio into the store."""

    def __init__(self, store: Store, client: Client, project_id: int) -> None:
        self._store, self._client = store, client
        self._unreached: dict[int, Arrival] = {}
        self._hosts = store.settings.trusted_hosts
        with store.reading() as session:
            project = session.get_one(Project, project_id)
        config = client.get(f"/api/projects/{project.dataset_project}")["label_config"]
        self._tags = read_dataset_config(config)
        source = f"the label config of Label Studio project {project.dataset_project}"
        checked_classes(self._tags.classes, source)
        classes.refuse_missing(project, self._tags)
        self._tags = self._tags.knowing(project.renamed)
        self._project = project
        self._warmer = Warmer(
            WarmStart.of(project.warm_start), project.classes, store.settings, self._tags.prompts
        )

    def attempt(self, arrival: Arrival, folder: Path, done: Done) -> None:
        """Make one image's first label map; put it off, or mark it as failed, where that fails.

        Raises what keeps all images from being done, and gives the image back.
        """
        try:
            with leases.Heartbeat(self._store, arrival):
                self._make(arrival, folder, done)
        except (StorageError, OperationalError):
            image_queue.give_back(self._store, arrival)
            raise
        except LabelStudioError as error:
            self._not_had(arrival, error, done)
        except Exception as error:
            if not isinstance(error, (AlcError, ValueError)):
                log.exception("task %s", arrival.dataset_task)
                error = RuntimeError(f"{type(error).__name__}: {error}; see the worker's log")
            self._fail(arrival, error, done)
        else:
            self._unreached.clear()

    def _not_had(self, arrival: Arrival, error: LabelStudioError, done: Done) -> None:
        """Put an image off that could not be fetched, or mark it as failed; raise in an outage."""
        if is_outage(error) and not (self._is_there() and self._is_only(arrival, error)):
            self._unreached.pop(arrival.id, None)
            image_queue.forgive(self._store, self._unreached.values())
            image_queue.give_back(self._store, arrival)
            raise error
        if not isinstance(error, LabelStudioAwayError):
            self._fail(arrival, error, done)
        elif not image_queue.put_off(self._store, arrival, str(error)):
            done.problems.append(_problem(arrival, error))

    def _is_only(self, arrival: Arrival, error: LabelStudioError) -> bool:
        """Whether what cannot be reached is one image, as far as the ones before it tell."""
        if isinstance(error, LabelStudioAwayError):
            self._unreached[arrival.id] = arrival
        return len(self._unreached) < OUTAGE or arrival.retries >= image_queue.MAX_RETRIES

    def _fail(self, arrival: Arrival, error: Exception, done: Done) -> None:
        image_queue.fail(self._store, arrival, str(error))
        done.problems.append(_problem(arrival, error))

    def _is_there(self) -> bool:
        """Whether Label Studio answers at all."""
        try:
            self._client.get(f"/api/projects/{self._project.dataset_project}", include="title")
        except LabelStudioError:
            return False
        return True

    def _make(self, arrival: Arrival, folder: Path, done: Done) -> None:
        """Make one image's first label map; raises AlcError or ValueError when that fails."""
        task = self._task(arrival)
        if task is None:
            image_queue.remove(self._store, arrival)
            return
        url = str(task["data"].get(self._tags.image_field, ""))
        path = folder / f"image{_suffix(url)}"
        with path.open("wb") as target:
            fetch(self._client, url, target, self._hosts)
        image = read_image(path)
        kind, shown = newest(task)
        made = self._maps(image, list(shown["result"]) if shown else [])
        begun = parse(shown, arrival.dataset_task) if shown and kind == ANNOTATIONS else None
        height, width = made.labels.shape
        key = _given_key(task) or image_queue.free_key(
            self._store, self._project.id, arrival.dataset_task
        )
        try:
            added = add_sample(
                self._store,
                self._project.id,
                TRAIN,
                Sample(key, path, height, width, made.labels, made.superpixels, None),
                url=url,
                task=arrival.dataset_task,
                annotation_id=begun.annotation_id if begun else None,
                annotated_at=begun.updated_at if begun else None,
                found=made.found,
                warm_start=made.origin,
            )
        except IntegrityError:  # another worker, which took this one for dead, was faster
            added = None
        if added is None:
            self._refuse_twin(arrival, key)
        image_queue.remove(self._store, arrival)
        done.labelled += added is not None
        done.superpixels += added or 0
        done.hidden += made.hidden
        done.empty += made.empty

    def _refuse_twin(self, arrival: Arrival, key: str) -> None:
        """Raise DatasetError when the image of a key is that of another task."""
        with self._store.reading() as session:
            there = session.scalar(
                select(Image.dataset_task).where(
                    Image.project_id == self._project.id, Image.split == TRAIN, Image.key == key
                )
            )
        if there not in (None, arrival.dataset_task):
            raise DatasetError(image_queue.twin(key, there))

    def _maps(self, image: NDArray[np.uint8], regions: list[Json]) -> _FirstMaps:
        """The maps of an image: painted from the regions of its task, or made by the models."""
        shape = (image.shape[0], image.shape[1])
        masks = self._tags.masks(regions)
        maps = painted(masks, self._project.classes, shape, self._warmer.uncovered)
        if maps is None:
            first = self._warmer.from_image(image)
            return _FirstMaps(
                first.labels,
                first.superpixels,
                {number: asdict(thing) for number, thing in first.found.items()},
                self._warmer.start.as_dict() | {"hidden": first.hidden, "empty": first.empty},
                first.hidden,
                first.empty,
            )
        return _FirstMaps(maps[0], self._warmer.from_masks(image, *maps))

    def _task(self, arrival: Arrival) -> Json | None:
        """The task with its annotations and predictions; None when it was deleted meanwhile."""
        task: Json | None = self._client.get_or_none(f"/api/tasks/{arrival.dataset_task}")
        return task


def _problem(arrival: Arrival, error: Exception) -> str:
    return f"task {arrival.dataset_task}: {error}"


def _given_key(task: Json) -> str | None:
    """The image key that an upload by us put into the task; None where there is none."""
    try:
        return checked_key(asked_about(task["data"]).image)
    except DatasetError:
        return None


def _suffix(url: str) -> str:
    """The file ending of an image's address, ``.jpg`` when it shows none."""
    parts = urlparse(url)
    names = [parts.path, *parse_qs(parts.query).get("d", [])]
    for name in names:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            return suffix
    return ".jpg"
