"""What each password opens: every route with every one, compared with docs/security.md."""

from __future__ import annotations

import base64

import pytest
from fastapi.testclient import TestClient

from alc_backend.common.credentials import Credential, Purpose
from alc_backend.service.web.app import create_app
from alc_backend.store.models import Project, Round
from tests.access_table import address_of, documented
from tests.annotations import DATASET_PROJECT, QUERY_PROJECT, asked_project, round_config

OTHER_PROJECT = 77
"""A Label Studio project of another project of the store."""

SECRET, OLD_SECRET = "s3cret", "the-secret-before"


@pytest.fixture
def project(store, dataset):
    number = asked_project(store, dataset)
    with store.session() as session:
        other = Project(name="other", classes=["a", "b"], query_project=OTHER_PROJECT)
        session.add(other)
        session.flush()
        session.add(Round(project_id=other.id, number=1, state="open", config=round_config()))
    return number


@pytest.fixture
def app(settings, project, redis):
    return create_app(settings)


@pytest.fixture
def client(app):
    with TestClient(app) as client:
        yield client


def password(purpose, project=QUERY_PROJECT, secret=SECRET):
    return Credential(purpose, project).password(secret)


def bearer(word):
    return {"Authorization": f"Bearer {word}"} if word else {}


PASSWORDS = {
    "nobody": "",
    "webhook": password(Purpose.WEBHOOK),
    "backend": password(Purpose.BACKEND),
    "`ALC_SECRET`": SECRET,
}
"""The columns of the table, and a password for each."""


def routes_of(app):
    found = [*app.routes]
    for route in app.routes:
        found += getattr(getattr(route, "original_router", None), "routes", [])
    return sorted((m, r.path) for r in found if hasattr(r, "methods") for m in r.methods)


def body_of(path, project=QUERY_PROJECT, *, start=False):
    if path == "/webhook":
        if start:
            return {"action": "START_TRAINING", "project": {"id": project}}
        gone = [{"id": 1}]
        return {"action": "ANNOTATIONS_DELETED", "project": {"id": project}, "annotations": gone}
    if path == "/job_status":
        return {"job": "round-1" if project == QUERY_PROJECT else "round-2"}
    return {"project": f"{project}.1", "tasks": [], "schema": "<View/>"}


def ask(client, method, path, word, body=None):
    return client.request(method, address_of(path), json=body, headers=bearer(word))


def is_refused(answer):
    """Whether it was for want of the right password; what a form lacks is something else."""
    return answer.status_code in (401, 403, 429) and "out of date" not in answer.text


def test_the_table_has_every_route_and_no_other(app):
    assert sorted(documented()) == routes_of(app)
    assert {column for cells in documented().values() for column in cells} == {*PASSWORDS}


@pytest.mark.parametrize("column", PASSWORDS)
def test_each_password_opens_what_the_table_says(app, client, column):
    for (method, path), cells in documented().items():
        cell = cells[column]
        starts = cell == "starts a round"
        answer = ask(client, method, path, PASSWORDS[column], body_of(path, start=starts))
        assert is_refused(answer) == (cell == "–"), (method, path, answer.text)
        assert answer.status_code < 500, (method, path, answer.text)


@pytest.mark.parametrize("column", ["webhook", "backend"])
def test_nothing_of_another_project_is_opened(client, column):
    for (method, path), cells in documented().items():
        cell = cells[column]
        if cell == "yes":  # for everybody
            continue
        for starts in (False, True):
            body = body_of(path, OTHER_PROJECT, start=starts)
            asked = path + f"?project={OTHER_PROJECT}" if path == "/versions" else path
            answer = ask(client, method, asked, PASSWORDS[column], body)
            assert answer.status_code in (403, 404), (method, path, answer.text)
            assert answer.status_code == 403 or path == "/job_status"


def test_the_dataset_project_is_another_one(client):
    word = password(Purpose.BACKEND, DATASET_PROJECT)
    assert ask(client, "POST", "/setup", word, body_of("/setup", DATASET_PROJECT)).is_success
    assert ask(client, "POST", "/setup", word, body_of("/setup")).status_code == 403


def test_the_webhooks_password_starts_no_round_and_the_backends_reports_nothing(client):
    start, report = body_of("/webhook", start=True), body_of("/webhook")
    for purpose, body, status in (
        (Purpose.WEBHOOK, start, 403),
        (Purpose.BACKEND, report, 403),
        (Purpose.WEBHOOK, report, 200),
        (Purpose.BACKEND, start, 200),
    ):
        assert ask(client, "POST", "/webhook", password(purpose), body).status_code == status


def test_the_versions_are_those_of_the_passwords_project(client):
    """Label Studio does not say which project it asks about."""
    assert ask(client, "GET", "/versions", PASSWORDS["backend"]).json() == {
        "versions": ["alc-round-1"]
    }


def test_basic_auth_is_what_label_studio_sends(client):
    word = base64.b64encode(f"alc:{PASSWORDS['backend']}".encode()).decode()
    headers = {"Authorization": f"Basic {word}"}
    assert client.post("/setup", json=body_of("/setup"), headers=headers).status_code == 200
    assert client.get("/metrics", headers=headers).status_code == 403


@pytest.mark.parametrize("path", ["/webhook/", "//webhook", "/setup/", "/webhook?x=/health"])
def test_no_spelling_of_a_path_opens_more(client, path):
    answer = ask(client, "POST", path, PASSWORDS["backend"], body_of("/webhook"))
    assert answer.status_code in (403, 404)


def test_what_the_secret_before_gave_away_opens_what_it_opened(settings, project, redis):
    """Until `alc secret rotate` has replaced it; that secret itself opens nothing more."""
    rotating = settings.model_copy(update={"secret_previous": type(settings.secret)(OLD_SECRET)})
    old = password(Purpose.BACKEND, secret=OLD_SECRET)
    with TestClient(create_app(rotating)) as client:
        assert ask(client, "POST", "/setup", old, body_of("/setup")).status_code == 200
        assert ask(client, "GET", "/metrics", old).status_code == 403
        assert ask(client, "GET", "/metrics", OLD_SECRET).status_code == 401
        assert ask(client, "GET", "/metrics", SECRET).status_code == 200
    with TestClient(create_app(settings)) as client:
        assert ask(client, "POST", "/setup", old, body_of("/setup")).status_code == 401


def test_connections_that_carry_the_secret_itself_are_known(client):
    """So that `alc doctor` can find them: Label Studio does not tell a backend's password."""

    def found():
        return ask(client, "GET", "/connections", SECRET).json()["with_the_secret"]

    assert found() == []
    ask(client, "POST", "/setup", SECRET, body_of("/setup"))
    assert found() == [QUERY_PROJECT]
    ask(client, "POST", "/setup", PASSWORDS["backend"], body_of("/setup"))
    assert found() == []


def test_without_a_secret_everything_is_open(settings, project, redis):
    """Only to this machine: see the test that a public address needs a secret."""
    app = create_app(settings.model_copy(update={"secret": None}))
    with TestClient(app, base_url="http://127.0.0.1:9090") as client:
        assert client.get("/metrics").status_code == 200
        assert client.post("/setup", json=body_of("/setup")).status_code == 200
        assert client.get("/rounds", headers=bearer("anything")).status_code == 200
