"""/ready says whether answers can be kept."""

from __future__ import annotations

import socket
import threading
import time

from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from alc_backend.service.web.app import create_app
from alc_backend.service.web.readiness import Readiness


def test_ready(service):
    answer = service.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "degraded": []})


def test_ready_without_redis(settings):
    nowhere = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(nowhere)) as client:
        answer = client.get("/ready")
        assert (answer.status_code, answer.json()) == (200, {"ready": True, "degraded": ["redis"]})
        metrics = client.get("/metrics", headers={"Authorization": "Bearer s3cret"}).text
        assert "\nalc_redis_up 0.0\n" in metrics


def test_ready_while_redis_hangs(settings, store):
    """It takes connections and says nothing: the check of a container waits for 4 s only."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        store.settings = settings.model_copy(update={"redis_url": url})
        hangs, began = Readiness(store), time.monotonic()
        assert hangs.checks() == {"database": True, "disk": True, "redis": False}
        assert time.monotonic() - began < 4


def test_only_one_looks_whether_it_is_ready(store, redis, monkeypatch):
    readiness = Readiness(store)
    assert readiness.checks()["redis"]
    monkeypatch.setattr("alc_backend.service.web.readiness.FRESH_S", 0.0)
    inside, go_on, looks = threading.Event(), threading.Event(), []

    def slow(*_):
        looks.append(1)
        inside.set()
        return go_on.wait(30)

    monkeypatch.setattr("alc_backend.service.web.readiness.is_up", slow)
    first = threading.Thread(target=readiness.checks)
    first.start()
    assert inside.wait(30)
    assert readiness.checks() == {"database": True, "disk": True, "redis": True}  # at once
    go_on.set()
    first.join()
    assert looks == [1]


def test_not_ready_without_room(settings, redis):
    full = settings.model_copy(update={"min_free_gb": 1e9})
    with TestClient(create_app(full)) as client:
        answer = client.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "missing": ["disk"]})


def test_not_ready_without_the_database(settings, redis):
    def refuse(connection):
        raise OSError("the disk is gone")

    with TestClient(create_app(settings)) as client:
        event.listen(Engine, "begin", refuse)
        try:
            answer = client.get("/ready")
        finally:
            event.remove(Engine, "begin", refuse)
    assert (answer.status_code, answer.json()["missing"]) == (503, ["database"])
