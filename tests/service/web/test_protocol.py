"""What Label Studio calls: /setup, /predict, /webhook, /train, /versions, /job_status."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi.testclient import TestClient
from rq import Queue
from sqlalchemy import select, update

from alc_backend.labelstudio.dataset_config import dataset_config
from alc_backend.labelstudio.regions import painted
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.rounds import executor
from alc_backend.service.web.app import create_app
from alc_backend.store.importing import import_folder
from alc_backend.store.incoming import Event
from alc_backend.store.models import Image, LedgerEntry, Project, Query, Round, Superpixel
from alc_backend.store.round_states import RoundState
from tests.annotations import happen, round_config
from tests.conftest import BOTH_DATABASES, CLASSES, wait_for
from tests.fake_label_studio import FakeLabelStudio

DATASET_PROJECT, QUERY_PROJECT = 11, 12

BOTH_TAGS = """<View><Image name="image" value="$image"/>
<BrushLabels name="label" toName="image"><Label value="cat"/><Label value="dog"/></BrushLabels>
<BitmaskLabels name="mask" toName="image"><Label value="dog"/></BitmaskLabels></View>"""


@pytest.fixture
def project(store, dataset):
    """A project as it stands after its first round: one published query about superpixel 2."""
    project_id = import_folder(store, dataset, "pets").project_id
    with store.session() as session:
        project = session.get_one(Project, project_id)
        project.dataset_project, project.query_project = DATASET_PROJECT, QUERY_PROJECT
        round_ = Round(project_id=project_id, number=1, state="open", config=round_config())
        session.add(round_)
        session.flush()
        for image in session.scalars(select(Image)):
            image.dataset_task = 500 + image.id
        superpixel = session.scalars(
            select(Superpixel).join(Image).where(Image.key == "a", Superpixel.number == 2)
        ).one()
        superpixel.shape = {"box": {"x": 50, "y": 50, "width": 30, "height": 30}, "outlines": []}
        session.add(
            Query(
                superpixel_id=superpixel.id,
                round_id=round_.id,
                task_id=77,
                row=30,
                col=40,
                pseudo_label=1,
                score=5.0,
                rank=0,
            )
        )
    return project_id


@pytest.fixture(autouse=True)
def label_studio(monkeypatch):
    """What the service reads the answers from."""
    label_studio = FakeLabelStudio()
    label_studio.serve(monkeypatch)
    label_studio.add_task(77, {})
    return label_studio


@pytest.fixture
def report(service, store, label_studio):
    """Let something happen in Label Studio, whose webhook arrives and is read in."""

    def report(body):
        happen(label_studio, {"task": {"id": 77, "data": {}}, **body})
        response = service.post("/webhook", json=body)
        wait_for(lambda: not webhooks.waiting(store))
        return response

    return report


def annotation(**changes):
    return {
        "id": 5,
        "task": 77,
        "completed_by": 1,
        "was_cancelled": False,
        "result": [{"from_name": "label", "type": "choices", "value": {"choices": ["dog"]}}],
        "lead_time": 3.0,
        "created_at": "2026-01-01T10:00:00Z",
        "updated_at": "2026-01-01T10:00:00Z",
        **changes,
    }


def event(action, **changes):
    return {"action": action, "project": {"id": QUERY_PROJECT}, **changes}


def answers_in(store):
    wait_for(lambda: not webhooks.waiting(store))
    with store.reading() as session:
        return [
            (answer.annotation_id, answer.kind, answer.class_id)
            for answer in session.scalars(select(LedgerEntry).order_by(LedgerEntry.id))
        ]


def test_a_submitted_answer_is_in_the_ledger_once(report, store, project):
    posted = event("ANNOTATION_CREATED", annotation=annotation())
    for _ in range(3):
        assert report(posted).status_code == 200
    assert answers_in(store) == [(5, "correct", 2)]


@BOTH_DATABASES
def test_simultaneous_duplicates_are_recorded_once(service, store, project, label_studio):
    label_studio.annotate(annotation())
    posted = event("ANNOTATION_CREATED", annotation=annotation())
    with ThreadPoolExecutor(8) as pool:
        codes = list(
            pool.map(lambda _: service.post("/webhook", json=posted).status_code, range(16))
        )
    assert codes == [200] * 16
    assert answers_in(store) == [(5, "correct", 2)]


def test_changes_skips_and_deletions_follow(report, store, project):
    report(event("ANNOTATION_CREATED", annotation=annotation(was_cancelled=True)))
    accepted = annotation(
        result=[{"from_name": "label", "value": {"choices": ["cat"]}}],
        updated_at="2026-01-01T10:05:00Z",
    )
    report(event("ANNOTATION_UPDATED", annotation=accepted))
    report(event("ANNOTATIONS_DELETED", annotations=[{"id": 5}]))
    assert answers_in(store) == [(5, "skip", None), (5, "accept", 1), (5, "deleted", None)]


def test_answers_made_in_bulk_come_as_label_studio_sends_them(
    service, store, project, label_studio
):
    label_studio.annotate(annotation())
    posted = {**event("ANNOTATIONS_CREATED"), "annotation": [annotation()], "task": [{"id": 77}]}
    assert service.post("/webhook", json=posted).status_code == 200
    assert answers_in(store) == [(5, "correct", 2)]


@BOTH_DATABASES
def test_answers_that_belong_nowhere_are_counted_not_recorded(
    service, store, project, label_studio
):
    label_studio.add_task(12345, {})
    unknown_task = annotation(task=12345)
    unknown_class = annotation(id=6, result=[{"from_name": "label", "value": {"choices": ["emu"]}}])
    for record in (unknown_task, unknown_class):
        label_studio.annotate(record)
        service.post("/webhook", json=event("ANNOTATION_CREATED", annotation=record))
    with store.session() as session:  # as if it had been tried for hours
        session.execute(update(Event).values(tries=99, next_try_at=None))
    assert answers_in(store) == []
    with store.reading() as session:
        outcomes = session.scalars(select(Event.outcome).order_by(Event.id)).all()
    assert outcomes == ["of an unknown task", "of an unknown class"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"action": "ANNOTATION_CREATED"},
        {"action": "ANNOTATION_CREATED", "project": {"id": "x"}},
        {"action": "ANNOTATION_CREATED", "project": {"id": 10**30}},
        event("ANNOTATION_CREATED"),
        event("ANNOTATION_CREATED", annotation={"id": 5}),
        event("ANNOTATION_CREATED", annotation={"task": 77}),
        event("ANNOTATION_CREATED", annotation=annotation(task=10**10)),
        event("ANNOTATION_CREATED", annotation=annotation(id=10**30)),
        event("ANNOTATIONS_DELETED", annotations=[{}]),
        event("ANNOTATIONS_DELETED", annotations=[{"id": "x"}]),
        event("ANNOTATIONS_DELETED", annotations=7),
    ],
)
def test_malformed_events_are_refused_with_a_reason(service, store, project, body):
    response = service.post("/webhook", json=body)
    assert response.status_code == 422
    assert response.json()["detail"]
    assert answers_in(store) == []


def test_start_training_three_times_starts_one_round(service, store, project, settings, redis):
    jobs = [service.post("/webhook", json=event("START_TRAINING")).json() for _ in range(3)]
    assert [job["started"] for job in jobs] == [True, False, False]
    assert len({job["job"] for job in jobs}) == 1
    assert Queue("train", connection=redis).get_job_ids() == [f"{jobs[0]['job']}-created-0"]
    status = service.post("/job_status", json={"job": jobs[0]["job"]}).json()
    assert status["job_status"] == "created"
    assert service.post("/job_status", json={"job": "round-999"}).status_code == 404


def test_start_training_of_an_unknown_project_says_what_to_do(service, project):
    response = service.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 99}})
    assert response.status_code == 404
    assert "alc init" in response.json()["detail"]


def test_predict_gives_queries_and_masks_from_the_store(service, report, store, project):
    asked = service.post(
        "/predict", json={"tasks": [{"id": 77}, {"id": 78}], "project": f"{QUERY_PROJECT}.1"}
    ).json()
    assert asked["model_version"] == "alc-round-1"
    assert asked["results"][0]["result"][0]["value"]["choices"] == ["cat"]
    assert asked["results"][1] == []  # Label Studio keeps no prediction, which would be first

    report(event("ANNOTATION_CREATED", annotation=annotation()))
    assert answers_in(store)
    with store.reading() as session:
        image = session.scalars(select(Image).where(Image.key == "a")).one()
    body = {"tasks": [{"id": image.dataset_task}], "project": f"{DATASET_PROJECT}.1"}
    regions = service.post("/predict", json=body).json()["results"][0]["result"]
    labels, _ = painted(regions, CLASSES, (image.height, image.width))
    truth = store.files(project).read_label_map("ground_truth", image.id)
    assert np.array_equal(labels, truth)  # the dog taken for a cat is corrected


@pytest.mark.parametrize(("wanted", "config", "shown"), [
    ("brush", dataset_config(["cat"]), {"brush cat"}),
    ("brush", dataset_config(["cat", "dog", "background"]), {"brush cat", "brush dog"}),
    ("brush", dataset_config(["cat", "dog"], "bitmask"), {"bitmask cat", "bitmask dog"}),
    ("brush", dataset_config(["cat", "dog"], "polygon"), set()),
    ("polygon", dataset_config(["cat", "dog"], "polygon"), {"polygon cat", "polygon dog"}),
    ("bitmask", BOTH_TAGS, {"bitmask dog"}),
    ("polygon", BOTH_TAGS, {"brush cat", "brush dog"}),
    ("polygon", "<View/>", {"brush cat", "brush dog"}),
])  # fmt: skip
def test_masks_are_shown_with_the_tag_that_there_is_and_its_labels(
    service, settings, store, project, wanted, config, shown
):
    with TestClient(create_app(settings.model_copy(update={"regions": wanted}))) as service:
        service.headers["Authorization"] = "Bearer s3cret"
        regions = predicted(service, store, project, config)
    assert {f"{kind_of(one)} {one['value'][one['type']][0]}" for one in regions} == shown
    names = {"bitmask": "mask" if config == BOTH_TAGS else "label"}
    assert all(one["from_name"] == names.get(kind_of(one), "label") for one in regions)


def kind_of(region):
    return region["type"].removesuffix("labels")


def predicted(service, store, project, config):
    """The regions of image a, for a project with a label config."""
    with store.session() as session:
        image = session.scalars(select(Image).where(Image.key == "a")).one()
        truth = store.files(project).read_label_map("ground_truth", image.id)
        store.files(project).write_label_map("initial", image.id, truth)
    body = {
        "tasks": [{"id": image.dataset_task}],
        "project": f"{DATASET_PROJECT}.1",
        "label_config": config,
    }
    return service.post("/predict", json=body).json()["results"][0]["result"]


def test_setup_says_what_a_label_config_lacks(service, project):
    known = service.post("/setup", json={"project": f"{QUERY_PROJECT}.1", "schema": "<View/>"})
    assert known.json() == {"model_version": "alc-round-1"}
    lacking = service.post("/setup", json={"project": "55.1", "schema": "<View/>"}).json()
    assert "BrushLabels" in lacking["message"]
    fine = service.post("/setup", json={"project": "55.1", "schema": dataset_config(CLASSES)})
    assert "message" not in fine.json()


def test_an_unseen_image_is_queued_for_import_once(service, project, settings, redis):
    body = {"tasks": [{"id": 900}, {"id": 901}], "project": f"{DATASET_PROJECT}.1"}
    for _ in range(2):
        results = service.post("/predict", json=body).json()["results"]
        assert results == [[], []]  # Label Studio keeps no prediction, and asks again
    assert Queue("pseudo", connection=redis).get_job_ids() == [f"import-{project}"]


def test_without_redis_answers_are_read_and_a_round_waits_for_it(
    settings, store, project, label_studio
):
    label_studio.annotate(annotation())
    with TestClient(create_app(settings), headers={"Authorization": "Bearer s3cret"}) as client:
        client.post("/webhook", json=event("ANNOTATION_CREATED", annotation=annotation()))
        started = client.post("/webhook", json=event("START_TRAINING")).json()
        assert started["started"] is True
        assert answers_in(store) == [(5, "correct", 2)]
    queue = []
    assert executor.recover(store, queue.append) == 1  # what a worker does once Redis is back
    assert [part.step for part in queue] == [RoundState.CREATED]
