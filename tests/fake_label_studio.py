"""Label Studio in memory: it answers what the package asks, as Label Studio 1.23 does.

Tests reach it as the package does, through the real client: ``FakeLabelStudio().client()``.
"""

from __future__ import annotations

import json
import operator
import re
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import count
from typing import Any, NamedTuple

import httpx
import pytest

from alc_backend.labelstudio import projects
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.times import read_time
from tests.conftest import CLASSES

URL = "http://label-studio.invalid"
PERSONAL_TOKEN, LEGACY_TOKEN = "a.personal.token", "legacytoken"
DATASET_PROJECT, QUERY_PROJECT = 11, 12
LONG_AGO = "2026-01-01T09:00:00Z"
LATER = "2026-01-01T15:00:00Z"

REASONS = {
    401: "Authentication credentials were not provided.",
    403: "You do not have permission to perform this action.",
    404: "Not found.",
}

Json = dict[str, Any]


class Request(NamedTuple):
    """One request that arrived, whatever was answered; ``body`` is None where it is not JSON."""

    method: str
    path: str
    parameters: dict[str, str]
    body: Any


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


@dataclass
class Failure:
    """What is answered instead: a status, or no connection (None)."""

    status: int | None
    path: str
    method: str
    times: float
    after: int
    body: Any

    def meets(self, method: str, path: str) -> bool:
        """Whether it is this request that fails."""
        if self.method not in ("", method) or not path.startswith(self.path):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return self.times >= 0


class FakeLabelStudio:
    """A dataset project and a query project without tasks.

    Tests may read and change ``projects``, ``tasks``, ``files`` (path → content), ``redirects``
    (path → address), ``webhooks`` and ``backends``; ``requests`` are those that arrived,
    ``pauses`` (seconds) those of its clients, who do not wait.
    """

    def __init__(self) -> None:
        self.projects: dict[int, Json] = {
            DATASET_PROJECT: _project(
                DATASET_PROJECT, title="pets", label_config=projects.dataset_config(CLASSES)
            ),
            QUERY_PROJECT: _project(QUERY_PROJECT, title="pets: queries"),
        }
        self.tasks: dict[int, Task] = {}
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.webhooks: dict[int, Json] = {}
        self.backends: dict[int, Json] = {}
        self.views: dict[int, Json] = {}
        self.requests: list[Request] = []
        self.pauses: list[float] = []
        self._uploads: dict[int, str] = {}
        self._failures: list[Failure] = []
        self._numbers = count(9000)
        self._access = "none yet"

    def client(self, token: str = PERSONAL_TOKEN) -> Client:
        """A client of this Label Studio."""
        transport = httpx.MockTransport(self._answer)
        return Client(URL, token, transport=transport, sleep=self.pauses.append)

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be the Label Studio of every settings."""
        monkeypatch.setattr(Client, "from_settings", lambda settings: self.client())

    # What happens in Label Studio.

    def add_task(self, number: int, data: Json, project: int = QUERY_PROJECT, **more: Any) -> Task:
        """Make a task."""
        self.tasks[number] = Task(number, project, data, **more)
        return self.tasks[number]

    def predict(self, task: int, result: list[Any], number: int | None = None, **more: Any) -> Json:
        """Give a task a prediction."""
        made = {
            "id": next(self._numbers) if number is None else number,
            "task": task,
            "result": result,
            "score": 0.0,
            "model_version": "",
            "created_at": LONG_AGO,
            **more,
        }
        self.tasks[task].predictions.append(made)
        return made

    def annotate(self, record: Json, project: int = QUERY_PROJECT) -> None:
        """Keep an annotation as it is given; an unknown task is made in ``project``."""
        task = self.tasks.get(record["task"]) or self.add_task(record["task"], {}, project)
        task.annotations[record["id"]] = record
        task.updated_at = record["updated_at"]

    def remove_annotation(self, number: int, when: str = LATER) -> None:
        """Somebody deletes an annotation."""
        task = next(task for task in self.tasks.values() if number in task.annotations)
        del task.annotations[number]
        task.updated_at = when

    def annotation(self, number: int) -> Json:
        """An annotation by its id."""
        return next(t.annotations[number] for t in self.tasks.values() if number in t.annotations)

    # Failing, and what was asked.

    def fail(
        self,
        status: int | None = None,
        path: str = "/",
        *,
        method: str = "",
        times: float = float("inf"),
        after: int = 0,
        body: Any = None,
    ) -> None:
        """Answer ``status`` (default: nothing, the connection fails) to paths that begin so.

        So many ``times``, or until :meth:`recover`; the first ones, ``after`` many, are answered.
        """
        detail = {"detail": REASONS.get(status or 0, "out of order")}
        self._failures.append(Failure(status, path, method, times, after, body or detail))

    def recover(self) -> None:
        """Answer as usual again."""
        self._failures.clear()

    def revoke(self) -> None:
        """Let the present access token count no more."""
        self._access = "revoked"

    def asked(self, path: str, method: str = "GET") -> list[Request]:
        """The requests for a path."""
        return [request for request in self.requests if request[:2] == (method, path)]

    @property
    def writes(self) -> list[Request]:
        """The requests that change something."""
        return [
            request
            for request in self.requests
            if request.method != "GET" and request.path != "/api/token/refresh/"
        ]

    # Answering.

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path, parameters = request.url.path, dict(request.url.params)
        is_json = request.headers.get("content-type") == "application/json"
        body = json.loads(request.content) if is_json else None
        self.requests.append(Request(request.method, path, parameters, body))
        for failure in self._failures:
            if failure.meets(request.method, path):
                if failure.status is None:
                    raise httpx.ConnectError("connection refused", request=request)
                return httpx.Response(failure.status, json=failure.body)
        if path == "/api/token/refresh/":
            return self._renew(body)
        if request.headers["Authorization"] not in (
            f"Bearer {self._access}",
            f"Token {LEGACY_TOKEN}",
        ):
            return _refuse(401)
        if path in self.redirects:
            return httpx.Response(303, headers={"Location": self.redirects[path]})
        if path.startswith("/data/"):
            if path not in self.files:
                return httpx.Response(500, text="<h1>Server Error</h1>")
            return httpx.Response(200, content=self.files[path])
        for (method, pattern), handle in ROUTES.items():
            found = re.fullmatch(pattern, path) if method == request.method else None
            if found:
                given = body if is_json else request.content
                return handle(self, *(int(n) for n in found.groups()), parameters, given)
        raise AssertionError(f"the fake Label Studio knows no {request.method} {path}")

    def _renew(self, body: Json) -> httpx.Response:
        if body["refresh"] != PERSONAL_TOKEN:
            return httpx.Response(401, json={"detail": "Token is invalid"})
        self._access = f"access-{next(self._numbers)}"
        return httpx.Response(200, json={"access": self._access})

    def _of(self, project: int) -> list[Task]:
        return [task for task in self.tasks.values() if task.project == project]

    def _shown(self, task: Task, parameters: dict[str, str]) -> Json:
        cancelled = sum(bool(item["was_cancelled"]) for item in task.annotations.values())
        shown = {
            "id": task.id,
            "project": task.project,
            "data": task.data,
            "is_labeled": task.is_labeled,
            "updated_at": task.updated_at,
            "total_annotations": len(task.annotations) - cancelled,
            "cancelled_annotations": cancelled,
            "overlap": self.projects[task.project]["maximum_annotations"]
            if task.overlap is None
            else task.overlap,
        }
        if parameters.get("fields") != "task_only":
            shown["annotations"] = list(task.annotations.values())
            shown["predictions"] = task.predictions
        wanted = parameters.get("include")
        return {k: v for k, v in shown.items() if k in wanted.split(",")} if wanted else shown

    def _get_project(self, project: int, parameters: dict[str, str], _: Any) -> httpx.Response:
        if project not in self.projects:
            return _refuse(404)
        shown = {**self.projects[project], "task_number": len(self._of(project))}
        wanted = parameters.get("include")
        return _done({name: shown[name] for name in wanted.split(",")} if wanted else shown)

    def _post_project(self, _: Any, body: Json) -> httpx.Response:
        if not 3 <= len(body["title"]) <= 50:
            return httpx.Response(400, json={"validation_errors": {"title": ["3 to 50"]}})
        number = next(self._numbers)
        self.projects[number] = _project(number, **body)
        return _done(self.projects[number], 201)

    def _patch_project(self, project: int, _: Any, body: Json) -> httpx.Response:
        versions = self._versions(project)
        if body.get("model_version", "") not in {"", *versions}:
            return httpx.Response(400, json={"validation_errors": {"model_version": ["unknown"]}})
        self.projects[project].update(body)
        return _done(self.projects[project])

    def _versions(self, project: int) -> Counter[str]:
        held = self._of(project)
        return Counter(p["model_version"] for task in held for p in task.predictions)

    def _get_versions(self, project: int, *_: Any) -> httpx.Response:
        return _done(dict(self._versions(project)))

    def _delete_version(self, project: int, _: Any, body: Json) -> httpx.Response:
        for task in self._of(project):
            task.predictions[:] = [
                p for p in task.predictions if p["model_version"] != body["model_version"]
            ]
        return httpx.Response(204)

    def _import(self, project: int, parameters: dict[str, str], body: Any) -> httpx.Response:
        if isinstance(body, bytes):
            return self._upload(project, body)
        numbers = [next(self._numbers) for _ in body]
        for number, item in zip(numbers, body, strict=True):
            self.add_task(number, item["data"], project)
        told = {"task_ids": numbers} if parameters.get("return_task_ids") == "true" else {}
        return _done({"task_count": len(numbers), **told}, 201)

    def _upload(self, project: int, body: bytes) -> httpx.Response:
        """Keep files under names of its own, and number them in an order of its own."""
        boundary = body.partition(b"\r\n")[0]
        ids = []
        for part in body.split(boundary)[-2:0:-1]:
            head, _, content = part.removesuffix(b"\r\n").partition(b"\r\n\r\n")
            found = re.search(rb'filename="([^"]+)"', head)
            assert found
            name = f"upload/{project}/{uuid.uuid4().hex[:8]}-{found[1].decode()}"
            ids.append(next(self._numbers))
            self._uploads[ids[-1]] = name
            self.files[f"/data/{name}"] = content
        return _done({"file_upload_ids": ids}, 201)

    def _get_uploads(self, _: int, parameters: dict[str, str], __: Any) -> httpx.Response:
        wanted = json.loads(parameters["ids"])
        return _done([{"id": n, "file": f} for n, f in self._uploads.items() if n in wanted])

    def _import_predictions(self, project: int, _: Any, body: list[Json]) -> httpx.Response:
        """Drop what has no task or a score outside [0, 1], without a word."""
        there = {task.id for task in self._of(project)}
        kept = [item for item in body if item["task"] in there and 0 <= item["score"] <= 1]
        for item in kept:
            self.predict(**item)
        return _done({"created": len(kept)}, 201)

    def _get_tasks(self, parameters: dict[str, str], _: Any) -> httpx.Response:
        if int(parameters["project"]) not in self.projects:
            return _refuse(404)
        query = json.loads(parameters.get("query", "{}"))
        filters = query.get("filters", {"conjunction": "and", "items": []})
        either = any if filters["conjunction"] == "or" else all
        found = [
            task
            for task in self._of(int(parameters["project"]))
            if either(_matches(task, item) for item in filters["items"]) or not filters["items"]
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
        shown = [self._shown(task, parameters) for task in part]
        return _done({"tasks": shown, "total": len(found)})

    def _post_task(self, _: Any, body: Json) -> httpx.Response:
        task = self.add_task(next(self._numbers), **body)
        return _done(self._shown(task, {}), 201)

    def _get_task(self, number: int, parameters: dict[str, str], _: Any) -> httpx.Response:
        if number not in self.tasks:
            return _refuse(404)
        return _done(self._shown(self.tasks[number], parameters))

    def _patch_task(self, number: int, _: Any, body: Json) -> httpx.Response:
        if number not in self.tasks:
            return _refuse(404)
        for name, value in body.items():
            setattr(self.tasks[number], name, value)
        return _done(self._shown(self.tasks[number], {}))

    def _act(self, parameters: dict[str, str], body: Json) -> httpx.Response:
        chosen = body["selectedItems"]
        assert parameters["id"] == "delete_tasks"
        assert chosen["all"] is False
        assert chosen["included"], "Label Studio would delete all tasks"
        for task in self._of(int(parameters["project"])):
            if task.id in chosen["included"]:
                del self.tasks[task.id]
        return _done({"processed_items": len(chosen["included"])})

    def _get_annotation(self, number: int, *_: Any) -> httpx.Response:
        if not any(number in task.annotations for task in self.tasks.values()):
            return _refuse(404)
        return _done(self.annotation(number))

    def _delete_annotation(self, number: int, *_: Any) -> httpx.Response:
        if not any(number in task.annotations for task in self.tasks.values()):
            return _refuse(404)
        self.remove_annotation(number)
        return httpx.Response(204)

    def _get_predictions(self, parameters: dict[str, str], _: Any) -> httpx.Response:
        return _done(self.tasks[int(parameters["task"])].predictions)

    def _post_prediction(self, _: Any, body: Json) -> httpx.Response:
        return _done(self.predict(**body), 201)

    def _get_prediction(self, number: int, *_: Any) -> httpx.Response:
        held = (p for task in self.tasks.values() for p in task.predictions)
        found = next((p for p in held if p.get("id") == number), None)
        return _refuse(404) if found is None else _done(found)

    def _post_backend(self, _: Any, body: Json) -> httpx.Response:
        """Connect a backend, and make its webhook, which knows no password."""
        number, hook = next(self._numbers), next(self._numbers)
        self.backends[number] = {"id": number, **body}
        self.webhooks[hook] = {
            "id": hook,
            "project": body["project"],
            "url": f"{body['url']}/webhook",
            "is_active": True,
            "send_payload": True,
            "send_for_all_actions": True,
            "actions": [],
            "headers": {},
        }
        return _done(self.backends[number], 201)


def _listing(name: str) -> Callable[..., httpx.Response]:
    def answer(label_studio: FakeLabelStudio, parameters: dict[str, str], _: Any) -> httpx.Response:
        held = getattr(label_studio, name).values()
        return _done([item for item in held if item["project"] == int(parameters["project"])])

    return answer


def _making(name: str) -> Callable[..., httpx.Response]:
    def answer(label_studio: FakeLabelStudio, _: Any, body: Json) -> httpx.Response:
        number = next(label_studio._numbers)
        getattr(label_studio, name)[number] = {"id": number, **body}
        return _done(getattr(label_studio, name)[number], 201)

    return answer


def _changing(name: str) -> Callable[..., httpx.Response]:
    def answer(label_studio: FakeLabelStudio, number: int, _: Any, body: Json) -> httpx.Response:
        getattr(label_studio, name)[number].update(body)
        return _done(getattr(label_studio, name)[number])

    return answer


ROUTES: dict[tuple[str, str], Callable[..., httpx.Response]] = {
    ("POST", "/api/projects/"): FakeLabelStudio._post_project,
    ("GET", r"/api/projects/(\d+)"): FakeLabelStudio._get_project,
    ("PATCH", r"/api/projects/(\d+)"): FakeLabelStudio._patch_project,
    ("GET", r"/api/projects/(\d+)/model-versions/"): FakeLabelStudio._get_versions,
    ("DELETE", r"/api/projects/(\d+)/model-versions/"): FakeLabelStudio._delete_version,
    ("POST", r"/api/projects/(\d+)/import"): FakeLabelStudio._import,
    ("GET", r"/api/projects/(\d+)/file-uploads"): FakeLabelStudio._get_uploads,
    ("POST", r"/api/projects/(\d+)/import/predictions"): FakeLabelStudio._import_predictions,
    ("GET", "/api/tasks/"): FakeLabelStudio._get_tasks,
    ("POST", "/api/tasks/"): FakeLabelStudio._post_task,
    ("GET", r"/api/tasks/(\d+)"): FakeLabelStudio._get_task,
    ("PATCH", r"/api/tasks/(\d+)/"): FakeLabelStudio._patch_task,
    ("POST", "/api/dm/actions/"): FakeLabelStudio._act,
    ("GET", r"/api/annotations/(\d+)/"): FakeLabelStudio._get_annotation,
    ("DELETE", r"/api/annotations/(\d+)/"): FakeLabelStudio._delete_annotation,
    ("GET", "/api/predictions/"): FakeLabelStudio._get_predictions,
    ("POST", "/api/predictions/"): FakeLabelStudio._post_prediction,
    ("GET", r"/api/predictions/(\d+)/"): FakeLabelStudio._get_prediction,
    ("GET", "/api/ml"): _listing("backends"),
    ("POST", "/api/ml"): FakeLabelStudio._post_backend,
    ("PATCH", r"/api/ml/(\d+)"): _changing("backends"),
    ("GET", "/api/webhooks/"): _listing("webhooks"),
    ("POST", "/api/webhooks/"): _making("webhooks"),
    ("PATCH", r"/api/webhooks/(\d+)/"): _changing("webhooks"),
    ("GET", "/api/dm/views/"): _listing("views"),
    ("POST", "/api/dm/views/"): _making("views"),
    ("PATCH", r"/api/dm/views/(\d+)/"): _changing("views"),
}


def _project(number: int, **more: Any) -> Json:
    return {"id": number, "maximum_annotations": 1, "model_version": "", **more}


def _done(found: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=found)


def _refuse(status: int) -> httpx.Response:
    return httpx.Response(status, json={"detail": REASONS[status]})


def _matches(task: Task, item: Json) -> bool:
    """Whether a task passes a filter of the Data Manager."""
    cancelled = sum(bool(record["was_cancelled"]) for record in task.annotations.values())
    known: Json = {
        "id": task.id,
        "updated_at": read_time(task.updated_at),
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
