"""The hook class, with the methods and signatures of label-studio-ml's ``LabelStudioMLBase``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.common.types import Json
from alc_backend.errors import LabelStudioError, NotFoundError
from alc_backend.labelstudio import model_version, query
from alc_backend.labelstudio.dataset_config import ShownWith, read_dataset_config
from alc_backend.labelstudio.projects import WEBHOOK_ACTIONS
from alc_backend.loop import query_tasks
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.rounds import lifecycle
from alc_backend.service.jobs.queues import Jobs
from alc_backend.service.web.masks import ShownMasks
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Image, Query, Round, Superpixel
from alc_backend.store.round_states import RoundState

log = logging.getLogger(__name__)

START_TRAINING = "START_TRAINING"

ASKED_AT_ONCE = 500
"""The most tasks that one database query looks up."""

NO_VERSION = model_version.of_round(0)
"""The model version before the first round is published."""


class ALCModel:
    """Answers Label Studio's requests about one of its projects.

    ``label_studio_project`` is the id, in Label Studio, of a dataset project or a query project.
    """

    def __init__(
        self, store: Store, jobs: Jobs, letterbox: webhooks.Letterbox, label_studio_project: int
    ) -> None:
        self._store, self._jobs, self._letterbox = store, jobs, letterbox
        self.label_studio_project = label_studio_project
        self._project = store.project_of(label_studio_project)
        self._version: str | None = None

    @property
    def model_version(self) -> str:
        """The version of the last published round, as it was when this object first read it."""
        if self._project is None:
            return NO_VERSION
        if self._version is None:
            with self._store.reading() as session:
                self._version = _model_version(session, self._project.id)
        return self._version

    def setup(self, label_config: str = "") -> Json:
        """The answer to /setup: the model version, and what is missing in the label config.

        For a project that was connected in Label Studio and is unknown here, a worker makes one.
        """
        answer: Json = {"model_version": self.model_version}
        if self._project is None and label_config:
            try:
                read_dataset_config(label_config)
            except LabelStudioError as error:
                answer["message"] = str(error)
                log.warning("project %s: %s", self.label_studio_project, error)
            else:
                self._jobs.enqueue_take_up(self.label_studio_project)
        return answer

    def predict(
        self, tasks: Sequence[Json], context: Json | None = None, **kwargs: Any
    ) -> list[Json | list[Json]]:
        """One prediction for each task, in their order, read from the store.

        A query task gets its query, a dataset task the current masks as regions. An image
        that is new is queued for its first label map. It gets an empty list, as does a query task
        that is not known: then Label Studio keeps no prediction and asks again, whereas it would
        keep an empty one for ever, and serve its task first. All is read in one session. What the
        project's ``label_config`` has no label for is not shown.
        """
        del context  # the answer does not depend on it
        if self._project is None:
            return [[] for _ in tasks]
        with self._store.reading() as session:
            if self.label_studio_project == self._project.query_project:
                self._version = _model_version(session, self._project.id)
                return self._queries(session, tasks)
            asked = self._images(session, tasks)
            ids = [image.id for image in asked.values()]
            scores = _task_scores(session, ids)
            maps = LabelMaps(
                session, self._store.files(self._project.id), self._project.id, images=ids
            )
            detected = _detection_scores(session, ids)
            version = self._version = _model_version(session, self._project.id)
        tag = self._shown_with(str(kwargs.get("label_config") or ""))
        shown = ShownMasks(self._store, self._project, tag)
        answers: list[Json | list[Json]] = []
        for task in tasks:
            image = asked.get(_number(task))
            regions = None
            if image is not None:
                regions = shown.regions(maps, image, detected.get(image.id, {}))
            if image is None or regions is None:
                answers.append([])
                continue
            score = scores.get(image.id, 1.0)
            answers.append({"result": regions, "score": score, "model_version": version})
        if any(_number(task) not in asked for task in tasks):
            self._jobs.enqueue_import(self._project.id)
        return answers

    def fit(self, event: str, data: Json, **kwargs: Any) -> Json:
        """Record an event; training is left to the workers.

        Answers go into the inbox; ``event`` is their number there. START_TRAINING starts a round,
        unless one is running; ``job`` names it. Raises ValueError for a payload that does not have
        Label Studio's form, NotFoundError when START_TRAINING names an unknown project.
        """
        del kwargs
        if event == START_TRAINING:
            if self._project is None:
                raise NotFoundError(
                    f"Label Studio project {self.label_studio_project} is not connected to a "
                    "dataset; run `alc init`"
                )
            round_, started = lifecycle.start(
                self._store, self._jobs.enqueue_part, self._project.id
            )
            return {"job": f"round-{round_.id}", "round": round_.number, "started": started}
        if event not in WEBHOOK_ACTIONS or self._project is None:
            return {"ignored": event}
        return {"event": self._letterbox.receive(self._project.id, event, data)}

    def _shown_with(self, label_config: str) -> ShownWith:
        """The tag that shows masks in the dataset project: one of ALC_REGIONS where there is one.

        Where the config cannot be read, it is the brush that the project had, with all classes.
        """
        assert self._project is not None
        brush, classes = self._project.brush_name, self._project.classes
        try:
            tags = read_dataset_config(label_config)
        except LabelStudioError:
            return ShownWith("brush", brush, classes if brush else [])
        return tags.shown_with(self._store.settings.regions) or ShownWith("brush", brush, [])

    def _queries(self, session: Session, tasks: Sequence[Json]) -> list[Json | list[Json]]:
        assert self._project is not None
        found: dict[int | None, tuple[Row[Any], query.QueryContent]] = {}
        numbers = _numbers(tasks)
        for first in range(0, len(numbers), ASKED_AT_ONCE):
            part = numbers[first : first + ASKED_AT_ONCE]
            for entry, content in query_tasks.contents(
                session, self._project, Query.task_id.in_(part)
            ):
                found[entry.task_id] = entry, content
        lengths = {
            round_id: last + 1
            for round_id, last in session.execute(
                select(Query.round_id, func.max(Query.rank))
                .where(Query.round_id.in_({entry.round_id for entry, _ in found.values()}))
                .group_by(Query.round_id)
            )
        }
        return [
            {
                "result": query.prediction(found[number][1]),
                "score": max(found[number][0].rank, 0) / lengths[found[number][0].round_id],
                "model_version": model_version.of_round(found[number][0].round_number),
            }
            if (number := _number(task)) in found
            else []
            for task in tasks
        ]

    def _images(self, session: Session, tasks: Sequence[Json]) -> dict[int | None, Image]:
        """The images of dataset tasks, by the tasks' numbers."""
        assert self._project is not None
        numbers = _numbers(tasks)
        found: dict[int | None, Image] = {}
        for first in range(0, len(numbers), ASKED_AT_ONCE):
            part = numbers[first : first + ASKED_AT_ONCE]
            for image in session.scalars(
                select(Image).where(
                    Image.project_id == self._project.id, Image.dataset_task.in_(part)
                )
            ):
                found[image.dataset_task] = image
        return found


def _task_scores(session: Session, images: Sequence[int]) -> dict[int, float]:
    """A score in (0, 1) for each image (row id) with open queries; the most urgent has the lowest.

    It follows from the best of the image's queries alone: other images need not be looked at.
    """
    found: dict[int, float] = {}
    for part in batched(images, ASKED_AT_ONCE):
        rows = session.execute(
            select(Superpixel.image_id, func.max(Query.score).label("best"))
            .join(Query, Query.superpixel_id == Superpixel.id)
            .where(Superpixel.image_id.in_(part), Query.closed_at.is_(None))
            .group_by(Superpixel.image_id)
        )
        found.update((row.image_id, 0.5 - 0.5 * row.best / (1 + abs(row.best))) for row in rows)
    return found


def _model_version(session: Session, project_id: int) -> str:
    """The version of a project's last published round."""
    number = session.scalar(
        select(func.max(Round.number)).where(
            Round.project_id == project_id,
            Round.state.in_((RoundState.OPEN, RoundState.CLOSED)),
        )
    )
    return model_version.of_round(number) if number else NO_VERSION


def _detection_scores(session: Session, images: Sequence[int]) -> dict[int, dict[int, float]]:
    """The detector's scores of superpixels, by image (row id) and number."""
    found: dict[int, dict[int, float]] = {}
    for first in range(0, len(images), ASKED_AT_ONCE):
        part = images[first : first + ASKED_AT_ONCE]
        for row in session.execute(
            select(Superpixel.image_id, Superpixel.number, Superpixel.found).where(
                Superpixel.image_id.in_(part), Superpixel.found.is_not(None)
            )
        ):
            found.setdefault(row.image_id, {})[row.number] = float(row.found["score"])
    return found


def _numbers(tasks: Sequence[Json]) -> list[int]:
    """The numbers of the tasks, ascending; tasks without a valid one are left out."""
    return sorted({number for task in tasks if (number := _number(task)) is not None})


def _number(task: Json) -> int | None:
    """A task's number; None where it is not an integer that the database can hold."""
    number = task.get("id")
    return number if type(number) is int and 0 < number < 2**63 else None
