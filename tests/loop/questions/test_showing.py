"""Images that cannot be shown: the others are asked about all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from alc_backend.loop import page_tasks
from alc_backend.store.models import Image, Query, Round, Superpixel
from alc_backend.store.pages import Page, Tile
from tests.annotations import label_studio_of
from tests.plans import plan


def asked_about(store):
    """The keys of the images that questions are about."""
    with store.reading() as session:
        asked = [*session.scalars(select(Tile.superpixel_id))]
        asked += session.scalars(select(Query.superpixel_id))
        images = select(Image.key).join(Superpixel).where(Superpixel.id.in_(asked))
        return set(session.scalars(images))


@pytest.mark.parametrize("damage", ["missing", "no image"])
def test_an_image_that_cannot_be_shown_stops_no_page(store, project, damage):
    with store.reading() as session:
        image = session.scalars(select(Image).where(Image.key == "i07")).one()
    path = Path(store.files(project).image(image.id, image.suffix))
    path.unlink()
    if damage == "no image":
        path.write_bytes(b"no image")
    plan(store)
    assert asked_about(store) == {f"i{number:02}" for number in range(45)} - {"i07"}
    with store.reading() as session:
        warning = session.get_one(Round, 1).warning
    assert "image 'i07'" in warning
    again, round_, _ = plan(store)
    with store.reading() as session:
        assert session.get_one(Round, 1).warning.count("'i07'") == warning.count("'i07'")
    client, which = label_studio_of(store).client(), page_tasks.planned(round_, again.number)
    page_tasks.create_missing(store, client, round_, which, lambda done, total, message: None)
    with store.reading() as session:
        rows = session.scalars(select(Page).where(which)).all()
    assert rows
    assert all(row.sheet and row.task_id for row in rows)
