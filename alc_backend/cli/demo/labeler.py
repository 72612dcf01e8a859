"""An oracle annotator that works in Label Studio like a labeler: next task, answer, submit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select

from alc_backend.errors import LabelStudioError, NotFoundError
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.tasks import annotation_result
from alc_backend.simulate import oracle as oracles
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Image, Project, Query, Superpixel


@dataclass(frozen=True)
class Given:
    """One answer as it was submitted."""

    task_id: int
    score: float
    pseudo_label: str
    choice: str


def answer_queries(
    store: Store,
    client: Client,
    project_id: int,
    count: int,
    *,
    oracle: str = "object",
    on_answer: Callable[[Given], None] = lambda given: None,
) -> int:
    """Answer up to ``count`` queries, as Label Studio serves them; the number of those answered.

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
        prediction = task["predictions"][0]
        pseudo_label, choice = _decide(store, project, int(task["id"]), oracle)
        client.post(
            f"/api/tasks/{task['id']}/annotations/",
            {
                "result": annotation_result(prediction["result"], choice),
                "parent_prediction": prediction["id"],
                "lead_time": oracles.seconds(choice == pseudo_label),
            },
        )
        on_answer(Given(int(task["id"]), float(prediction["score"]), pseudo_label, choice))
    return count


def _decide(store: Store, project: Project, task_id: int, oracle: str) -> tuple[str, str]:
    """The class that the query proposes, and the class that the oracle chooses."""
    files = store.files(project.id)
    with store.reading() as session:
        query = session.scalars(select(Query).where(Query.task_id == task_id)).first()
        if query is None:
            raise NotFoundError(f"task {task_id} is not one of project {project.name!r}")
        superpixel = session.get_one(Superpixel, query.superpixel_id)
        image = session.get_one(Image, superpixel.image_id)
        maps = LabelMaps(session, files, project.id)
    class_id = oracles.answer(
        oracle,
        files.read_label_map("ground_truth", image.id),
        maps.read(image.id),
        files.read_superpixels(image.id) == superpixel.number,
        query.row,
        query.col,
        query.pseudo_label,
    )
    return project.classes[query.pseudo_label], project.classes[class_id]
