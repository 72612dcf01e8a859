"""`alc init` from CVAT: images, masks and superpixels come in, and the questions get a project."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture
from pydantic import SecretStr
from sqlalchemy import select

pytest.importorskip("cvat_sdk", reason="cvat-sdk is not installed")

from alc_backend.cvat.signature import secret_of
from alc_backend.store.cvat import CvatFrame, CvatProject
from alc_backend.store.models import TRAIN, Project
from tests.command_line import alc
from tests.conftest import CLASSES
from tests.cvat.fake_cvat import PASSWORD, TASK
from tests.loop.cvat.conftest import KEYS


def read(path):
    return np.asarray(Picture.open(path))


def test_a_task_becomes_a_project_pixel_for_pixel(store, project, dataset):
    with store.reading() as session:
        made = session.get_one(Project, project)
    assert (made.name, made.classes) == ("pets", CLASSES)
    images = store.images(project, TRAIN)
    assert [image.key for image in images] == KEYS
    files = store.files(project)
    for image in images:
        truth = read(dataset / f"pseudo_labels/{image.key}.png")
        assert np.array_equal(files.read_label_map("initial", image.id), truth)
        objects = read(dataset / f"objects/{image.key}.png")
        assert np.array_equal(files.read_superpixels(image.id), objects)
        assert files.image(image.id, image.suffix).read_bytes()


def test_the_questions_get_a_project_with_a_tag_for_each_class_and_a_signed_webhook(
    store, project, cvat
):
    with store.reading() as session:
        row = session.get_one(CvatProject, project)
    assert cvat.projects[row.questions] == "pets: questions"
    tags = [label for label in cvat.labels if label["project_id"] == row.questions]
    assert [(tag["name"], tag["type"]) for tag in tags] == [(name, "tag") for name in CLASSES]
    (hook,) = cvat.webhooks.values()
    assert hook["target_url"] == f"http://backend.example.com/cvat/{row.questions}"
    assert hook["events"] == ["update:job"]
    assert hook["secret"] == secret_of(row.questions, "s3cret")


def test_repeating_it_adds_what_is_new(store, settings, project, cvat):
    cvat.add_frame(TASK, "d.png", Picture.new("RGB", (64, 48)))
    done = alc(settings, "init", "--cvat-task", str(TASK))
    assert "1 images with 0 superpixels imported" in done.stdout
    assert "3 already there" in done.stdout
    assert len(cvat.webhooks) == 1
    with store.reading() as session:
        frames = session.scalars(select(CvatFrame).order_by(CvatFrame.frame)).all()
    assert [(frame.task, frame.frame) for frame in frames] == [(TASK, n) for n in range(4)]


def test_a_project_of_cvat_is_all_its_tasks(store, settings, cvat):
    number = cvat.move_to_project(TASK, "animals")
    done = alc(settings, "init", "--cvat-project", str(number))
    assert done.returncode == 0, done.stderr
    with store.reading() as session:
        made = session.scalars(select(Project)).one()
    assert made.name == "animals"
    assert [image.key for image in store.images(made.id, TRAIN)] == KEYS


def test_what_cannot_be_taken_is_told(settings, cvat):
    assert "404" in alc(settings, "init", "--cvat-task", "99").stderr
    both = alc(settings, "init", "--cvat-task", "7", "--cvat-project", "7")
    assert "give one of" in both.stderr
    cvat.tasks[TASK].shapes.clear()
    assert "neither masks nor polygons" in alc(settings, "init", "--cvat-task", "7").stderr
    nowhere = settings.model_copy(update={"cvat_url": None})
    assert "CVAT_URL is not set" in alc(nowhere, "init", "--cvat-task", "7").stderr
    nobody = settings.model_copy(update={"cvat_token": None})
    assert "CVAT_ACCESS_TOKEN" in alc(nobody, "init", "--cvat-task", "7").stderr
    cvat.is_away = True
    assert "CVAT" in alc(settings, "init", "--cvat-task", "7").stderr


def test_a_user_with_a_password_will_do(settings, cvat):
    user = {"cvat_token": None, "cvat_user": "anna", "cvat_password": SecretStr(PASSWORD)}
    done = alc(settings.model_copy(update=user), "init", "--cvat-task", "7")
    assert done.returncode == 0, done.stderr
    user["cvat_password"] = SecretStr("wrong")
    assert "400" in alc(settings.model_copy(update=user), "init", "--cvat-task", "7").stderr
    wrong = settings.model_copy(update={"cvat_token": SecretStr("wrong")})
    assert "401" in alc(wrong, "init", "--cvat-task", "7").stderr


def test_what_cannot_be_had_of_a_project_is_named_and_the_rest_taken(store, settings, cvat):
    number = cvat.move_to_project(TASK, "animals")
    cvat.add_task("clip", number, {"clip.png": Picture.new("RGB", (9, 9))}, length=40)
    cvat.away_at("GET /tasks/7/data", after=2, status=404)
    done = alc(settings, "init", "--cvat-project", str(number))
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "is a video" in told
    assert "frame 2 of task 7" in told
    with store.reading() as session:
        made = session.scalars(select(Project)).one()
    assert [image.key for image in store.images(made.id, TRAIN)] == ["a", "b"]
