"""`cvat-cli task auto-annotate` with the function, on a server that is checked by CVAT's schema."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as Picture

from alc_backend.core.painting import paint
from alc_backend.errors import NotFoundError, SettingsError, WeightsError
from alc_backend.store.models import Project
from tests.annotations import asked_project, label_map
from tests.conftest import CLASSES

auto = pytest.importorskip("cvat_sdk.auto_annotation", reason="cvat-sdk is not installed")
masks = pytest.importorskip("cvat_sdk.masks", reason="cvat-sdk[masks] is not installed")

from alc_backend.cvat import function  # noqa: E402
from tests.cvat.fake_cvat import TASK, FakeCvat, serve  # noqa: E402

KEYS = ["a", "b", "c"]


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def name(store, project):
    with store.reading() as session:
        return session.get_one(Project, project).name


@pytest.fixture
def found(store, name, monkeypatch, settings):
    """What the function finds in a frame."""
    monkeypatch.setattr(function, "settings", lambda: settings)

    def found(frame, image=None, *, polygons=False, **parameters):
        class Context:
            frame_name, conf_threshold, conv_mask_to_poly = frame, None, polygons

        picture = image or Picture.new("RGB", (64, 48))
        return function.create(name, **parameters).detect(Context, picture)

    return found


@pytest.fixture
def cvat(dataset):
    frames = {f"{key}.png": Picture.open(dataset / f"images/{key}.png") for key in KEYS}
    frames["new.png"] = Picture.new("RGB", (9, 9))
    with serve(FakeCvat(frames, ["dog", "cat"])) as started:
        yield started


def annotate(cvat, settings, name, *options):
    """Run cvat-cli as its users do."""
    return subprocess.run(
        [sys.executable, "-m", "cvat_cli", "--server-host", cvat.url, "task", "auto-annotate",
         str(TASK), "--function-module", "alc_backend.cvat.function",
         "-p", f"project=str:{name}", *options],
        env={**os.environ, **settings.environment(), "CVAT_ACCESS_TOKEN": "t0ken",
             "XDG_CACHE_HOME": str(settings.data_dir / "cache-of-cvat")},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def painted(shapes, ids, shape=(48, 64)):
    """The label map of masks as CVAT has them; none overlaps another."""
    parts = [
        (masks.decode_mask(one.points, image_width=shape[1], image_height=shape[0]),
         ids[one.label_id])
        for one in shapes
    ]  # fmt: skip
    assert sum(part.astype(int) for part, _ in parts).max() == 1
    return paint(parts, shape, 0).labels


def test_cvat_cli_draws_the_present_masks(store, project, name, settings, cvat):
    done = annotate(cvat, settings, name)
    assert done.returncode == 0, done.stderr
    ((method, sent),) = cvat.sent
    assert method == "PATCH"
    ids = {100: CLASSES.index("dog"), 101: CLASSES.index("cat")}
    assert {shape.frame for shape in sent.shapes} == {0, 1, 2}
    for frame, key in enumerate(KEYS):
        shapes = [shape for shape in sent.shapes if shape.frame == frame]
        expected = label_map(store, project, key)
        assert np.array_equal(painted(shapes, ids), np.where(expected == 255, 0, expected))
    assert "frame new.png is no image of project" in done.stderr


def test_polygons_where_they_are_asked_for_and_the_old_ones_removed(name, settings, cvat):
    done = annotate(cvat, settings, name, "--conv-mask-to-poly", "--clear-existing")
    assert done.returncode == 0, done.stderr
    ((method, sent),) = cvat.sent
    assert method == "PUT"
    assert {shape.type.value for shape in sent.shapes} == {"polygon"}


def test_a_mistake_ends_in_a_sentence(settings, store, cvat):
    done = annotate(cvat, settings, "nowhere")
    assert done.returncode != 0
    assert "there is no project 'nowhere'" in done.stderr
    assert cvat.sent == []


def test_a_frame_of_another_size_gets_nothing(found):
    assert found("a.png")
    assert found("a.jpg")
    assert found("a.png", Picture.new("RGB", (32, 24))) == []
    assert found("deep/a.png") == []


def test_what_is_asked_for_has_to_be_there(found, name):
    with pytest.raises(SettingsError, match="unseen must be"):
        found("new.png", unseen="guess")
    with pytest.raises(WeightsError):
        found("new.png", unseen="grounded-sam")
    with pytest.raises(NotFoundError, match=name):
        function.create("nowhere")
