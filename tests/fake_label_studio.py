"""Label Studio in memory: it answers what the package asks, as Label Studio 1.23 does.

Tests reach it as the package does, through the real client: ``FakeLabelStudio().client()``.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import httpx
import pytest

from alc_backend.common.types import Json
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import dataset_config
from tests.conftest import CLASSES
from tests.label_studio_api import LONG_AGO, REASONS, ROUTES, Task, new_project, refuse

URL = "http://label-studio.invalid"
PERSONAL_TOKEN, LEGACY_TOKEN = "a.personal.token", "legacytoken"
DATASET_PROJECT, QUERY_PROJECT = 11, 12
SMALL = 20_000
"""The bytes of an answer where tests let little be read."""

LATER = "2026-01-01T15:00:00Z"


class Request(NamedTuple):
    """One request that arrived, whatever was answered; ``body`` is None where it is not JSON."""

    method: str
    path: str
    parameters: dict[str, str]
    body: Any


class Dump(NamedTuple):
    """A copy of what Label Studio held at a moment."""

    projects: dict[int, Json]
    tasks: dict[int, Task]


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
    ``pauses`` (seconds) those of its clients, who do not wait. ``path`` is what a proxy takes away
    from the paths of requests.
    """

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.projects: dict[int, Json] = {
            DATASET_PROJECT: new_project(
                DATASET_PROJECT, title="pets", label_config=dataset_config(CLASSES)
            ),
            QUERY_PROJECT: new_project(QUERY_PROJECT, title="pets: queries"),
        }
        self.tasks: dict[int, Task] = {}
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.webhooks: dict[int, Json] = {}
        self.backends: dict[int, Json] = {}
        self.views: dict[int, Json] = {}
        self.requests: list[Request] = []
        self.pauses: list[float] = []
        self.uploads: dict[int, str] = {}
        self.unshowable: set[int] = set()
        self._failures: list[Failure] = []
        self.numbers = count(9000)
        self._access = "none yet"

    def client(self, token: str = PERSONAL_TOKEN) -> Client:
        """A client of this Label Studio."""
        transport = httpx.MockTransport(self._answer)
        return Client(URL + self.path, token, transport=transport, sleep=self.pauses.append)

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
            "id": next(self.numbers) if number is None else number,
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
        self._count(task)

    def remove_annotation(self, number: int, when: str = LATER) -> None:
        """Somebody deletes an annotation."""
        task = next(task for task in self.tasks.values() if number in task.annotations)
        del task.annotations[number]
        task.updated_at = when
        self._count(task)

    def change_overlap(self, overlap: int) -> None:
        """Somebody changes how many annotators each query is put to."""
        self.projects[QUERY_PROJECT]["maximum_annotations"] = overlap
        for task in self.tasks_of(QUERY_PROJECT):
            self._count(task)

    def dump(self) -> Dump:
        """What a dump of the database holds."""
        return Dump(deepcopy(self.projects), deepcopy(self.tasks))

    def restore(self, dump: Dump) -> None:
        """Go on from a dump."""
        self.projects, self.tasks = deepcopy(dump.projects), deepcopy(dump.tasks)

    def _count(self, task: Task) -> None:
        """Serve a task, or not, by its annotators alone, whoever had closed it."""
        given = task.annotations.values()
        annotators = {item.get("completed_by") for item in given if not item["was_cancelled"]}
        asked = self.projects[task.project]["maximum_annotations"] or 1
        task.is_labeled = len(annotators) >= (task.overlap or int(asked))

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

    def fail_at(self, task: int) -> None:
        """Answer 500 whenever this task's data or annotations would have to be shown."""
        self.unshowable.add(task)

    def spoil(self, task: int, kind: str) -> None:
        """Let a task be one that cannot be had: "large", where answers are ``small``, or "500"."""
        if kind == "500":
            self.fail_at(task)
        else:
            self.tasks[task].data["text"] = "x" * SMALL

    def recover(self) -> None:
        """Answer as usual again."""
        self._failures.clear()
        self.unshowable.clear()

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
        assert request.url.path.startswith(f"{self.path}/")
        path, parameters = request.url.path.removeprefix(self.path), dict(request.url.params)
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
            return refuse(401)
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
        self._access = f"access-{next(self.numbers)}"
        return httpx.Response(200, json={"access": self._access})

    def tasks_of(self, project: int) -> list[Task]:
        """The tasks of a project."""
        return [task for task in self.tasks.values() if task.project == project]
