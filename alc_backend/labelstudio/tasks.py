"""Query tasks in Label Studio: making, changing, closing and deleting them, and their order.

The order is that of the scores of predictions, whose version is the round's: a round's predictions
are imported in bulk, then the project is switched to their version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from alc_backend.common.types import Json
from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import model_version
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import CHOICE, NOT_OURS, Key, asked_about, digest
from alc_backend.labelstudio.task_pages import LeftOut

SAMPLING = "Uncertainty sampling"
"""The setting of a project that serves the task with the lowest score first.

Only scores of predictions of the project's model version count.
"""

PLANNED_TO = 0.5
"""Scores below this belong to plans. (Label Studio takes scores from 0 to 1, and no others.)"""

LAST = 1.0
"""The score of what is served after the whole queue."""

IMPORT_TASKS = 1000
"""Tasks per import request."""


@dataclass(frozen=True)
class QueueItem:
    """A question to publish: its row id in the store, and what its task is to hold.

    ``place`` is where a plan put it (0 is next, PLANNED_TO the end of all plans), None where only
    its turn in the queue tells when it is asked. ``task_id`` is None while Label Studio has no task
    of it. ``changed``: Label Studio holds other data; ``closed``: it serves the task to nobody.
    ``result`` is that of the prediction.
    """

    query: int
    key: Key
    task_id: int | None
    changed: bool
    closed: bool
    data: Json
    result: list[Json]
    place: float | None = None


class HeldTask(NamedTuple):
    """A task as Label Studio holds it: what it asks about, and the digest of its data.

    ``is_open``: Label Studio serves it, as not enough annotators have answered it and nobody closed
    it. ``is_closed``: it does not, though nobody has answered it.
    """

    key: Key
    is_open: bool
    is_closed: bool
    digest: str | None


def existing_tasks(client: Client, project: int) -> dict[int, HeldTask]:
    """The query tasks that Label Studio holds, by their ids.

    One that Label Studio does not give asks nothing that is known.
    """
    unread = LeftOut()
    tasks = client.tasks(project, fields="task_only", page_size=500, leave_out=unread)
    found = {
        int(task["id"]): HeldTask(
            asked_about(task["data"]),
            not task["is_labeled"],
            bool(task["is_labeled"]) and not task["total_annotations"],
            digest(task["data"]),
        )
        for task in tasks
    }
    return {**found, **dict.fromkeys(unread, HeldTask(NOT_OURS, False, False, None))}


def count_tasks(client: Client, project: int) -> int:
    """How many tasks a project has."""
    return int(client.get(f"/api/projects/{project}", include="task_number")["task_number"])


def create_tasks(
    client: Client,
    project: int,
    items: Sequence[QueueItem],
    created: Callable[[dict[Key, int]], None],
) -> None:
    """Create the tasks of ``items``; ``created`` is called with their ids after each request.

    Each is made together with a prediction: whoever is handed a task sees what it asks. Until it
    gets its place in a queue it is served last, by the version that Label Studio follows now, or in
    a project without any by that of round 0, which does not exist. An adjudication is put to one
    annotator, however many the project's other queries are put to. Raises LabelStudioError when
    Label Studio makes fewer tasks than it was given.
    """
    if not items:
        return
    version = followed_version(client, project) or model_version.of_round(0)
    for item in items:
        if item.key.adjudication:
            created({item.key: _create_adjudication(client, project, item, version)})
    items = [item for item in items if not item.key.adjudication]
    for first in range(0, len(items), IMPORT_TASKS):
        part = items[first : first + IMPORT_TASKS]
        answer = client.post(
            f"/api/projects/{project}/import",
            [
                {"data": item.data, "predictions": [_prediction(item, LAST, version)]}
                for item in part
            ],
            return_task_ids="true",
        )
        ids = [int(number) for number in answer["task_ids"]]
        if len(ids) != len(part):
            raise LabelStudioError(
                f"Label Studio made {len(ids)} of {len(part)} tasks; start the round again to "
                "make the rest"
            )
        if answer["prediction_count"] != len(part):  # it forgets them when its database was locked
            made = [
                (replace(item, task_id=number), LAST)
                for item, number in zip(part, ids, strict=True)
            ]
            add_predictions(client, project, version, made)
        created({item.key: number for item, number in zip(part, ids, strict=True)})


def _create_adjudication(client: Client, project: int, item: QueueItem, version: str) -> int:
    """Create the task of an adjudication; its id.

    An import would put it to as many annotators as the others, and otherwise it gets its prediction
    by a request of its own: nobody is handed it before.
    """
    body = {"project": project, "data": item.data, "overlap": 1, "is_labeled": True}
    number = int(client.post("/api/tasks/", body)["id"])
    client.post("/api/predictions/", {"task": number, **_prediction(item, LAST, version)})
    client.patch(f"/api/tasks/{number}/", {"is_labeled": False})
    return number


def _prediction(item: QueueItem, score: float, version: str) -> Json:
    """The prediction by which a task shows its question, and is served by ``score``."""
    return {"result": item.result, "score": score, "model_version": version}


def update_task(client: Client, item: QueueItem) -> None:
    """Give a task its present data; a closed one is served again."""
    reopened = {"is_labeled": False} if item.closed else {}
    client.patch(f"/api/tasks/{item.task_id}/", {"data": item.data, **reopened})


def close_task(client: Client, task_id: int) -> None:
    """Let Label Studio serve a task to nobody; those who have it on the screen can submit it.

    A task that somebody has deleted counts as closed.
    """
    client.patch(f"/api/tasks/{task_id}/", {"is_labeled": True}, missing_ok=True)


def delete_untouched(client: Client, project: int, tasks: Sequence[int]) -> list[int]:
    """Delete the tasks that nobody has answered, skipped or drafted; returns those that are gone.

    ``tasks`` are 500 at most: one page. A task that does not exist counts as gone, one that Label
    Studio does not give as touched.
    """
    if not tasks:
        return []
    those = {"filter": "filter:tasks:id", "operator": "in_list", "type": "Number"}
    draft = {"filter": "filter:tasks:draft_exists", "operator": "equal", "type": "Boolean"}
    unread = LeftOut()

    def found(*items: Json) -> list[Json]:
        here = client.tasks_by_id(
            project,
            list(items),
            fields="task_only",
            page_size=len(tasks),
            include="id,total_annotations,cancelled_annotations",
            leave_out=unread,
        )
        return [task for task in here if int(task["id"]) in tasks]

    chosen = {**those, "value": list(tasks)}
    touched = {int(task["id"]) for task in found(chosen, {**draft, "value": True})}
    there = found(chosen)
    touched |= {
        int(task["id"])
        for task in there
        if task["total_annotations"] or task["cancelled_annotations"]
    }
    touched |= unread.keys()
    untouched = [int(task["id"]) for task in there if int(task["id"]) not in touched]
    if untouched:  # an empty list would mean all tasks
        client.request(
            "POST",
            "/api/dm/actions/",
            params={"id": "delete_tasks", "project": project},
            json={"selectedItems": {"all": False, "included": untouched}},
        )
    return [task for task in tasks if task not in touched]


def put_first(client: Client, item: QueueItem, version: str, score: float = 0.0) -> None:
    """Put a task before all others: give it a prediction of ``version`` with the best score.

    Another ``score``, up to LAST, puts it elsewhere. Nothing happens when it has a prediction of
    that version with such a score or a better one.
    """
    there = client.get("/api/predictions/", task=item.task_id)
    if not any(
        found["model_version"] == version and float(found["score"] or 0.0) <= score
        for found in there
    ):
        made = {"task": item.task_id, **_prediction(item, score, version)}
        client.post("/api/predictions/", made)


def import_queue(client: Client, project: int, version: str, items: Sequence[QueueItem]) -> bool:
    """Import the predictions of ``items`` (best first) as those of ``version``.

    Returns False when Label Studio did not keep all of them, because a task is gone. Safe to repeat
    until :func:`switch`: the version's predictions of an interrupted attempt are removed first.
    (Afterwards they must stay: Label Studio refuses an answer whose prediction is gone.)
    """
    prune_version(client, project, version)
    return add_predictions(client, project, version, scored(items))


def scored(items: Sequence[QueueItem]) -> list[tuple[QueueItem, float]]:
    """Questions, best first, with the scores by which Label Studio keeps this order.

    What a plan has put somewhere comes before all others.
    """
    return [
        (item, _unplanned(rank / len(items)) if item.place is None else item.place)
        for rank, item in enumerate(items)
    ]


def _unplanned(turn: float) -> float:
    """The score of a question that no plan put anywhere, at its ``turn`` in the queue, 0 to 1."""
    return PLANNED_TO + (1 - PLANNED_TO) * turn


def add_predictions(
    client: Client, project: int, version: str, scored: Sequence[tuple[QueueItem, float]]
) -> bool:
    """Import predictions of ``version``, with their scores; the lowest is served first.

    Returns False when Label Studio did not keep all of them, because a task is gone.
    """
    if not scored:
        return True
    predictions = [
        {"task": item.task_id, **_prediction(item, score, version)} for item, score in scored
    ]
    created = client.post(f"/api/projects/{project}/import/predictions", predictions)["created"]
    return bool(created == len(scored))


def best_scores(client: Client, project: int, version: str) -> dict[int, float]:
    """The lowest score of the predictions of ``version`` of each task (id) that has any.

    A task that Label Studio does not give counts as the first of all.
    """
    unread = LeftOut()
    few = "id,predictions,model_version,score"
    best: dict[int, float] = {}
    for task in client.tasks(project, include=few, page_size=500, leave_out=unread):
        scores = [
            float(made["score"] or 0.0)
            for made in task["predictions"]
            if made["model_version"] == version
        ]
        if scores:
            best[int(task["id"])] = min(scores)
    return {**best, **dict.fromkeys(unread, 0.0)}


def switch(client: Client, project: int, version: str) -> None:
    """Let Label Studio serve a project's tasks in the order of the predictions of ``version``."""
    client.patch(
        f"/api/projects/{project}",
        {"model_version": version, "sampling": SAMPLING},
    )


def followed_version(client: Client, project: int) -> str:
    """The version whose predictions a project follows; empty while there is none."""
    answer = client.get(f"/api/projects/{project}", include="model_version")
    return str(answer["model_version"] or "")


def is_switched(client: Client, project: int, version: str) -> bool:
    """Whether a project follows the predictions of ``version``."""
    return followed_version(client, project) == version


def prune_version(client: Client, project: int, version: str) -> None:
    """Delete the predictions of a version, if there are any.

    Only for versions that were replaced long ago: Label Studio refuses the answer from a screen
    that still shows one of them, until the page is loaded again.
    """
    if version in client.get(f"/api/projects/{project}/model-versions/"):
        client.delete(f"/api/projects/{project}/model-versions/", {"model_version": version})


def annotation_result(prediction: list[Json], choice: str) -> list[Json]:
    """The result that Label Studio's screen submits: the prediction's, with ``choice`` chosen."""
    return [
        {**item, "value": {"choices": [choice]}} if item.get("from_name") == CHOICE else item
        for item in prediction
    ]
