"""Thumbnails take little memory, however many are asked for at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.service.web.app import create_app
from alc_backend.service.web.pages.thumbnails import Thumbnails
from alc_backend.store.models import Image
from tests.annotations import asked_project

GIB = 2**30


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=60))
def test_no_more_is_kept_than_allowed(asked):
    sizes = {}
    with TemporaryDirectory() as folder:
        kept = Thumbnails(Path(folder), most=100, most_on_disk=150)
        for key, size in asked:
            sizes.setdefault(key, size)
            assert kept.get((key,), lambda key=key: bytes(sizes[key])) == bytes(sizes[key])
            assert kept.size <= 100
            assert sum(path.stat().st_size for path in Path(folder).glob("*/*")) <= 150


def test_it_is_made_once_also_for_the_next_process(tmp_path):
    made = []

    def make():
        made.append(1)
        return b"x"

    kept = Thumbnails(tmp_path / "kept")
    assert [kept.get(key, make) for key in (("a", 1), ("a", 1), ("b", 1))] == [b"x"] * 3
    assert len(made) == 2
    assert Thumbnails(tmp_path / "kept").get(("a", 1), make) == b"x"
    assert len(made) == 2


def test_the_oldest_give_way(tmp_path):
    for number in range(3):
        Thumbnails(tmp_path, most_on_disk=100).get((number,), lambda: bytes(30))
    files = sorted(tmp_path.glob("*/*"))
    for age, path in enumerate(files):
        os.utime(path, (1000 + age, 1000 + age))
    Thumbnails(tmp_path, most_on_disk=100).get((3,), lambda: bytes(30))
    left = {path.name for path in tmp_path.glob("*/*")}
    assert len(left) == 3
    assert files[0].name not in left


def test_a_folder_that_cannot_be_written_holds_nothing_up(tmp_path):
    (tmp_path / "taken").write_text("a file")
    kept = Thumbnails(tmp_path / "taken")
    assert kept.get(("a",), lambda: b"x") == b"x"
    assert kept.get(("a",), lambda: b"y") == b"x"


@pytest.fixture
def large(store, dataset, tmp_path):
    """A project whose three images have 64 megapixels."""
    project = asked_project(store, dataset)
    Picture.new("RGB", (8192, 8192), "red").save(tmp_path / "large.png", compress_level=1)
    with store.reading() as session:
        images = session.scalars(select(Image)).all()
    for image in images:
        store.files(project).keep_image(image.id, image.suffix, tmp_path / "large.png")
    return [image.id for image in images]


def test_six_thumbnails_of_64_megapixels_at_once(large, settings, redis):
    """They took 4.8 GB."""
    script = f"""
import re
from pathlib import Path
import anyio
from alc_backend.service.web.app import create_app
from alc_backend.settings import settings
from tests.asgi import ask, scope

async def run():
    app, headers = create_app(settings()), [(b"authorization", b"Bearer s3cret")]
    async def one(number):
        answered = await ask(app, scope(path=f"/images/{{number}}/image", headers=headers))
        assert answered.status == 200, answered
    async with anyio.create_task_group() as group:
        for number in {large * 2}:
            group.start_soon(one, number)
anyio.run(run)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": "/usr/bin:/bin", **settings.environment()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 0.7 * GIB  # its own, not what its parent held before it


def test_a_thumbnail_is_kept(store, dataset, settings, redis):
    project = asked_project(store, dataset)
    with store.reading() as session:
        image = session.scalars(select(Image)).first()
    with TestClient(create_app(settings), headers={"Authorization": "Bearer s3cret"}) as client:
        first = client.get(f"/images/{image.id}/image")
        store.files(project).image(image.id, image.suffix).unlink()
        again = client.get(f"/images/{image.id}/image")
    assert again.content == first.content
    assert first.headers["content-type"] == "image/jpeg"
