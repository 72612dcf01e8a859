"""Many requests of Label Studio at once, through the whole application and real sockets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import event, select

from alc_backend.loop.annotations import webhooks
from alc_backend.service.jobs.queues import Jobs, connect
from alc_backend.service.web.app import create_app
from alc_backend.service.web.model import ALCModel
from alc_backend.store.models import Image, LedgerEntry
from tests.annotations import DATASET_PROJECT, QUERY_PROJECT, answer, asked_project, label_studio_of
from tests.conftest import BOTH_DATABASES, wait_for
from tests.serving import serving

pytestmark = BOTH_DATABASES

AT_ONCE = 16


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def label_studio(store, project, monkeypatch):
    made = label_studio_of(store)
    made.serve(monkeypatch)
    return made


def test_sixteen_predictions_and_as_many_webhooks_at_once(settings, store, label_studio):
    with store.reading() as session:
        images = [image.dataset_task for image in session.scalars(select(Image))]
    queries = [task.id for task in label_studio.tasks_of(QUERY_PROJECT)]
    answered = [answer(number, task, "dog") for number, task in enumerate(queries, start=1)]
    for record in answered:
        label_studio.annotate(record)

    def predict(http, number):
        project, tasks = (DATASET_PROJECT, images) if number % 2 else (QUERY_PROJECT, queries)
        body = {"project": f"{project}.1", "tasks": [{"id": task} for task in tasks]}
        found = http.post("/predict", json=body)
        assert found.status_code == 200
        assert all(result["result"] for result in found.json()["results"])

    def report(http, number):
        record = answered[number % len(answered)]
        about = {"action": "ANNOTATION_CREATED", "project": {"id": QUERY_PROJECT}}
        assert http.post("/webhook", json={**about, "annotation": record}).status_code == 200

    with serving(create_app(settings)) as port, ThreadPoolExecutor(2 * AT_ONCE) as threads:
        address, password = f"http://127.0.0.1:{port}", {"Authorization": "Bearer s3cret"}
        with httpx.Client(base_url=address, headers=password, timeout=60) as http:
            begun = [
                threads.submit(ask, http, number)
                for number in range(AT_ONCE)
                for ask in (predict, report)
            ]
            for request in begun:
                request.result()
            wait_for(lambda: not webhooks.waiting(store))
    with store.reading() as session:
        recorded = set(session.scalars(select(LedgerEntry.annotation_id)))
    assert recorded == {record["id"] for record in answered}


def test_a_prediction_takes_one_connection(settings, store, label_studio):
    """While it holds one it asks for no second: sixteen of them would wait for each other."""
    jobs = Jobs(settings, connect(settings))
    with store.reading() as session:
        images = [{"id": image.dataset_task} for image in session.scalars(select(Image))]
    with webhooks.Letterbox(store) as letterbox:
        model = ALCModel(store, jobs, letterbox, DATASET_PROJECT)
        taken = Checkouts(store)
        assert all(model.predict(images))
        assert model.model_version == "alc-round-1"
    assert taken.count == 1


class Checkouts:
    """Counts how often a connection is taken from a store's pool."""

    def __init__(self, store):
        self.count = 0
        event.listen(store.engine, "checkout", self._count)

    def _count(self, *_):
        self.count += 1
