"""What query tasks have asked, read back from Label Studio for a store that lost it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json
from alc_backend.labelstudio import model_version, page, query
from alc_backend.labelstudio.annotation import chosen, round_of
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.task_pages import LeftOut
from alc_backend.labelstudio.times import read_time

log = logging.getLogger(__name__)

BOX_TOLERANCE = 0.01
"""By how much a box may differ from the superpixel's, in per cent of the image."""


@dataclass(frozen=True)
class Question:
    """What a task asked in one round: about the pixel (``row``, ``col``) and a pseudo label.

    ``size`` is the image's (height, width), ``at`` when the question was first there, ``epsilon``
    the round's similarity threshold.
    """

    row: int
    col: int
    size: tuple[int, int]
    pseudo_label: int
    at: datetime
    epsilon: float


@dataclass(frozen=True)
class QueryTask:
    """A query task: what it is about, and what it asked in each round (by the round's number).

    ``marks`` are the box and the outlines that its latest prediction shows, ``rank`` is that
    prediction's score, ``queue`` the round (number) whose queue it puts the task into: a later one
    than the question's, when it was asked again; None when it does not tell. ``closed``: Label
    Studio serves the task to nobody, though nobody has answered it.
    """

    task_id: int
    key: query.Key
    questions: dict[int, Question]
    digest: str
    closed: bool
    rank: float = 0.0
    queue: int | None = None
    marks: list[Json] = field(default_factory=list, repr=False)

    @property
    def latest(self) -> int:
        """The number of the last round that chose its pixel; ValueError when none did."""
        return max(self.questions)

    @property
    def epsilon(self) -> float:
        """The largest similarity threshold ε of the rounds that asked it, 0.0 when none did."""
        return max((question.epsilon for question in self.questions.values()), default=0.0)

    def fits(self, superpixels: NDArray[np.int32]) -> bool:
        """Whether its stars, box and outlines show its superpixel of this map, int32 (H, W)."""
        mask = superpixels == self.key.superpixel
        stars = all(
            question.size == mask.shape and mask[question.row, question.col]
            for question in self.questions.values()
        )
        return stars and bool(mask.any()) and _shows(self.marks, mask)


@dataclass(frozen=True)
class PageTask:
    """A task that asks a page of look-alikes: what it shows, and when it was first there.

    ``closed`` is that of a :class:`QueryTask`.
    """

    task_id: int
    content: page.PageContent
    at: datetime
    closed: bool


class AskedTasks(NamedTuple):
    """What the tasks of a query project asked: one by one, and as pages."""

    queries: list[QueryTask]
    pages: list[PageTask]


def read_query_tasks(client: Client, project: int, classes: Mapping[str, int]) -> AskedTasks:
    """What each task of a query project asked, as its predictions and annotations show it.

    ``classes`` are the ids of classes by all names that they may have there.
    A task has no questions when no prediction or annotation of it has a star. Rounds after the
    last one of any prediction do not count: annotations hold what an annotator's browser sent.
    Tasks that Label Studio does not give, and pages that cannot be read, are left out, and logged;
    so are, silently, pages that were never asked: without a prediction and an annotation.
    """
    found = AskedTasks([], [])
    published = 0
    for record in client.tasks(project, leave_out=LeftOut()):
        rounds = [round_of(prediction.get("result")) or 0 for prediction in record["predictions"]]
        published = max(published, *rounds, 0)
        if not query.asked_about(record["data"]).page:
            found.queries.append(_query_task(record, classes))
        elif asked := _page_task(record, classes):
            found.pages.append(asked)
    if not published:  # somebody has removed all predictions
        return found
    told = [
        replace(
            task,
            questions={n: question for n, question in task.questions.items() if n <= published},
        )
        for task in found.queries
    ]
    return found._replace(queries=told)


def _page_task(task: Json, classes: Mapping[str, int]) -> PageTask | None:
    """The page that a task asks; None for one that cannot be read, or was never asked."""
    try:
        content = page.described(task["data"], classes)
    except ValueError as error:
        log.warning("task %s: %s; left out", task["id"], error)
        return None
    moments = [
        read_time(record["created_at"]) for record in (*task["predictions"], *task["annotations"])
    ]
    if content is None or not moments:
        return None
    return PageTask(int(task["id"]), content, min(moments), _is_closed(task))


def _is_closed(task: Json) -> bool:
    """Whether Label Studio serves a task to nobody, though nobody has answered it."""
    return bool(task.get("is_labeled")) and not task["annotations"]


def _query_task(task: Json, classes: Mapping[str, int]) -> QueryTask:
    latest: Json = max(task["predictions"], key=lambda p: int(p["id"]), default={})
    return QueryTask(
        task_id=int(task["id"]),
        key=query.asked_about(task["data"]),
        questions=_questions(task, classes),
        digest=query.digest(task["data"]),
        closed=_is_closed(task),
        rank=float(latest.get("score") or 0.0),
        queue=model_version.round_number(latest.get("model_version")),
        marks=_marks(latest.get("result")),
    )


def _questions(task: Json, classes: Mapping[str, int]) -> dict[int, Question]:
    """The question of each round, by its number."""
    choices = task["data"].get("choices") or [{}]
    asked = str(choices[0].get("value")) if isinstance(choices[0], dict) else ""
    preselected: dict[int, str] = {}
    seen: dict[int, tuple[tuple[int, int], tuple[int, int], datetime]] = {}
    epsilon: dict[int, float] = {}
    for record in (*task["predictions"], *task["annotations"]):
        result = record.get("result") or []
        number, size = round_of(result), query.size_shown(result)
        pixel = None if size is None else query.starred(result, *size)
        if not number or size is None or pixel is None:
            continue
        at = read_time(record["created_at"])
        if number not in seen or at < seen[number][2]:
            seen[number] = pixel, size, at
        epsilon[number] = max(epsilon.get(number, 0.0), query.epsilon_of(result))
        if "model_version" in record:  # a prediction: its choice is the pseudo label
            preselected[number] = str(chosen(result))
    return {
        number: Question(*pixel, size, classes[name], at, epsilon[number])
        for number, (pixel, size, at) in seen.items()
        if (name := preselected.get(number, asked)) in classes
    }


def _marks(result: Any) -> list[Json]:
    """The box and the outlines among a prediction's regions, their ``value`` each."""
    regions = result if isinstance(result, list) and round_of(result) else []
    return [
        item["value"]
        for item in regions
        if isinstance(item, dict)
        and item.get("from_name") in ("box", "outline")
        and isinstance(item.get("value"), dict)
    ]


def _shows(marks: Sequence[Json], mask: NDArray[np.bool_]) -> bool:
    """Whether boxes are that of ``mask``, bool (H, W), and corners of outlines lie on its border.

    Marks that cannot be read are no sign of another superpixel.
    """
    own = query.box_of(mask)
    padded = np.pad(mask, 2)
    beside = np.arange(4)
    for mark in marks:
        box = [mark.get(name) for name in own]
        if all(isinstance(value, int | float) for value in box) and not np.allclose(
            np.array(box, dtype=np.float64), [*own.values()], rtol=0, atol=BOX_TOLERANCE
        ):
            return False
        try:
            corners = np.asarray(mark.get("points"), dtype=np.float64)
        except (TypeError, ValueError):
            continue
        if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
            continue
        pixels = np.clip(corners, 0, 100) / 100 * mask.shape[::-1]
        x, y = np.rint(pixels).astype(np.intp).T[:, :, None, None]
        around = padded[y + beside[:, None], x + beside]  # two pixels to every side of a corner
        if (around.all(axis=(1, 2)) | ~around.any(axis=(1, 2))).any():
            return False
    return True
