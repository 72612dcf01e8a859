"""An oracle annotator that works in Label Studio like a labeler: next task, answer, submit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select

from alc_backend.common.types import Json
from alc_backend.core.questions import Pace
from alc_backend.errors import LabelStudioError, NotFoundError
from alc_backend.labelstudio import page
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import asked_about
from alc_backend.labelstudio.tasks import annotation_result
from alc_backend.loop.task_sync import asked_by
from alc_backend.simulate import oracle as oracles
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, Image, Project, Superpixel


@dataclass(frozen=True)
class Given:
    """One answer as it was submitted: to a single question or, with its ``tiles``, to a page.

    ``choice`` is the class that was named, or that the page proposed; ``kept`` of a page's tiles
    stayed ticked.
    """

    task_id: int
    score: float
    pseudo_label: str
    choice: str
    tiles: int = 0
    kept: int = 0


def answer_queries(
    store: Store,
    client: Client,
    project_id: int,
    count: int,
    *,
    oracle: str = "object",
    on_answer: Callable[[Given], None] = lambda given: None,
) -> int:
    """Answer up to ``count`` questions, as Label Studio serves them; how many were answered.

    Answers come from the project's ground truth. Raises LabelStudioError when Label Studio serves
    a task without prediction, NotFoundError without ground truth.
    """
    with store.reading() as session:
        project = session.get_one(Project, project_id)
    for done in range(count):
        task = client.get_or_none(f"/api/projects/{project.query_project}/next")
        if task is None:  # the queue is empty
            return done
        if not task["predictions"]:
            raise LabelStudioError(f"task {task['id']} was served without its prediction")
        # One that a plan has put first has two, and is served by the lower score.
        prediction = min(task["predictions"], key=lambda made: float(made["score"]))
        shown = page.described(task["data"], project.class_ids)
        if shown is None:
            given, result, seconds = _answer(store, project, task, prediction, oracle)
        else:
            given, result, seconds = _answer_page(store, project, task, prediction, shown, oracle)
        client.post(
            f"/api/tasks/{task['id']}/annotations/",
            {"result": result, "parent_prediction": prediction["id"], "lead_time": seconds},
        )
        on_answer(given)
    return count


def _answer(
    store: Store, project: Project, task: Json, prediction: Json, oracle: str
) -> tuple[Given, list[Json], float]:
    """The answer to a single question, its result, and the seconds it takes."""
    task_id, key = int(task["id"]), asked_about(task["data"])
    with store.reading() as session:
        query = session.scalars(asked_by(project.id, key)).first()
        if query is None:
            raise NotFoundError(f"task {task_id} is not one of project {project.name!r}")
        superpixel = session.get_one(Superpixel, query.superpixel_id)
    files = store.files(project.id)
    with store.reading() as session:
        maps = LabelMaps(session, files, project.id)
    class_id = oracles.answer(
        oracle,
        files.read_label_map("ground_truth", superpixel.image_id),
        maps.read(superpixel.image_id),
        files.read_superpixels(superpixel.image_id) == superpixel.number,
        query.row,
        query.col,
        query.pseudo_label,
    )
    pseudo_label, choice = project.classes[query.pseudo_label], project.classes[class_id]
    result = annotation_result(prediction["result"], choice)
    given = Given(task_id, float(prediction["score"]), pseudo_label, choice)
    pace = Pace(**store.settings.seconds)
    return given, result, pace.accept if choice == pseudo_label else pace.correct


def _answer_page(
    store: Store,
    project: Project,
    task: Json,
    prediction: Json,
    shown: page.PageContent,
    oracle: str,
) -> tuple[Given, list[Json], float]:
    """The answer to a page of look-alikes, its result, and the seconds it takes."""
    files, ticked = store.files(project.id), []
    for position, tile in enumerate(shown.tiles, start=1):
        with store.reading() as session:
            superpixel = session.scalars(
                select(Superpixel)
                .join(Image, Image.id == Superpixel.image_id)
                .where(
                    Image.project_id == project.id,
                    Image.split == TRAIN,
                    Image.key == tile.image_key,
                    Superpixel.number == tile.superpixel,
                )
            ).one()
        truth = files.read_label_map("ground_truth", superpixel.image_id)
        mask = files.read_superpixels(superpixel.image_id) == superpixel.number
        if oracles.agrees(oracle, truth, mask, tile.row, tile.col, shown.proposed):
            ticked.append(position)
    pace, count = Pace(**store.settings.seconds), len(shown.tiles)
    proposed = project.classes[shown.proposed]
    score = float(prediction["score"])
    given = Given(int(task["id"]), score, proposed, proposed, tiles=count, kept=len(ticked))
    seconds = pace.page + pace.tile * count
    return given, page.annotation_result(shown, ticked), seconds
