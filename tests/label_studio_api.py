"""The endpoints of the fake Label Studio."""

from __future__ import annotations

import json
import operator
import re
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import httpx

from alc_backend.common.types import Json
from alc_backend.labelstudio.times import read_time

if TYPE_CHECKING:
    from tests.fake_label_studio import FakeLabelStudio

LONG_AGO = "2026-01-01T09:00:00Z"

REASONS = {
    401: "Authentication credentials were not provided.",
    403: "You do not have permission to perform this action.",
    404: "Not found.",
}


@dataclass
class Task:
    """A task; ``overlap`` None: as many annotators as its project asks."""

    id: int
    project: int
    data: Json = field(default_factory=dict)
    overlap: int | None = None
    is_labeled: bool = False
    updated_at: str = LONG_AGO
    annotations: dict[int, Json] = field(default_factory=dict)
    predictions: list[Json] = field(default_factory=list)
    drafts: list[Json] = field(default_factory=list)


def _shown(fake: FakeLabelStudio, task: Task, parameters: dict[str, str]) -> Json:
    cancelled = sum(bool(item["was_cancelled"]) for item in task.annotations.values())
    shown = {
        "id": task.id,
        "project": task.project,
        "data": task.data,
        "is_labeled": task.is_labeled,
        "updated_at": task.updated_at,
        "total_annotations": len(task.annotations) - cancelled,
        "cancelled_annotations": cancelled,
        "overlap": fake.projects[task.project]["maximum_annotations"]
        if task.overlap is None
        else task.overlap,
    }
    if parameters.get("fields") != "task_only":
        shown["annotations"] = list(task.annotations.values())
        shown["predictions"] = task.predictions
    wanted = parameters.get("include")
    return {k: v for k, v in shown.items() if k in wanted.split(",")} if wanted else shown


def _get_project(
    fake: FakeLabelStudio, project: int, parameters: dict[str, str], _: Any
) -> httpx.Response:
    if project not in fake.projects:
        return refuse(404)
    shown = {**fake.projects[project], "task_number": len(fake.tasks_of(project))}
    wanted = parameters.get("include")
    return _done({name: shown[name] for name in wanted.split(",")} if wanted else shown)


def _get_projects(fake: FakeLabelStudio, parameters: dict[str, str], _: Any) -> httpx.Response:
    part = parameters.get("title", "").casefold()
    found = [project for project in fake.projects.values() if part in project["title"].casefold()]
    return _done({"count": len(found), "results": found[: int(parameters["page_size"])]})


def _post_project(fake: FakeLabelStudio, _: Any, body: Json) -> httpx.Response:
    if not 3 <= len(body["title"]) <= 50:
        return httpx.Response(400, json={"validation_errors": {"title": ["3 to 50"]}})
    number = next(fake.numbers)
    fake.projects[number] = new_project(number, **body)
    return _done(fake.projects[number], 201)


def _patch_project(fake: FakeLabelStudio, project: int, _: Any, body: Json) -> httpx.Response:
    versions = _versions(fake, project)
    if body.get("model_version", "") not in {"", *versions}:
        return httpx.Response(400, json={"validation_errors": {"model_version": ["unknown"]}})
    fake.projects[project].update(body)
    return _done(fake.projects[project])


def _delete_project(fake: FakeLabelStudio, project: int, *_: Any) -> httpx.Response:
    del fake.projects[project]
    return httpx.Response(204)


def _versions(fake: FakeLabelStudio, project: int) -> Counter[str]:
    held = fake.tasks_of(project)
    return Counter(p["model_version"] for task in held for p in task.predictions)


def _get_versions(fake: FakeLabelStudio, project: int, *_: Any) -> httpx.Response:
    return _done(dict(_versions(fake, project)))


def _delete_version(fake: FakeLabelStudio, project: int, _: Any, body: Json) -> httpx.Response:
    for task in fake.tasks_of(project):
        task.predictions[:] = [
            p for p in task.predictions if p["model_version"] != body["model_version"]
        ]
    return httpx.Response(204)


def _import(
    fake: FakeLabelStudio, project: int, parameters: dict[str, str], body: Any
) -> httpx.Response:
    if isinstance(body, bytes):
        return _upload(fake, project, body)
    numbers = [next(fake.numbers) for _ in body]
    for number, item in zip(numbers, body, strict=True):
        fake.add_task(number, item["data"], project)
        for prediction in item.get("predictions", ()):
            fake.predict(number, **prediction)
            held = fake.projects[project]
            held["model_version"] = held["model_version"] or prediction["model_version"]
    told = {"task_ids": numbers} if parameters.get("return_task_ids") == "true" else {}
    count = sum(len(item.get("predictions", ())) for item in body)
    return _done({"task_count": len(numbers), "prediction_count": count, **told}, 201)


def _upload(fake: FakeLabelStudio, project: int, body: bytes) -> httpx.Response:
    """Keep files under names of its own, and number them in an order of its own."""
    config = fake.projects[project].get("label_config", "")
    if len(re.findall(r'<[^>]*name="[^>]*value="\$', config)) > 1:
        error = "Your label config has more than one data key"
        return httpx.Response(400, json={"detail": error})
    boundary = body.partition(b"\r\n")[0]
    ids = []
    for part in body.split(boundary)[-2:0:-1]:
        head, _, content = part.removesuffix(b"\r\n").partition(b"\r\n\r\n")
        found = re.search(rb'filename="([^"]+)"', head)
        assert found
        name = f"upload/{project}/{uuid.uuid4().hex[:8]}-{found[1].decode()}"
        ids.append(next(fake.numbers))
        fake.uploads[ids[-1]] = name
        fake.files[f"/data/{name}"] = content
    return _done({"file_upload_ids": ids}, 201)


def _get_uploads(
    fake: FakeLabelStudio, project: int, parameters: dict[str, str], __: Any
) -> httpx.Response:
    listed = {n: f for n, f in fake.uploads.items() if f.split("/")[1] == str(project)}
    wanted = listed if parameters.get("all") == "true" else json.loads(parameters["ids"])
    return _done([{"id": n, "file": f} for n, f in listed.items() if n in wanted])


def _delete_uploads(fake: FakeLabelStudio, project: int, _: Any, body: Json) -> httpx.Response:
    """Delete those that are named, all of the project where none is."""
    gone = body.get("file_upload_ids") or [*fake.uploads]
    for number in gone:
        if fake.uploads.get(number, "").split("/")[1:2] == [str(project)]:
            del fake.uploads[number]
    return _done({"deleted": len(gone)})


def _import_predictions(
    fake: FakeLabelStudio, project: int, _: Any, body: list[Json]
) -> httpx.Response:
    """Drop what has no task or a score outside [0, 1], without a word."""
    there = {task.id for task in fake.tasks_of(project)}
    kept = [item for item in body if item["task"] in there and 0 <= item["score"] <= 1]
    for item in kept:
        fake.predict(**item)
    return _done({"created": len(kept)}, 201)


def _get_tasks(fake: FakeLabelStudio, parameters: dict[str, str], _: Any) -> httpx.Response:
    if int(parameters["project"]) not in fake.projects:
        return refuse(404)
    query = json.loads(parameters.get("query", "{}"))
    filters = query.get("filters", {"conjunction": "and", "items": []})
    either = any if filters["conjunction"] == "or" else all
    found = [
        task
        for task in fake.tasks_of(int(parameters["project"]))
        if either(_matches(task, item) for item in filters["items"]) or not filters["items"]
        for _ in range(_times(task, filters["items"]))
    ]
    column = query.get("ordering", ["tasks:id"])[0]
    found.sort(
        key=operator.attrgetter(column.lstrip("-").removeprefix("tasks:")),
        reverse=column.startswith("-"),
    )
    size, page = int(parameters["page_size"]), int(parameters.get("page", 1))
    part = found[size * (page - 1) : size * page]
    if page > 1 and not part:
        return httpx.Response(404, json={"detail": "Invalid page."})
    few = parameters.get("include") in ("id", "id,updated_at")
    if not few and any(task.id in fake.unshowable for task in part):
        return httpx.Response(500, json={"detail": "out of order"})
    shown = [_shown(fake, task, parameters) for task in part]
    return _done({"tasks": shown, "total": len(found)})


def _post_task(fake: FakeLabelStudio, _: Any, body: Json) -> httpx.Response:
    task = fake.add_task(next(fake.numbers), **body)
    return _done(_shown(fake, task, {}), 201)


def _get_task(
    fake: FakeLabelStudio, number: int, parameters: dict[str, str], _: Any
) -> httpx.Response:
    if number not in fake.tasks:
        return refuse(404)
    return _done(_shown(fake, fake.tasks[number], parameters))


def _patch_task(fake: FakeLabelStudio, number: int, _: Any, body: Json) -> httpx.Response:
    if number not in fake.tasks:
        return refuse(404)
    for name, value in body.items():
        setattr(fake.tasks[number], name, value)
    return _done(_shown(fake, fake.tasks[number], {}))


def _act(fake: FakeLabelStudio, parameters: dict[str, str], body: Json) -> httpx.Response:
    chosen = body["selectedItems"]
    assert parameters["id"] == "delete_tasks"
    assert chosen["all"] is False
    assert chosen["included"], "Label Studio would delete all tasks"
    for task in fake.tasks_of(int(parameters["project"])):
        if task.id in chosen["included"]:
            del fake.tasks[task.id]
    return _done({"processed_items": len(chosen["included"])})


def _get_annotation(fake: FakeLabelStudio, number: int, *_: Any) -> httpx.Response:
    if not any(number in task.annotations for task in fake.tasks.values()):
        return refuse(404)
    return _done(fake.annotation(number))


def _delete_annotation(fake: FakeLabelStudio, number: int, *_: Any) -> httpx.Response:
    if not any(number in task.annotations for task in fake.tasks.values()):
        return refuse(404)
    fake.remove_annotation(number)
    return httpx.Response(204)


def _get_predictions(fake: FakeLabelStudio, parameters: dict[str, str], _: Any) -> httpx.Response:
    return _done(fake.tasks[int(parameters["task"])].predictions)


def _post_prediction(fake: FakeLabelStudio, _: Any, body: Json) -> httpx.Response:
    return _done(fake.predict(**body), 201)


def _get_prediction(fake: FakeLabelStudio, number: int, *_: Any) -> httpx.Response:
    held = (p for task in fake.tasks.values() for p in task.predictions)
    found = next((p for p in held if p.get("id") == number), None)
    return refuse(404) if found is None else _done(found)


def _post_backend(fake: FakeLabelStudio, _: Any, body: Json) -> httpx.Response:
    """Connect a backend, and make its webhook, which knows no password."""
    number, hook = next(fake.numbers), next(fake.numbers)
    fake.backends[number] = {"id": number, **body}
    fake.webhooks[hook] = {
        "id": hook,
        "project": body["project"],
        "url": f"{body['url']}/webhook",
        "is_active": True,
        "send_payload": True,
        "send_for_all_actions": True,
        "actions": [],
        "headers": {},
    }
    return _done(fake.backends[number], 201)


def _listing(name: str) -> Callable[..., httpx.Response]:
    def answer(fake: FakeLabelStudio, parameters: dict[str, str], _: Any) -> httpx.Response:
        held = getattr(fake, name).values()
        return _done([item for item in held if item["project"] == int(parameters["project"])])

    return answer


def _making(name: str) -> Callable[..., httpx.Response]:
    def answer(fake: FakeLabelStudio, _: Any, body: Json) -> httpx.Response:
        number = next(fake.numbers)
        getattr(fake, name)[number] = {"id": number, **body}
        return _done(getattr(fake, name)[number], 201)

    return answer


def _changing(name: str) -> Callable[..., httpx.Response]:
    def answer(fake: FakeLabelStudio, number: int, _: Any, body: Json) -> httpx.Response:
        getattr(fake, name)[number].update(body)
        return _done(getattr(fake, name)[number])

    return answer


ROUTES: dict[tuple[str, str], Callable[..., httpx.Response]] = {
    ("GET", "/api/projects/"): _get_projects,
    ("POST", "/api/projects/"): _post_project,
    ("GET", r"/api/projects/(\d+)"): _get_project,
    ("PATCH", r"/api/projects/(\d+)"): _patch_project,
    ("DELETE", r"/api/projects/(\d+)"): _delete_project,
    ("GET", r"/api/projects/(\d+)/model-versions/"): _get_versions,
    ("DELETE", r"/api/projects/(\d+)/model-versions/"): _delete_version,
    ("POST", r"/api/projects/(\d+)/import"): _import,
    ("GET", r"/api/projects/(\d+)/file-uploads"): _get_uploads,
    ("DELETE", r"/api/projects/(\d+)/file-uploads"): _delete_uploads,
    ("POST", r"/api/projects/(\d+)/import/predictions"): _import_predictions,
    ("GET", "/api/tasks/"): _get_tasks,
    ("POST", "/api/tasks/"): _post_task,
    ("GET", r"/api/tasks/(\d+)"): _get_task,
    ("PATCH", r"/api/tasks/(\d+)/"): _patch_task,
    ("POST", "/api/dm/actions/"): _act,
    ("GET", r"/api/annotations/(\d+)/"): _get_annotation,
    ("DELETE", r"/api/annotations/(\d+)/"): _delete_annotation,
    ("GET", "/api/predictions/"): _get_predictions,
    ("POST", "/api/predictions/"): _post_prediction,
    ("GET", r"/api/predictions/(\d+)/"): _get_prediction,
    ("GET", "/api/ml"): _listing("backends"),
    ("POST", "/api/ml"): _post_backend,
    ("PATCH", r"/api/ml/(\d+)"): _changing("backends"),
    ("GET", "/api/webhooks/"): _listing("webhooks"),
    ("POST", "/api/webhooks/"): _making("webhooks"),
    ("PATCH", r"/api/webhooks/(\d+)/"): _changing("webhooks"),
    ("GET", "/api/dm/views/"): _listing("views"),
    ("POST", "/api/dm/views/"): _making("views"),
    ("PATCH", r"/api/dm/views/(\d+)/"): _changing("views"),
}


def new_project(number: int, **more: Any) -> Json:
    return {"id": number, "maximum_annotations": 1, "model_version": "", **more}


def _done(found: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=found)


def refuse(status: int) -> httpx.Response:
    return httpx.Response(status, json={"detail": REASONS[status]})


def _times(task: Task, items: list[Json]) -> int:
    """How often a task is listed: once for each of its annotations that a filter finds."""
    beyond = [item["value"] for item in items if item["filter"] == "filter:tasks:annotations_ids"]
    return sum(number > beyond[0] for number in task.annotations) if beyond else 1


def _matches(task: Task, item: Json) -> bool:
    """Whether a task passes a filter of the Data Manager."""
    cancelled = sum(bool(record["was_cancelled"]) for record in task.annotations.values())
    known: Json = {
        "id": task.id,
        "updated_at": read_time(task.updated_at),
        "annotations_ids": max(task.annotations, default=0),
        "total_annotations": len(task.annotations) - cancelled,
        "cancelled_annotations": cancelled,
        "draft_exists": bool(task.drafts),
    }
    wanted = item["value"]
    if item["type"] == "Datetime":  # Label Studio takes the time for UTC
        wanted = datetime.strptime(wanted, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    compare = {
        "equal": operator.eq,
        "greater": operator.gt,
        "in_list": lambda value, those: value in those,
    }[item["operator"]]
    return bool(compare(known[item["filter"].removeprefix("filter:tasks:")], wanted))
