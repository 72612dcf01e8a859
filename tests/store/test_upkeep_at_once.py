"""What is derived from the ledger, where two transactions write at once: on PostgreSQL they can."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select

from alc_backend.store import upkeep
from alc_backend.store.kinds import Removal
from alc_backend.store.models import Image
from tests.annotations import asked_project

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


def test_an_image_that_two_bring_back_at_once_counts_once(store, project):
    with store.session() as session:
        image_id = session.scalars(select(Image.id).order_by(Image.id)).first()
        upkeep.set_removed(session, project, {image_id: Removal.BY_HAND})

    def bring_back():
        with store.session() as session:
            upkeep.set_removed(session, project, {image_id: None})

    with store.session() as session:
        image = session.get_one(Image, image_id)  # the session keeps what it read of it
        assert image.removed == Removal.BY_HAND
        with ThreadPoolExecutor(1) as other:
            other.submit(bring_back).result()
        upkeep.set_removed(session, project, {image_id: None})
    with store.reading() as session:
        assert upkeep.differences(session, project) == []
