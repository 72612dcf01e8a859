"""Everything goes wrong: webhooks, the worker, the service, Redis and Label Studio.

What is here makes trouble and notes what it did; ``test_chaos`` says what must be true afterwards.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice

import httpx
import psutil
from redis.exceptions import RedisError

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.page import TICKS
from alc_backend.labelstudio.tasks import annotation_result
from alc_backend.labelstudio.tokens import create_personal_token
from alc_backend.service.jobs.queues import connect
from alc_backend.service.jobs.worker_registry import workers

DROPPED, DOUBLED, DELAYED = 0.3, 0.2, 0.3
"""Shares of the webhooks that are lost, come twice, and come late."""


class UnreliableWire:
    """What lies between Label Studio and the backend: it loses, doubles and delays webhooks."""

    def __init__(self, port: int, backend: str, seed: int) -> None:
        self.did: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._backend = backend
        wire = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wire.forward(self, b"")

            def do_POST(self) -> None:
                wire.forward(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forward(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in ("authorization", "content-type")
        }
        delay, times = 0.0, 1
        if request.path == "/webhook" and (b"ANNOTATION" in body or b"TASKS_DELETED" in body):
            draw = self._random.random()
            if draw < DROPPED:
                times = 0
                self.did["lost"] += 1
            elif draw < DROPPED + DOUBLED:
                times = 2
                self.did["doubled"] += 1
            elif draw < DROPPED + DOUBLED + DELAYED:
                delay = self._random.uniform(0.5, 8.0)
                self.did["delayed"] += 1
        if delay:
            late = threading.Timer(
                delay, self._send, (request.command, request.path, headers, body)
            )
            late.daemon = True
            late.start()
            times = 0
        status, content = 200, b"{}"
        for _ in range(times):
            status, content = self._send(request.command, request.path, headers, body)
        with suppress(ConnectionError):  # the sender waits a second at most
            request.send_response(status)
            request.send_header("Content-Type", "application/json")
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)

    def _send(self, method: str, path: str, headers: dict, body: bytes) -> tuple[int, bytes]:
        try:
            answer = httpx.request(
                method, self._backend + path, headers=headers, content=body, timeout=10
            )
        except httpx.HTTPError:
            self.did["not delivered"] += 1
            return 502, b"{}"
        return answer.status_code, answer.content


class Killer(threading.Thread):
    """Kills one after the other, each a random while after all of them came up again.

    It kills nobody while another thread has ``hold``.
    """

    VICTIMS = ("worker", "backend", "redis", "worker")

    def __init__(
        self, processes, settings, seed: int, pause_s: tuple[float, float], kills: int
    ) -> None:
        super().__init__(name="killer", daemon=True)
        self.did: Counter[str] = Counter()
        self.hold = threading.Lock()
        self._processes, self._settings = processes, settings
        self._random, self._pause_s = random.Random(seed), pause_s
        self._kills = kills

    def run(self) -> None:
        for victim in islice(cycle(self.VICTIMS), self._kills):
            killed = False
            while not killed:  # it may go down by itself meanwhile
                self._wait()
                with self.hold:
                    killed = self.kill(victim)

    def _wait(self) -> None:
        while not self._a_worker_is_there():
            time.sleep(0.2)
        time.sleep(self._random.uniform(*self._pause_s))

    def _a_worker_is_there(self) -> bool:
        """Whether the service, Redis and a worker that has signed in are up."""
        try:
            backend = psutil.Process(self._processes.pid_of("backend"))
            signed_in = {worker.pid for worker in workers(connect(self._settings))}
            return any(child.pid in signed_in for child in backend.children())
        except (psutil.Error, RedisError):
            return False

    def kill(self, name: str) -> bool:
        """SIGKILL the worker, the service, Redis, or Label Studio; whether it was there."""
        try:
            if name in ("backend", "label-studio"):
                pid = self._processes.pid_of(name)
            else:
                backend = psutil.Process(self._processes.pid_of("backend"))
                word = "redis" if name == "redis" else "worker"
                pid = next(
                    child.pid
                    for child in backend.children()
                    if any(word in part for part in child.cmdline())
                )
            os.kill(pid, signal.SIGKILL)
        except (psutil.Error, ProcessLookupError, StopIteration):
            return False
        self.did[name] += 1
        return True


class Supervisor:
    """Starts again what dies, as a service manager does, while its context lasts.

    What was started here ends with the thread that started it, so with this context.
    """

    def __init__(self, processes) -> None:
        self._processes = processes
        self._over, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def held(self):
        """Nothing is started again while this context lasts."""
        with self._lock:
            yield

    def _watch(self) -> None:
        while not self._over.wait(0.3):
            with self._lock:
                self._processes.check()


@dataclass(frozen=True)
class Answered:
    """An annotation, by its id, of a task that showed the prediction ``shown``.

    ``choices`` are the names of the classes or, on a page, the values of its tiles.
    """

    annotation: int
    shown: list
    choices: list[str]
    is_page: bool

    def result(self, random_: random.Random) -> list:
        """What somebody submits: what is shown half the time, else anything."""
        as_shown = random_.random() < 0.5
        if not self.is_page:
            chosen = self.choices[0] if as_shown else random_.choice(self.choices)
            return annotation_result(self.shown, chosen)
        if as_shown:
            return self.shown
        ticked = [value for value in self.choices if random_.random() < 0.6]
        return page_result(self.shown, ticked)


def page_result(shown: list, ticked: list[str]) -> list:
    """The result that a page's screen submits with these tiles ticked."""
    ticks = [{**item, "value": {"choices": ticked}} for item in shown if item["from_name"] == TICKS]
    others = [item for item in shown if item["from_name"] != TICKS]
    return others + (ticks if ticked else [])


class Labeler(threading.Thread):
    """Somebody who answers, skips, thinks again, withdraws, and sometimes repaints a mask.

    New questions are answered only while the labeler ``has_time``: there are not too many.
    """

    def __init__(
        self,
        url: str,
        token: str,
        query_project: int,
        dataset_project: int,
        seed: int,
        has_time: Callable[[], bool],
    ) -> None:
        super().__init__(name=f"labeler-{seed}", daemon=True)
        self.did: Counter[str] = Counter()
        self._client = Client(url, token, timeout=30)
        self._queries, self._dataset = query_project, dataset_project
        self._random, self._has_time = random.Random(seed), has_time
        self.paints = ["ball"]
        self._mine: list[Answered] = []
        self._remembered: list[Answered] | None = None
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._act()
            except LabelStudioError as error:
                self.did["refused" if error.status else "away"] += 1
                self._over.wait(0.5)
        self._client.close()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def memory(self) -> list[Answered]:
        """What this one has answered and may think of again."""
        return list(self._mine)

    def remember(self, memory: list[Answered]) -> None:
        """Forget all but ``memory``: what came after it is gone from Label Studio."""
        self._remembered = list(memory)

    def _act(self) -> None:
        if self._remembered is not None:
            self._mine, self._remembered = self._remembered, None
        draw = self._random.random()
        if draw < 0.04 and self._mine:
            self._revise()
        elif draw < 0.07 and self._mine:
            given = self._mine.pop(self._random.randrange(len(self._mine)))
            self._client.delete(f"/api/annotations/{given.annotation}/")
            self.did["withdrawn"] += 1
        elif draw < 0.10:
            self._repaint()
        else:
            self._answer(skip=draw > 0.95)

    def _answer(self, skip: bool) -> None:
        task = None
        if self._has_time():
            task = self._client.get_or_none(f"/api/projects/{self._queries}/next")
        if task is None:  # nothing left until the next round
            self._over.wait(0.3)
            return
        if not task["predictions"]:
            self.did["without prediction"] += 1
            if self._random.random() < 0.2:  # it is served again until it is at least skipped
                body = {"result": [], "was_cancelled": True}
                self._client.post(f"/api/tasks/{task['id']}/annotations/", body)
                self.did["skipped"] += 1
            return
        data, prediction = task["data"], task["predictions"][0]
        choices = [choice["value"] for choice in data["tiles"] or data["choices"]]
        asked = Answered(0, prediction["result"], choices, bool(data["tiles"]))
        body = {
            "result": asked.result(self._random),
            "parent_prediction": prediction["id"],
            "was_cancelled": skip,
            "lead_time": 2.0,
        }
        made = self._client.post(f"/api/tasks/{task['id']}/annotations/", body)
        if asked.is_page:
            self.did["pages skipped" if skip else "pages answered"] += 1
        self.did["skipped" if skip else "answered"] += 1
        if not skip:
            self._mine.append(replace(asked, annotation=made["id"]))

    def _revise(self) -> None:
        given = self._random.choice(self._mine)
        result = given.result(self._random)
        self._client.patch(f"/api/annotations/{given.annotation}/", {"result": result})
        self.did["pages revised" if given.is_page else "revised"] += 1

    def _repaint(self) -> None:
        label = None if self._random.random() < 0.3 else self._random.choice(self.paints)
        if repaint(self._client, self._dataset, self._random, label) is not None:
            self.did["repainted"] += 1


def repaint(client: Client, dataset_project: int, random_: random.Random, label: str | None):
    """Give a region of some image another label, or erase it where ``label`` is None.

    Returns the annotation's id, None where the image shows no region.
    """
    tasks = client.get("/api/tasks/", project=dataset_project, fields="task_only", page_size=100)
    task = random_.choice(tasks["tasks"])
    client.post(
        "/api/dm/actions",
        {"selectedItems": {"all": False, "included": [task["id"]]}},
        id="retrieve_tasks_predictions",
        project=dataset_project,
    )
    found = client.get("/api/predictions/", task=task["id"])
    if not found or not found[-1]["result"]:
        return None
    shown = found[-1]
    region = random_.randrange(len(shown["result"]))
    result = [dict(item) for item in shown["result"]]
    if label is None:
        del result[region]
    else:
        value = {**result[region]["value"], "brushlabels": [label]}
        result[region] = {**result[region], "value": value, "origin": "prediction-changed"}
    body = {"result": result, "parent_prediction": shown["id"]}
    return int(client.post(f"/api/tasks/{task['id']}/annotations/", body)["id"])


def new_user(client: Client, email: str, password: str) -> str:
    """Sign somebody up by an invitation; returns their personal access token."""
    invitation = client.get("/api/invite")["token"]
    with httpx.Client(base_url=client.url, follow_redirects=True, timeout=60) as http:
        address = f"/user/signup/?token={invitation}"
        page = http.get(address).text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]
        form = {"csrfmiddlewaretoken": token, "email": email, "password": password}
        headers = {"Referer": f"{client.url}{address}"}
        http.post(address, data=form, headers=headers).raise_for_status()
    return create_personal_token(client.url, email, password)


def wait_until(condition, limit_s: float, what: str) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {limit_s:.0f} s"
        time.sleep(0.3)
