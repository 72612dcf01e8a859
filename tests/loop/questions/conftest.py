"""A project that plans."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from alc_backend.store.models import Part, Query, Round
from tests.annotations import asked_project, round_config
from tests.conftest import write_dataset
from tests.plans import write_traits

IMAGES = [f"i{number:02}" for number in range(45)]
"""Each has a cat, and a dog that is labelled cat."""


@pytest.fixture
def project(store, tmp_path):
    """A project in its first round, whose network is right about every superpixel."""
    made = asked_project(store, write_dataset(tmp_path / "many", IMAGES))
    with store.session() as session:
        round_ = session.get_one(Round, 1)
        round_.config = round_config(questions="mixed", min_area=1)
        for query in session.scalars(select(Query)):
            session.delete(query)
        work = {"images": [1]}
        session.add_all(
            Part(round=round_, step=step, number=0, work=work, claimed_by="me", claims=1)
            for step in ("scoring", "planning")
        )
    write_traits(store, made)
    return made
