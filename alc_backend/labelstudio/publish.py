"""Bringing a round's queue into Label Studio: new tasks, one bulk of predictions, the switch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import CHOICE, Key, asked_about

Json = dict[str, Any]

IMPORT_TASKS = 1000
"""Tasks per import request."""


@dataclass(frozen=True)
class QueueItem:
    """One query to publish; ``task_id`` None for a new one. ``changed``: its task data differs."""

    key: Key
    task_id: int | None
    changed: bool
    data: Json
    result: list[Json]


def existing_tasks(client: Client, project: int) -> dict[int, Key]:
    """The query tasks that Label Studio holds: task id → what it asks about."""
    tasks = client.tasks(project, fields="task_only", page_size=500)
    return {int(task["id"]): asked_about(task["data"]) for task in tasks}


def create_tasks(
    client: Client,
    project: int,
    items: Sequence[QueueItem],
    created: Callable[[dict[Key, int]], None],
) -> None:
    """Create the tasks of ``items``; ``created`` learns the ids after each request."""
    for first in range(0, len(items), IMPORT_TASKS):
        part = items[first : first + IMPORT_TASKS]
        answer = client.post(
            f"/api/projects/{project}/import",
            [{"data": item.data} for item in part],
            return_task_ids="true",
        )
        ids = answer["task_ids"]
        if len(ids) != len(part):
            raise LabelStudioError(
                f"Label Studio made {len(ids)} of {len(part)} tasks; start the round again to "
                "make the rest"
            )
        created({item.key: int(number) for item, number in zip(part, ids, strict=True)})


def update_task(client: Client, item: QueueItem) -> None:
    """Give a task whose question changed its new data."""
    client.patch(f"/api/tasks/{item.task_id}/", {"data": item.data})


def publish_queue(client: Client, project: int, version: str, items: Sequence[QueueItem]) -> None:
    """Import the predictions of ``items`` (best first) and switch the project to ``version``.

    Safe to repeat: predictions of this version from an interrupted attempt are removed first.
    """
    if version in client.get(f"/api/projects/{project}/model-versions/"):
        client.delete(f"/api/projects/{project}/model-versions/", {"model_version": version})
    if not items:
        return
    predictions = [
        {
            "task": item.task_id,
            "result": item.result,
            "score": rank / len(items),
            "model_version": version,
        }
        for rank, item in enumerate(items)
    ]
    created = client.post(f"/api/projects/{project}/import/predictions", predictions)["created"]
    if created != len(items):
        raise LabelStudioError(
            f"Label Studio kept {created} of {len(items)} predictions; a task was deleted "
            "meanwhile: start the round again"
        )
    client.patch(
        f"/api/projects/{project}",
        {"model_version": version, "sampling": "Uncertainty sampling"},
    )


def prune_versions(client: Client, project: int, keep: str) -> int:
    """Delete the predictions of all versions but ``keep``; returns how many versions went."""
    versions = [v for v in client.get(f"/api/projects/{project}/model-versions/") if v != keep]
    for version in versions:
        client.delete(f"/api/projects/{project}/model-versions/", {"model_version": version})
    return len(versions)


def annotation_result(prediction: list[Json], choice: str) -> list[Json]:
    """What Label Studio's own screen submits: the prediction's result with ``choice`` chosen."""
    return [
        {**item, "value": {"choices": [choice]}} if item.get("from_name") == CHOICE else item
        for item in prediction
    ]
