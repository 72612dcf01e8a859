"""/metrics and /ready tell how it stands."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event

from alc_backend.loop.annotations import webhooks
from alc_backend.service.jobs.queues import Jobs
from alc_backend.service.jobs.worker import run_worker
from alc_backend.service.web.app import create_app
from alc_backend.service.web.metrics import Readiness
from alc_backend.store.database import Store
from tests.annotations import FakeLabelStudio, answer, asked_project, created, receive, task_of

ROOT = Path(__file__).parents[2]
BEARER = {"Authorization": "Bearer s3cret"}


@pytest.fixture
def service(settings, redis):
    with TestClient(create_app(settings)) as client:
        yield client


def scrape(client) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    text = client.get("/metrics", headers=BEARER).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_state_of_a_project(service, store, dataset):
    project = asked_project(store, dataset)
    for number, (key, superpixel, choice) in enumerate([("a", 1, "cat"), ("a", 2, "dog")], 1):
        said = answer(number, task_of(store, key, superpixel), choice)
        receive(store, project, created(said))
    webhooks.drain(store, FakeLabelStudio)
    found = scrape(service)
    assert found["alc_ledger_answers", "pets"] == 2
    assert found["alc_accept_rate", "pets"] == 0.5
    assert found["alc_open_questions", "pets"] == 4
    assert found["alc_images", "pets"] == 3
    assert found["alc_round", "pets"] == 1
    assert found["alc_round_state", "pets", "open"] == 1
    assert found["alc_round_state", "pets", "training"] == 0
    assert found["alc_inbox_waiting",] == 0
    assert found["alc_redis_up",] == 1
    assert found["alc_workers",] == 0


def expressions():
    """What the dashboard and the alerts of the operator's guide ask Prometheus."""
    dashboard = json.loads((ROOT / "docker/grafana-dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(panels) > 15
    yield from (target["expr"] for panel in panels for target in panel["targets"])
    guide = (ROOT / "docs/operating.md").read_text("utf-8")
    yield from re.findall(r"^\| `([^`]*\balc_[^`]*)`", guide, re.M)


def test_the_dashboard_asks_for_what_there_is(service, store, dataset):
    asked_project(store, dataset)
    service.get("/health")
    text = service.get("/metrics", headers=BEARER).text
    families = list(text_string_to_metric_families(text))
    found = {sample.name for family in families for sample in family.samples}
    declared = {family.name for family in families}  # some have no sample before the first job
    labels = {name for family in families for sample in family.samples for name in sample.labels}
    asked = list(expressions())
    assert len(asked) > 20
    for expression in asked:
        names = re.findall(r"\balc_\w+", expression)
        for name in names:
            base = re.sub(r"_(total|bucket)$", "", name)
            assert name in found or base in declared, expression
        for name in re.findall(r"(\w+)=~?\"", expression):
            assert name in labels | {"job", "outcome"}, expression


def test_requests_are_counted_by_route(service):
    before = scrape(service)
    for path in ("/health", "/no/such/place/1", "/no/such/place/2"):
        service.get(path, headers=BEARER)
    found = scrape(service)

    def more(*labels):
        return found[labels] - before.get(labels, 0)

    assert more("alc_http_requests_total", "GET", "/health", "200") == 1
    assert more("alc_http_requests_total", "other", "other", "404") == 2
    assert more("alc_http_request_seconds_count", "GET", "/health") == 1


def test_jobs_of_all_workers(service, settings, redis, monkeypatch):
    monkeypatch.setattr("alc_backend.service.jobs.functions.store", lambda: 1 / 0)
    jobs = Jobs(settings, redis)
    jobs.enqueue_import(1)
    assert scrape(service)["alc_queue_jobs", "pseudo"] == 1
    run_worker(settings, ["pseudo"], burst=True)
    found = scrape(service)
    assert found["alc_jobs_total", "failed", "pseudo"] == 1
    assert found["alc_jobs_total", "done", "pseudo"] == 0
    assert found["alc_job_seconds_total", "pseudo"] > 0
    assert found["alc_queue_jobs", "pseudo"] == 0


def test_metrics_need_the_password(service):
    assert service.get("/metrics").status_code == 401


def test_ready(service):
    answer = service.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "degraded": []})


def test_ready_without_redis(settings):
    nowhere = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(nowhere)) as client:
        answer = client.get("/ready")
        assert (answer.status_code, answer.json()) == (200, {"ready": True, "degraded": ["redis"]})
        assert scrape(client)["alc_redis_up",] == 0


def test_ready_while_redis_hangs(settings):
    """It takes connections and says nothing: the check of a container waits for 4 s only."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        hangs = Readiness(Store(settings), settings.model_copy(update={"redis_url": url}))
        assert hangs._redis.connection_pool.connection_kwargs["socket_timeout"] < 1
        assert hangs.checks() == {"database": True, "disk": True, "redis": False}


def test_only_one_looks_whether_it_is_ready(settings, redis, monkeypatch):
    readiness = Readiness(Store(settings), settings)
    assert readiness.checks()["redis"]
    monkeypatch.setattr("alc_backend.service.web.metrics.READY_S", 0.0)
    inside, go_on, looks = threading.Event(), threading.Event(), []

    def slow(*_):
        looks.append(1)
        inside.set()
        return go_on.wait(30)

    monkeypatch.setattr("alc_backend.service.web.metrics.is_up", slow)
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


def test_not_ready_without_the_database(settings, redis, monkeypatch):
    engines = []
    from alc_backend.store import database

    make = database.create_engine

    def remembered(*arguments, **options):
        engines.append(make(*arguments, **options))
        return engines[-1]

    monkeypatch.setattr(database, "create_engine", remembered)
    with TestClient(create_app(settings)) as client:

        @event.listens_for(engines[-1], "begin")
        def refuse(connection):
            raise OSError("the disk is gone")

        answer = client.get("/ready")
        event.remove(engines[-1], "begin", refuse)
    assert (answer.status_code, answer.json()["missing"]) == (503, ["database"])
