"""What a user of Label Studio can obtain there, and how far it gets them."""

from __future__ import annotations

import base64
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from alc_backend.cli.demo.processes import start_backend
from alc_backend.cli.doctor_checks.examination import examine
from alc_backend.cli.doctor_checks.finding import State
from alc_backend.common.credentials import Credential, Purpose
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.projects import backends_at, connect_backend, webhooks_at
from alc_backend.labelstudio.tasks import annotation_result
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.rounds import status
from alc_backend.service.jobs.processes import Processes
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.incoming import Event
from alc_backend.store.models import Image, Project
from tests.access_table import address_of, documented
from tests.annotations import region
from tests.conftest import wait_for, write_dataset
from tests.e2e.chaos import new_user
from tests.e2e.demonstration import alc, project_row, wait_open
from tests.ports import free_port

pytestmark = [pytest.mark.ls, pytest.mark.slow]

OPEN_TO_ALL = ("/health", "/ready")


@pytest.fixture(scope="module")
def asked(running):
    """The demonstration with an open round."""
    demo, processes = running
    if status.latest_round(demo.store, demo.project_id) is None:
        alc(demo, "round", "start", "--size", "10")
        wait_open(demo, processes)
    return demo


@pytest.fixture(scope="module")
def project(asked):
    return project_row(asked)


@pytest.fixture(scope="module")
def user(asked):
    """An ordinary user of Label Studio, whom the administrator has invited."""
    token = new_user(asked.client, "mallory@example.com", "correct horse 9")
    with Client(asked.client.url, token) as client:
        yield client


class Listener:
    """A backend of the user's own, which notes with what it is called."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.heard.append(self.headers.get("Authorization", ""))
                content = json.dumps({"status": "UP", "model_version": "x"}).encode()
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def passwords(self) -> set[str]:
        basic = (word.removeprefix("Basic ") for word in self.heard if word.startswith("Basic "))
        return {base64.b64decode(word).decode().partition(":")[2] for word in basic}


@pytest.fixture(scope="module")
def obtained(asked, project, user):
    """The passwords that the user gets out of Label Studio: by project, of webhook and backend."""
    found = {}
    secret = asked.settings.secret.get_secret_value()
    for number in (project.dataset_project, project.query_project):
        (hook,) = webhooks_at(user, number, asked.settings.backend)
        (entry,) = backends_at(user, number, asked.settings.backend)
        listener = Listener()
        body = {key: entry[key] for key in ("project", "title", "auth_method", "basic_auth_user")}
        user.patch(f"/api/ml/{entry['id']}", {**body, "url": listener.url, "basic_auth_pass": ""})
        user.get(f"/api/ml/{entry['id']}")
        listener.close()
        (password,) = listener.passwords()
        found[number] = (hook["headers"]["Authorization"].removeprefix("Bearer "), password)
        asked.client.delete(f"/api/ml/{entry['id']}")
        connect_backend(asked.client, number, asked.settings.backend, secret)
    return found


def call(demo, method, path, password, body=None):
    return httpx.request(
        method,
        demo.settings.backend + address_of(path),
        json=body,
        headers={"Authorization": f"Bearer {password}"},
        timeout=60,
    )


def test_label_studio_does_not_hold_the_secret(asked, obtained):
    secret = asked.settings.secret.get_secret_value()
    words = [word for pair in obtained.values() for word in pair]
    assert len({*words}) == 4
    assert not any(secret in word for word in words)


def test_what_a_user_obtains_opens_no_more_than_the_table_says(asked, project, obtained):
    """Every route, with the passwords of both projects, in the name of both."""
    columns = ("webhook", "backend")
    for number, words in obtained.items():
        for column, word in zip(columns, words, strict=True):
            for (method, path), cells in documented().items():
                if path in OPEN_TO_ALL:
                    continue
                for other in {project.dataset_project, project.query_project} - {number}:
                    body = {"project": f"{other}.1", "tasks": [], "job": "round-0"}
                    asked_path = f"{path}?project={other}" if path == "/versions" else path
                    if path == "/webhook":
                        body = {"action": "START_TRAINING", "project": {"id": other}}
                    answer = call(asked, method, asked_path, word, body)
                    closed = (403, 404) if path == "/job_status" else (403,)
                    assert answer.status_code in closed, (column, path, answer.text)
                if cells[column] == "–":
                    body = {"project": f"{number}.1", "tasks": []}
                    assert call(asked, method, path, word, body).status_code == 403, path


def test_with_what_label_studio_holds_it_still_works(asked, project):
    """The backend's state is what Label Studio finds when it calls /health and /setup."""
    for number in (project.dataset_project, project.query_project):
        (entry,) = backends_at(asked.client, number, asked.settings.backend)
        assert asked.client.get(f"/api/ml/{entry['id']}")["state"] == "CO"


def in_ledger(demo):
    with demo.store.reading() as session:
        return {
            entry.annotation_id: (entry.kind, entry.class_id, entry.annotator)
            for entry in ledger.standing(session, demo.project_id)
        }


def report(demo, project, obtained, **event):
    """Post what a webhook would, with the password that the user read; waits until it is read."""
    word, _ = obtained[project.query_project]
    body = {"project": {"id": project.query_project}, **event}
    assert call(demo, "POST", "/webhook", word, body).status_code == 200
    wait_for(lambda: not webhooks.waiting(demo.store))


def test_a_forged_webhook_puts_nothing_into_the_ledger(asked, project, user, obtained):
    admin = asked.client.get("/api/current-user/whoami")["id"]
    task = user.get(f"/api/projects/{project.query_project}/next")
    shown = task["predictions"][0]["result"]
    first, second = (choice["value"] for choice in task["data"]["choices"][:2])
    before = in_ledger(asked)
    forged = {
        "id": 987654,
        "task": task["id"],
        "completed_by": admin,
        "was_cancelled": False,
        "result": annotation_result(shown, second),
        "created_at": "2030-01-01T00:00:00Z",
        "updated_at": "2030-01-01T00:00:00Z",
    }
    report(asked, project, obtained, action="ANNOTATION_CREATED", annotation=forged, task=task)
    assert in_ledger(asked) == before
    with asked.store.reading() as session:
        latest = select(Event.outcome).order_by(Event.id.desc()).limit(1)
        assert session.scalar(latest) == "1 not in Label Studio"

    body = {"result": annotation_result(shown, first), "lead_time": 2.0}
    made = asked.client.post(f"/api/tasks/{task['id']}/annotations/", body)
    wait_for(lambda: made["id"] in in_ledger(asked))
    given = in_ledger(asked)
    assert given[made["id"]][2] == str(admin)
    changed = {**forged, "id": made["id"], "completed_by": admin + 1}
    report(asked, project, obtained, action="ANNOTATION_UPDATED", annotation=changed, task=task)
    gone = [{"id": made["id"]}]
    report(asked, project, obtained, action="ANNOTATIONS_DELETED", annotations=gone)
    report(asked, project, obtained, action="TASKS_DELETED", tasks=[{"id": task["id"]}])
    assert in_ledger(asked) == given

    asked.client.delete(f"/api/annotations/{made['id']}/")
    wait_for(lambda: made["id"] not in in_ledger(asked))


def findings(demo, *, fix=False):
    name = project_row(demo).name
    found = examine(demo.settings, fix=fix)
    return {each.check: each for each in found if each.project == name}


def test_connections_that_hold_the_secret_are_found_and_replaced(asked, project, user):
    """As they were made before."""
    secret, queries = asked.settings.secret.get_secret_value(), project.query_project
    (hook,) = webhooks_at(asked.client, queries, asked.settings.backend)
    (entry,) = backends_at(asked.client, queries, asked.settings.backend)
    headers = {"Authorization": f"Bearer {secret}"}
    asked.client.patch(f"/api/webhooks/{hook['id']}/", {"url": hook["url"], "headers": headers})
    body = {key: entry[key] for key in ("project", "title", "auth_method", "basic_auth_user")}
    asked.client.patch(
        f"/api/ml/{entry['id']}", {**body, "url": entry["url"], "basic_auth_pass": secret}
    )
    about = ("backend of the query project", "webhook of the query project")
    found = findings(asked)
    for check in about:
        assert found[check].state == State.PROBLEM
        assert "ALC_SECRET itself" in found[check].detail
        assert "alc secret rotate" in found[check].remedy
    findings(asked, fix=True)
    found = findings(asked)
    assert [found[check].state for check in about] == [State.OK] * 2
    (hook,) = webhooks_at(user, queries, asked.settings.backend)
    assert secret not in str(hook)


# A new secret.


class Own:
    """A backend of our own beside the demonstration's, with a dataset of three images.

    It looks for annotations that were not reported when it starts, and then no more.
    """

    def __init__(self, demo, folder):
        self._folder, self._numbers = folder, count()
        settings = demo.settings.model_copy(
            update={"data_dir": folder / "data", "port": free_port(), "reconcile_every_s": 86400}
        )
        self.demo = replace(demo, settings=settings)

    @contextmanager
    def serving(self, secret, previous=None):
        """The service runs with a secret."""
        secrets = {"secret": SecretStr(secret), "secret_previous": previous and SecretStr(previous)}
        settings = self.demo.settings.model_copy(update=secrets)
        self.demo = replace(self.demo, settings=settings)
        with Processes(self._folder / "logs") as processes:
            start_backend(processes, settings)
            yield

    def init(self):
        alc(self.demo, "init", str(write_dataset(self._folder / "own")))
        self.demo = replace(self.demo, store=Store(self.demo.settings))
        with self.demo.store.reading() as session:
            project = session.scalars(select(Project)).one()
            self._task = session.scalars(select(Image.dataset_task)).first()
        self.demo = replace(self.demo, project_id=project.id)
        return project

    def give(self):
        """Somebody paints a corner of an image; the annotation's number."""
        rows = slice(4 * next(self._numbers), None)
        painted = region("dog", slice(rows.start, rows.start + 4), slice(0, 4))
        body = {"result": [painted], "lead_time": 2.0}
        return self.demo.client.post(f"/api/tasks/{self._task}/annotations/", body)["id"]

    def reported(self):
        """The annotations that webhooks have named."""
        with self.demo.store.reading() as session:
            payloads = session.scalars(select(Event.payload)).all()
        return {number for payload in payloads for number, _ in payload["annotations"]}


def held(own, project):
    """The passwords of webhooks that Label Studio holds, and those of backends, by project."""
    found = []
    secret = own.demo.settings.secret.get_secret_value()
    for number in (project.dataset_project, project.query_project):
        (hook,) = webhooks_at(own.demo.client, number, own.demo.settings.backend)
        word = hook["headers"]["Authorization"].removeprefix("Bearer ")
        assert word == Credential(Purpose.WEBHOOK, number).password(secret)
        found.append(("/webhook", number, word))
        found.append(("/setup", number, Credential(Purpose.BACKEND, number).password(secret)))
    return found


def statuses(own, words):
    """What the service answers to passwords, each at what it is for."""
    return {
        call(
            own.demo, "POST", path, word, {"project": f"{number}.1", "schema": "<View/>"}
        ).status_code
        for path, number, word in words
    }


def test_a_new_secret_shuts_out_the_old_one_and_loses_no_answer(running, tmp_path):
    own = Own(running[0], tmp_path)
    old = "the-secret-of-many-years"
    with own.serving(old):
        project = own.init()
        old_words = held(own, project)
        given = [own.give()]
        wait_for(lambda: in_ledger(own.demo).keys() == {*given})
        said = alc(own.demo, "secret", "rotate")
    new = re.search(r"ALC_SECRET=([0-9a-f]+)", said)[1]

    missed = [own.give()]  # nobody hears of it: the service is being restarted
    with own.serving(new, previous=old):
        assert call(own.demo, "GET", "/connections", old).status_code == 401
        assert call(own.demo, "GET", "/connections", new).status_code == 200
        assert 401 not in statuses(own, old_words)
        given.append(own.give())  # its webhook has a password of the old secret
        wait_for(lambda: {*given} <= in_ledger(own.demo).keys())
        assert "connected with the new secret" in alc(own.demo, "secret", "rotate")
        new_words = held(own, project)
        assert not {*new_words} & {*old_words}
        given.append(own.give())
        wait_for(lambda: {*given} <= in_ledger(own.demo).keys())

    missed.append(own.give())
    with own.serving(new):
        assert statuses(own, old_words) == {401}
        assert 401 not in statuses(own, new_words)
        for number in (project.dataset_project, project.query_project):
            (entry,) = backends_at(own.demo.client, number, own.demo.settings.backend)
            assert own.demo.client.get(f"/api/ml/{entry['id']}")["state"] == "CO"
        given.append(own.give())
        wait_for(lambda: {*given} <= in_ledger(own.demo).keys())
        assert own.reported() == {*given}
        wait_for(lambda: in_ledger(own.demo).keys() == {*given, *missed})
    own.demo.store.close()
