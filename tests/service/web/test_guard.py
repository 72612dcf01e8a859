"""Passwords and failed attempts."""

from __future__ import annotations

import base64

import anyio
import pytest
from fastapi.testclient import TestClient

from alc_backend.service.web import guard
from alc_backend.service.web.app import create_app
from alc_backend.service.web.guard import FAILURES, Failures
from tests.access_table import address_of

OPEN = {"/health", "/ready"}


@pytest.fixture
def app(settings):
    return create_app(settings)


@pytest.fixture
def client(app):
    with TestClient(app) as client:
        yield client


def bearer(word):
    return {"Authorization": f"Bearer {word}"}


def test_everything_but_health_needs_the_password(app, client):
    """Also the pages, which the OpenAPI document leaves out."""
    found = [*app.routes]
    for route in app.routes:
        found += getattr(getattr(route, "original_router", None), "routes", [])
    routes = [(m, r.path) for r in found if hasattr(r, "methods") for m in r.methods]
    assert len(routes) > 15
    for method, path in routes:
        if path not in OPEN:
            assert client.request(method, address_of(path)).status_code == 401, (method, path)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer s3cre",
        "Bearer s3crett",
        "Basic !!!",
        "Basic " + base64.b64encode(b"alc:wrong").decode(),
        "Basic " + base64.b64encode(b"s3cret").decode(),
        "Token s3cret",
        "s3cret",
    ],
)
def test_wrong_passwords(client, given):
    assert client.get("/rounds", headers={"Authorization": given}).status_code == 401


def test_right_passwords(client):
    basic = base64.b64encode(b"anybody:s3cret").decode()
    assert client.get("/rounds", headers={"Authorization": f"Basic {basic}"}).status_code == 200
    assert client.get("/rounds", headers=bearer("s3cret")).status_code == 200


def test_many_wrong_passwords(client):
    """They are held off, and who has the right one still comes in."""
    answers = [client.get("/rounds", headers=bearer(f"guess{n}")) for n in range(FAILURES + 5)]
    assert [answer.status_code for answer in answers] == [401] * FAILURES + [429] * 5
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 61
    assert client.get("/rounds", headers=bearer("s3cret")).status_code == 200
    assert client.get("/rounds").status_code == 401  # a browser that will ask for it


def test_attempts_are_forgotten(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(guard.time, "monotonic", lambda: now)
    failures = Failures()
    assert [failures.add("a") > 0 for _ in range(FAILURES + 1)] == [False] * FAILURES + [True]
    assert failures.add("b") == 0
    now += guard.WITHIN_S + 1
    assert failures.add("a") == 0
    monkeypatch.setattr(guard, "ADDRESSES", 3)
    for number in range(100):
        failures.add(f"c{number}")
    assert len(failures) == 3


def test_wrong_passwords_are_logged_once_a_minute(client, caplog):
    for _ in range(FAILURES + 5):
        client.get("/rounds", headers=bearer("guess"))
    told = [record.getMessage() for record in caplog.records if "wrong password" in record.message]
    assert len(told) == 2
    assert told[1].endswith(f"more than {FAILURES} within a minute")
    assert "guess" not in caplog.text


def test_without_a_password_nothing_is_read(app):
    """A long body of somebody without a password costs nothing."""
    asked = []

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": b"[" * 2**16, "more_body": True}

    async def send(message):
        answered.append(message)

    answered = []
    scope = {
        "type": "http", "method": "POST", "path": "/webhook", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "client": ("127.0.0.1", 1),
    }  # fmt: skip
    anyio.run(app, scope, receive, send)
    assert answered[0]["status"] == 401
    assert asked == []
