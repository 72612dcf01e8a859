"""A project that was made of a task of a CVAT, by `alc init`, with a small, quick training."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.settings import Settings
from alc_backend.store.models import Project
from tests.command_line import alc
from tests.conftest import CLASSES

KEYS = ["a", "b", "c"]


@pytest.fixture
def cvat(dataset):
    """A CVAT with a task of the dataset's images, masks and superpixels."""
    pytest.importorskip("cvat_sdk", reason="cvat-sdk is not installed")
    from tests.cvat.fake_cvat import FIRST_LABEL, TASK, FakeCvat, serve

    pictures = {f"{key}.png": Picture.open(dataset / f"images/{key}.png") for key in KEYS}
    fake = FakeCvat(pictures, CLASSES[1:])
    labels = {name: FIRST_LABEL + place for place, name in enumerate(CLASSES[1:])}
    for frame, key in enumerate(KEYS):
        label_map = np.asarray(Picture.open(dataset / f"pseudo_labels/{key}.png"))
        objects = np.asarray(Picture.open(dataset / f"objects/{key}.png")).astype(np.int32)
        fake.draw(TASK, frame, label_map, objects, CLASSES, labels)
    with serve(fake) as served:
        yield served


@pytest.fixture
def settings(tmp_path, database_url, cvat) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        secret="s3cret",
        backend_url="http://backend.example.com",
        preset="cpu",
        iterations=3,
        input_size=64,
        batch_size=2,
        round_size=3,
        acquisition="sim",
        questions="mixed",
        checkpoint_every=1,
        cvat_url=cvat.url,
        cvat_token="t0ken",
        _env_file=None,
    )


@pytest.fixture
def project(store, settings) -> int:
    """The project of the task, as `alc init` makes it."""
    done = alc(settings, "init", "--cvat-task", "7")
    assert done.returncode == 0, done.stderr
    with store.reading() as session:
        return session.scalars(select(Project.id)).one()


@pytest.fixture
def queue():
    return []


@pytest.fixture
def asked_round(store, project, queue):
    """The first round, whose questions are out."""
    from tests.loop.cvat.annotators import ask_round

    return ask_round(store, project, queue)
