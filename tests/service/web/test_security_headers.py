"""Every answer tells browsers to trust it with nothing."""

from __future__ import annotations

import anyio
import pytest

from alc_backend.service.web.app import create_app
from tests.annotations import asked_project
from tests.asgi import ask, scope

PASSWORD = (b"authorization", b"Bearer s3cret")


@pytest.fixture
def app(settings, store, dataset, redis):
    asked_project(store, dataset)
    app = create_app(settings)

    @app.get("/broken")
    def broken():
        raise RuntimeError("it burns, with a secret")

    return app


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/health", [], 200),
        ("GET", "/rounds", [], 401),
        ("GET", "/", [PASSWORD], 303),
        ("GET", "/projects/1", [PASSWORD], 200),
        ("GET", "/rounds", [PASSWORD], 200),
        ("GET", "/metrics", [PASSWORD], 200),
        ("GET", "/images/1/image", [PASSWORD], 200),
        ("GET", "/nothing", [PASSWORD], 404),
        ("DELETE", "/rounds", [PASSWORD], 405),
        ("POST", "/projects/1/start", [PASSWORD], 403),
        ("POST", "/rounds", [PASSWORD, (b"content-length", b"99999")], 413),
        ("POST", "/rounds", [PASSWORD], 422),
        ("GET", "/broken", [PASSWORD], 500),
    ],
)
def test_every_answer_has_them(app, method, path, headers, status):
    found = []

    async def run():
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            found.append(message)

        try:
            await app(scope(method, path, headers), receive, send)
        except RuntimeError:
            assert status == 500

    anyio.run(run)
    assert found[0]["status"] == status
    sent = {name.decode().lower(): value.decode() for name, value in found[0]["headers"]}
    assert sent["x-content-type-options"] == "nosniff"
    assert sent["x-frame-options"] == "DENY"
    assert sent["referrer-policy"] == "same-origin"
    assert "default-src 'none'" in sent["content-security-policy"]
    assert "frame-ancestors 'none'" in sent["content-security-policy"]
    assert sent["cross-origin-resource-policy"] == "same-origin"
    assert "public" not in sent["cache-control"]
    assert "server" not in sent
    assert b"secret" not in found[1]["body"] or status == 401 or path == "/"


def test_what_an_answer_says_itself_is_kept(app):
    answered = anyio.run(ask, app, scope(path="/images/1/image", headers=[PASSWORD]))
    assert answered.headers["cache-control"] == "private, max-age=86400"
