"""What CVAT reports: signed by its webhook's secret, and believed in nothing but a job's number."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from alc_backend.cvat.signature import HEADER, secret_of, sign
from alc_backend.service.web.app import create_app
from alc_backend.service.web.bodies import SIGNED_BYTES
from alc_backend.service.web.guard import FAILURES
from alc_backend.store.cvat import CvatJob, CvatProject, CvatTask
from alc_backend.store.models import Project, Round
from tests.annotations import round_config

QUESTIONS, OTHER = 5, 6
JOB, OTHER_JOB = 50, 60
SECRET, OLD_SECRET = "s3cret", "the-secret-before"


@pytest.fixture
def store(store):
    """A store with two projects in CVAT, each with a job."""
    with store.session() as session:
        for questions, job in ((QUESTIONS, JOB), (OTHER, OTHER_JOB)):
            project = Project(name=f"pets {questions}", classes=["a", "b"])
            session.add(project)
            session.flush()
            round_ = Round(project_id=project.id, number=1, state="open", config=round_config())
            session.add(round_)
            session.flush()
            session.add(
                CvatProject(project_id=project.id, source="task", number=job, questions=questions)
            )
            task = CvatTask(project_id=project.id, round_id=round_.id, name="Round 1", task=job)
            session.add(task)
            session.flush()
            session.add(CvatJob(job=job, cvat_task_id=task.id, first=0, last=9))
    return store


@pytest.fixture
def client(store, settings, redis):
    with TestClient(create_app(settings)) as client:
        yield client


def is_reported(store, job=JOB):
    with store.reading() as session:
        return session.get_one(CvatJob, job).reported_at is not None


def body_of(job=JOB, event="update:job"):
    return json.dumps({"event": event, "job": {"id": job, "state": "completed"}}).encode()


def send(client, body, *, questions=QUESTIONS, secret=SECRET, signature=None, path=None):
    word = sign(body, secret_of(questions, secret)) if signature is None else signature
    headers = {HEADER: word, "Content-Type": "application/json"}
    return client.post(path or f"/cvat/{questions}", content=body, headers=headers)


def test_a_signed_report_is_noted(client, store):
    answer = send(client, body_of())
    assert (answer.status_code, answer.json()) == (200, {"known": True})
    assert is_reported(store)
    assert not is_reported(store, OTHER_JOB)


@pytest.mark.parametrize(
    "signature",
    ["", "sha256=", "sha256=" + 64 * "0", sign(b"{}", SECRET), sign(body_of(), SECRET), "é"],
)
def test_a_wrong_signature_is_refused(client, store, signature):
    assert send(client, body_of(), signature=signature.encode()).status_code == 401
    assert not is_reported(store)


def test_a_signature_is_of_one_body_and_one_project(client, store):
    other = sign(body_of(OTHER_JOB), secret_of(QUESTIONS, SECRET))
    assert send(client, body_of(), signature=other).status_code == 401
    assert send(client, body_of(), questions=OTHER, path=f"/cvat/{QUESTIONS}").status_code == 401
    assert send(client, body_of(), questions=OTHER).json() == {"known": False}
    assert not is_reported(store)


def test_without_a_signature_no_password_opens_it(client, store):
    for headers in ({}, {"Authorization": f"Bearer {SECRET}"}):
        answer = client.post(f"/cvat/{QUESTIONS}", content=body_of(), headers=headers)
        assert answer.status_code == 401
    assert not is_reported(store)


def test_a_signature_opens_nothing_else(client):
    signature = sign(body_of(), secret_of(QUESTIONS, SECRET))
    for path in ("/webhook", "/train", f"/cvat/{QUESTIONS}/", f"//cvat/{QUESTIONS}"):
        answer = send(client, body_of(), signature=signature, path=path)
        assert answer.status_code in (401, 404), path
    word = secret_of(QUESTIONS, SECRET)
    answer = client.get("/metrics", headers={"Authorization": f"Bearer {word}"})
    assert answer.status_code == 403


def test_many_wrong_signatures_are_held_off_and_right_ones_are_not(client, store):
    statuses = [send(client, body_of(), signature="x").status_code for _ in range(FAILURES + 1)]
    assert statuses == [401] * FAILURES + [429]
    assert send(client, body_of()).status_code == 200


def test_what_is_no_report_of_a_job_is_told(client, store):
    assert send(client, body_of(event="ping")).json() == {"known": False}
    assert send(client, body_of(999)).json() == {"known": False}
    for body in (b"", b"[]", b"{}", b"nonsense", body_of(True), body_of(2**40), body_of("50"),
                 body_of(event="update:task"), b"[" * 20_000):  # fmt: skip
        assert send(client, body).status_code in (413, 422), body[:30]
    assert not is_reported(store)


def test_nobody_can_send_much_without_a_password(client):
    long = b'{"event": "' + SIGNED_BYTES * b"x" + b'"}'
    assert send(client, long).status_code == 413


def test_the_secret_before_counts_until_it_is_forgotten(store, settings, redis):
    rotating = settings.model_copy(update={"secret_previous": SecretStr(OLD_SECRET)})
    with TestClient(create_app(rotating)) as client:
        assert send(client, body_of(), secret=OLD_SECRET).status_code == 200
    with TestClient(create_app(settings)) as client:
        assert send(client, body_of(), secret=OLD_SECRET).status_code == 401


def test_without_a_secret_nothing_can_be_signed(store, settings, redis):
    app = create_app(settings.model_copy(update={"secret": None}))
    with TestClient(app, base_url="http://127.0.0.1:9090") as client:
        assert send(client, body_of(), secret="").status_code == 401
    assert not is_reported(store)
