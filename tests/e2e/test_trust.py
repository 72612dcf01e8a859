"""What is imported is what Label Studio takes."""

from __future__ import annotations

import pytest
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.datasets.images import IMAGE_SUFFIXES
from alc_backend.labelstudio.images import fetch
from alc_backend.store.models import Image, Project
from tests.conftest import write_dataset
from tests.e2e.demonstration import alc

pytestmark = pytest.mark.ls


def test_an_image_that_label_studio_refuses_does_not_keep_the_others_out(running, tmp_path):
    demo, _ = running
    names = [suffix[1:] for suffix in IMAGE_SUFFIXES]
    root = write_dataset(tmp_path / "kinds", names=(*names, "tif"))
    for name in (*names, "tif"):
        made = root / f"images/{name}.png"
        with Picture.open(made) as picture:
            picture.load()
        made.unlink()
        picture.save(root / f"images/{name}.{name}")
    told = " ".join(alc(demo, "init", str(root)).split())
    assert "left out: images/tif.tif: not an image" in told
    with demo.store.reading() as session:
        project = session.scalars(select(Project).where(Project.name == "kinds")).one()
        images = session.scalars(select(Image).where(Image.project_id == project.id)).all()
    assert sorted(image.key for image in images) == sorted(names)
    for image in images:
        task = demo.client.get(f"/api/tasks/{image.dataset_task}")
        with (tmp_path / "fetched").open("wb") as target:
            fetch(demo.client, task["data"]["image"], target)
        uploaded = root / f"images/{image.key}.{image.key}"
        assert (tmp_path / "fetched").read_bytes() == uploaded.read_bytes()
