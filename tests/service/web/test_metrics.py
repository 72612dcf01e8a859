"""/metrics tells how it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from alc_backend.loop.annotations import webhooks
from alc_backend.service.jobs.queues import Jobs
from alc_backend.service.jobs.worker import run_worker
from tests.annotations import (
    DOG,
    answer,
    arrive,
    asked_project,
    created,
    label_studio_of,
    task_of,
)
from tests.conftest import BOTH_DATABASES, wait_for
from tests.pages import add_page, say_to_page

ROOT = Path(__file__).parents[3]


def scrape(client) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@BOTH_DATABASES
def test_the_state_of_a_project(service, store, dataset, monkeypatch):
    project = asked_project(store, dataset)
    label_studio = label_studio_of(store)
    label_studio.serve(monkeypatch)  # the service reads what arrives, too
    for number, (key, superpixel, choice) in enumerate([("a", 1, "cat"), ("a", 2, "dog")], 1):
        said = answer(number, task_of(store, key, superpixel), choice)
        arrive(store, project, created(said), label_studio=label_studio)
    wait_for(lambda: not webhooks.waiting(store))
    say_to_page(store, add_page(store, project, [("b", 1), ("c", 1)], proposed=DOG), 9, {1})
    found = scrape(service)
    assert found["alc_ledger_answers", "pets"] == 3
    ways = {"single": 2, "page": 1, "edit": 0, "machine": 3}
    for way, superpixels in ways.items():
        assert found["alc_confirmed_superpixels", "pets", way] == superpixels
    assert found["alc_label_seconds", "pets", "page"] == 6.0
    assert ("alc_label_seconds", "pets", "edit") not in found
    assert found["alc_accept_rate", "pets"] == 0.5
    assert found["alc_open_questions", "pets"] == 3
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
    text = service.get("/metrics").text
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
        service.get(path)
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
    assert service.get("/metrics", headers={"Authorization": ""}).status_code == 401
