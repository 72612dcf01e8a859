"""What Label Studio sends, with parts of it replaced by anything."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from sqlalchemy import select

from alc_backend.loop.annotations import webhooks
from alc_backend.store.incoming import Event
from tests.annotations import (
    DATASET_PROJECT,
    QUERY_PROJECT,
    annotation,
    answer,
    created,
    deleted,
    image_of,
    region,
    task_of,
)
from tests.fake_label_studio import FakeLabelStudio
from tests.fuzz.values import body, changed, examples, promptly


def payloads(store):
    """What Label Studio sends, as seen."""
    task = image_of(store, "b").dataset_task
    painted = region("dog", slice(0, 12), slice(4, 12))
    return [
        created(answer(1, task_of(store, "a", 2), "dog")),
        created(answer(2, task_of(store, "a", 1), None), action="ANNOTATION_UPDATED"),
        created(annotation(3, task, [painted]), project=DATASET_PROJECT),
        deleted(1, 2),
        {"action": "TASKS_DELETED", "project": {"id": QUERY_PROJECT}, "tasks": [{"id": 5}]},
        {"action": "START_TRAINING", "project": {"id": 999}},
    ]


def test_webhooks(client, store, project):
    """Each is refused, or kept; and what is kept is read in, or waits with its reason."""
    for payload in payloads(store):

        @examples(60)
        @given(changed(payload))
        def send(value):
            with promptly():
                answered = client.post("/webhook", content=body(value))
            assert answered.status_code < 500, answered.text

        send()
    webhooks.drain(store, FakeLabelStudio().client)
    with store.reading() as session:
        for event in session.scalars(select(Event)):
            assert event.processed_at is not None or event.outcome
            assert event.next_try_at is None or event.next_try_at - event.received_at < timedelta(
                days=1
            )


def test_predictions(client, store, project):
    """Tasks of any kind, among them some that are there."""
    queries = {"tasks": [{"id": task_of(store, "a", 2), "data": {"image": "/a.png"}}]}
    masks = {"tasks": [{"id": image_of(store, "a").dataset_task, "data": {}}, {"id": 999}]}
    for number, asked in ((QUERY_PROJECT, queries), (DATASET_PROJECT, masks)):

        @examples(60)
        @given(changed({**asked, "project": f"{number}.1", "label_config": "<View/>"}))
        def send(value):
            with promptly():
                answered = client.post("/predict", content=body(value))
            assert answered.status_code < 500, answered.text
            if answered.status_code == 200:
                assert len(answered.json()["results"]) == len(value["tasks"])

        send()
