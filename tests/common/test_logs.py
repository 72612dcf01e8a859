"""What is logged: as JSON, with the request's id into the jobs, and nothing secret."""

from __future__ import annotations

import io
import json
import logging

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from alc_backend.common import logs
from alc_backend.service.jobs.queues import REQUEST, Jobs, job_of
from alc_backend.service.web.app import create_app
from alc_backend.settings import Settings
from tests.command_line import alc, alc_with


@pytest.fixture
def database_url():
    """Logging has nothing to do with the database: one is enough."""


@pytest.fixture
def as_json(settings, monkeypatch):
    root, written = logging.getLogger(), io.StringIO()
    monkeypatch.setattr(root, "handlers", [])  # pytest's own would be closed
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr("sys.stderr", written)
    token = SecretStr("eyJhbGciOi.eyJ0b2tl.bm9uZQ")
    changes = {"log_format": "json", "label_studio_api_key": token}
    logs.configure(settings.model_copy(update=changes))
    return lambda: [json.loads(line) for line in written.getvalue().splitlines()]


def test_json_lines(as_json):
    try:
        raise RuntimeError("it burns")
    except RuntimeError:
        with logs.about("r1", "round-1-training-0"):
            logging.getLogger("alc_backend.x").exception("round %s failed", 1)
    (line,) = as_json()
    assert line["message"] == "round 1 failed"
    assert (line["level"], line["logger"]) == ("ERROR", "alc_backend.x")
    assert (line["request"], line["job"]) == ("r1", "round-1-training-0")
    assert "RuntimeError: it burns" in line["exc_info"]
    assert "time" in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_passwords_in_addresses_and_with_quotes(settings, monkeypatch, log_format):
    root, written = logging.getLogger(), io.StringIO()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr("sys.stderr", written)
    changes = {
        "log_format": log_format,
        "secret": SecretStr('pass"word\\1'),
        "database_url": "postgresql://alc:p%40ssw0rd@127.0.0.1/alc",
        "redis_url": "redis://:redispass@127.0.0.1/0",
    }
    logs.configure(settings.model_copy(update=changes))
    for word in ('pass"word\\1', "p%40ssw0rd", "p@ssw0rd", "redispass"):
        logging.getLogger("alc_backend").warning("it is %s", word)
    assert written.getvalue().count("it is …") == 4


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ALC_SECRET", "GeheimnisÜ€", "visible ASCII"),
        ("LABEL_STUDIO_API_KEY", "top secret", "visible ASCII"),
        ("DATABASE_URL", "postgresql://alc:pa@ssw@127.0.0.1/alc", "percent-encoded"),
        ("REDIS_URL", "redis://:pa/ssw@127.0.0.1:6379/0", "percent-encoded"),
    ],
)
def test_secrets_that_cannot_be_sent_are_refused_without_telling_them(
    settings, tmp_path, variable, value, said
):
    environment = {**settings.environment(), variable: value}
    done = alc_with(environment, tmp_path, "doctor", "--json")
    assert done.returncode == 1
    assert variable in done.stderr
    assert said in " ".join(done.stderr.split())
    assert not any(part in done.stdout + done.stderr for part in ("ssw@", "/ssw", "Geheim", value))


def test_a_line_end_is_no_part_of_a_secret():
    given = Settings(secret="TopSecret123\n", label_studio_api_key=" a.b.c\n", _env_file=None)
    assert given.secret.get_secret_value() == "TopSecret123"
    assert given.label_studio_api_key.get_secret_value() == "a.b.c"


@pytest.mark.parametrize(
    "said",
    [
        "the token eyJhbGciOi.eyJ0b2tl.bm9uZQ was refused",
        "the password is s3cret",
        "GET https://b.s3.amazonaws.com/a.jpg?X-Amz-Credential=eyJhbGciOi&X-Amz-Signature=f00f00f0",
        "GET https://x.blob.core.windows.net/a.jpg?sv=2020&se=2026&sig=f00f00f0%3D",
        "GET https://storage.googleapis.com/a.jpg?GoogleAccessId=me&Signature=f00f00f0",
        "{'Authorization': 'Bearer f00f00f0abcdef'}",
        "Authorization: Basic f00f00f0abcdef==",
    ],
)
def test_nothing_secret_is_logged(as_json, said):
    try:
        raise ValueError(said)
    except ValueError:
        logging.getLogger("alc_backend").exception("%s", said)
    (line,) = as_json()
    text = json.dumps(line)
    assert not any(word in text for word in ("eyJ", "s3cret", "f00f00f0"))
    assert "…" in line["message"]


def test_a_request_keeps_its_id_into_the_jobs_that_it_starts(settings, redis):
    """The id that a proxy gave, or a new one; never what could not stand in a log."""
    app = create_app(settings)

    @app.get("/enqueue")
    def enqueue() -> bool:
        return Jobs(settings, redis).enqueue_import(1)

    with TestClient(app, headers={"Authorization": "Bearer s3cret"}) as client:
        answer = client.get("/enqueue", headers={"X-Request-ID": "abc-1"})
        assert answer.headers["X-Request-ID"] == "abc-1"
        assert job_of("import-1", redis).meta[REQUEST] == "abc-1"
        for wrong in ("", "a b", "x" * 65, 'a"b'):
            made = client.get("/health", headers={"X-Request-ID": wrong}).headers["X-Request-ID"]
            assert len(made) == 16
            assert made != wrong


def test_a_command_logs_as_the_environment_says(settings, tmp_path):
    given = settings.model_copy(update={"log_format": "xml"})
    done = alc(given, "round", "status")
    assert done.returncode == 1
    assert "log_format" in done.stderr.lower()
    assert "Traceback" not in done.stderr


FORGED = "x\n2030-01-01 00:00:00,000 INFO alc_backend: round 9 deleted\r\x1b[2J\x9b\u2028\u0085y"


@pytest.fixture(params=["text", "json"])
def written(request, settings, monkeypatch):
    """What is logged, in either format."""
    root, stream = logging.getLogger(), io.StringIO()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr("sys.stderr", stream)
    logs.configure(settings.model_copy(update={"log_format": request.param}))
    return stream


def test_nothing_that_is_sent_makes_a_log_line(written):
    """A line break or a control character in a path is logged as an escape."""
    logging.getLogger("alc_backend").warning("GET %s: there is no such page", FORGED)
    text = written.getvalue()
    assert len(text.splitlines()) == 1
    assert "round 9 deleted" in text
    assert all(character.isprintable() for character in text.rstrip("\n"))


def test_no_error_makes_a_log_line(written):
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("alc_backend").exception("it failed")
    first, *others = written.getvalue().splitlines()
    assert "it failed" in first
    assert all(line.startswith("    ") for line in others)
    assert all(character.isprintable() for line in (first, *others) for character in line)


def test_a_path_forges_no_line(written, settings, redis):
    headers = {"Authorization": "Bearer s3cret"}
    path = "/images/1%0a2030-01-01%2000:00:00,000%20INFO%20forged%1b/after"
    with TestClient(create_app(settings), headers=headers) as client:
        client.post(path, content=b"x" * 5000)
    assert "forged" in written.getvalue()
    for line in written.getvalue().splitlines():
        assert not line.startswith("2030")
        assert all(character.isprintable() for character in line)
