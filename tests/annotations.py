"""Projects that ask, and what annotators do in Label Studio, as its API and webhooks tell it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
from sqlalchemy import select

from alc_backend.labelstudio import query
from alc_backend.labelstudio.shown_regions import mask_regions
from alc_backend.labelstudio.tasks import annotation_result
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.config import round_config as by_settings
from alc_backend.settings import Settings
from alc_backend.store import ledger
from alc_backend.store.importing import import_folder
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Image, LedgerEntry, Project, Query, Round, Superpixel
from alc_backend.store.round_config import RoundConfig
from tests.conftest import CLASSES
from tests.fake_label_studio import DATASET_PROJECT, QUERY_PROJECT, FakeLabelStudio

BACKGROUND, CAT, DOG = 0, 1, 2
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def at(minute: float) -> str:
    """A moment as Label Studio writes it."""
    return (NOON + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z")


def round_config(**changes) -> RoundConfig:
    """The configuration of a round by default settings, but for the ``changes``."""
    given = Settings(preset="sample", acquisition="sim", questions="single", _env_file=None)
    return replace(by_settings(given, {}), **changes)


def asked_project(store, dataset, *, overlap=1) -> int:
    """A project in its first round: every superpixel is asked about, as a cat."""
    project_id = import_folder(store, dataset, "pets").project_id
    with store.session() as session:
        project = session.get_one(Project, project_id)
        project.dataset_project, project.query_project = DATASET_PROJECT, QUERY_PROJECT
        project.overlap = overlap
        round_ = Round(
            project_id=project_id, number=1, state="open", config=round_config(), opened_at=NOON
        )
        session.add(round_)
        session.flush()
        for image in session.scalars(select(Image)):
            image.dataset_task, image.url = 500 + image.id, f"/data/{image.key}.png"
        for rank, superpixel in enumerate(session.scalars(select(Superpixel))):
            superpixel.shape = {"box": {"x": 1, "y": 1, "width": 9, "height": 9}, "outlines": []}
            session.add(
                Query(
                    superpixel_id=superpixel.id,
                    round_id=round_.id,
                    task_id=100 + superpixel.id,
                    row=30,
                    col=40,
                    pseudo_label=CAT,
                    score=1.0,
                    rank=rank,
                )
            )
    return project_id


def query_of(store, key, number, *, adjudication=False) -> Query:
    with store.reading() as session:
        return session.scalars(
            select(Query)
            .join(Superpixel, Superpixel.id == Query.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(
                Image.key == key,
                Superpixel.number == number,
                Query.adjudication.is_(adjudication),
            )
        ).one()


def image_of(store, key) -> Image:
    with store.reading() as session:
        return session.scalars(select(Image).where(Image.key == key)).one()


def task_of(store, key, number) -> int:
    return query_of(store, key, number).task_id


def annotation(number, task, result, *, by=7, minute=0.0, revised=None, **changes):
    """An annotation given in a minute after noon, and last saved in another."""
    return {
        "id": number,
        "task": task,
        "completed_by": by,
        "was_cancelled": False,
        "result": result,
        "lead_time": 2.5,
        "created_at": at(minute),
        "updated_at": at(minute if revised is None else revised),
        **changes,
    }


def answer(number, task, choice, **changes):
    """An answer to a query; without a choice, a skip."""
    chosen = [{"from_name": "label", "type": "choices", "value": {"choices": [choice]}}]
    return annotation(number, task, chosen if choice else [], was_cancelled=not choice, **changes)


def region(name, rows, cols, identity="new", shape=(48, 64), classes=CLASSES, **changes):
    """A brush region as an annotator paints it."""
    superpixels = np.zeros(shape, dtype=np.int32)
    superpixels[rows, cols] = 1
    labels = np.full(shape, classes.index(name), dtype=np.uint8)
    (made,) = mask_regions(labels, superpixels, classes)
    return {**made, "id": identity, **changes}


def created(record, data=None, project=QUERY_PROJECT, action="ANNOTATION_CREATED"):
    """The webhook about an annotation."""
    return {
        "action": action,
        "project": {"id": project},
        "annotation": record,
        "task": {"id": record["task"], "data": data or {}},
    }


def deleted(*numbers, project=QUERY_PROJECT):
    return {
        "action": "ANNOTATIONS_DELETED",
        "project": {"id": project},
        "annotations": [{"id": number} for number in numbers],
    }


def tasks_deleted(*numbers, project=QUERY_PROJECT):
    return {
        "action": "TASKS_DELETED",
        "project": {"id": project},
        "tasks": [{"id": number} for number in numbers],
    }


def in_ledger(store, project_id) -> dict[int, tuple[str, int | None]]:
    """The annotations in force: what each says."""
    with store.reading() as session:
        return {
            entry.annotation_id: (entry.kind, entry.class_id)
            for entry in ledger.standing(session, project_id)
        }


def entries(store) -> list[LedgerEntry]:
    with store.reading() as session:
        return list(session.scalars(select(LedgerEntry).order_by(LedgerEntry.id)))


def label_map(store, project_id, key="a", hidden=()):
    with store.reading() as session:
        maps = LabelMaps(session, store.files(project_id), project_id)
    return maps.read(image_of(store, key).id, hidden)


def judged(store, project_id) -> ledger.Judgement:
    with store.reading() as session:
        return ledger.judgement(session, project_id)


def label_studio_of(store) -> FakeLabelStudio:
    """A Label Studio with the tasks that a store knows."""
    made = FakeLabelStudio()
    follow_overlap(store, made)
    with store.reading() as session:
        for image in session.scalars(select(Image).where(Image.dataset_task.is_not(None))):
            data = {"image": image.url, "alc": {"image": image.key}}
            made.add_task(image.dataset_task, data, DATASET_PROJECT)
        for asked, key, number in session.execute(
            select(Query, Image.key, Superpixel.number)
            .join(Superpixel, Superpixel.id == Query.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Query.task_id.is_not(None))
        ):
            about = {"image": key, "superpixel": number}
            if asked.adjudication:
                about["adjudication"] = True
            made.add_task(asked.task_id, {"alc": about})
    return made


def follow_overlap(store, label_studio) -> None:
    """Let Label Studio put each query to as many annotators as the store believes."""
    with store.reading() as session:
        for project in session.scalars(select(Project).where(Project.query_project.is_not(None))):
            queries = label_studio.projects[project.query_project]
            queries["maximum_annotations"] = project.overlap


def upload_images(label_studio, dataset, url="/data/{}.png") -> None:
    """Make the dataset tasks of all images."""
    for number, sample in enumerate(dataset.samples(), start=500):
        data = {"image": url.format(sample.key), "alc": {"image": sample.key}}
        label_studio.add_task(number, data, DATASET_PROJECT)


def ask_about(label_studio, dataset, round_number=1, superpixels=None, *, epsilon=0.0, minute=-60):
    """Ask about superpixels (default: all), in each round at another pixel, as about a cat.

    Returns image and superpixel → task; the tasks are the same in every round.
    """
    asked = {}
    for index, sample in enumerate(dataset.samples(), start=1):
        for number in np.unique(sample.superpixels[sample.superpixels > 0]).tolist():
            if superpixels is not None and number not in superpixels:
                continue
            mask = sample.superpixels == number
            pixels = np.argwhere(mask)
            row, col = pixels[(len(pixels) // 2 + round_number) % len(pixels)].tolist()
            content = query.QueryContent(
                url=f"/data/{sample.key}.png",
                image_key=sample.key,
                height=sample.height,
                width=sample.width,
                superpixel=number,
                row=row,
                col=col,
                pseudo_label=CAT,
                classes=dataset.classes,
                round_number=round_number,
                shape=query.shape_of(mask),
                epsilon=epsilon,
            )
            task = asked[sample.key, number] = 1000 * index + number
            if task not in label_studio.tasks:
                label_studio.add_task(task, {})
            label_studio.tasks[task].data = query.task_data(content)
            label_studio.predict(
                task,
                query.prediction(content),
                number=10_000 * round_number + task,
                score=number / 1000,
                model_version=f"alc-round-{round_number}",
                created_at=at(minute),
            )
    return asked


def reply_to(label_studio, number, task, choice, round_number=None, **changes) -> None:
    """Somebody answers the question that a round, or the last one, put."""
    predictions = label_studio.tasks[task].predictions
    wanted = f"alc-round-{round_number}"
    (shown,) = [p for p in predictions if p["model_version"] == wanted] or predictions[-1:]
    result = annotation_result(shown["result"], choice)
    label_studio.annotate(annotation(number, task, result, **changes))


def receive(store, project_id, body) -> int:
    """Let a webhook arrive; returns the event's number in the inbox."""
    with webhooks.Letterbox(store) as letterbox:
        return letterbox.receive(project_id, body["action"], body)


def happen(label_studio, *bodies) -> None:
    """Let what webhooks tell of be so in Label Studio."""
    for body in bodies:
        if "annotation" in body:
            task = body["task"]
            if task["id"] not in label_studio.tasks:
                label_studio.add_task(task["id"], task["data"], body["project"]["id"])
            label_studio.annotate(body["annotation"])
        for item in body.get("annotations", []):
            if any(item["id"] in task.annotations for task in label_studio.tasks.values()):
                label_studio.remove_annotation(item["id"])
        for item in body.get("tasks", []):
            label_studio.tasks.pop(item["id"], None)


def arrive(store, project_id, *bodies, label_studio=None):
    """Let something happen in Label Studio, whose webhooks arrive; returns what became of it."""
    label_studio = label_studio or label_studio_of(store)
    follow_overlap(store, label_studio)
    happen(label_studio, *bodies)
    for body in bodies:
        receive(store, project_id, body)
    return webhooks.drain(store, label_studio.client)
