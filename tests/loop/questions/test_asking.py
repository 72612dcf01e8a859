"""Plans on their way into Label Studio."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from alc_backend.labelstudio import model_version
from alc_backend.loop.leases import Lease
from alc_backend.loop.questions import asking, planning
from alc_backend.store.models import Part, Query, Round
from tests.annotations import QUERY_PROJECT, label_studio_of


@pytest.fixture
def settings(settings):
    settings.repeats = 0.0
    return settings


def test_single_questions_of_an_interrupted_plan_come_with_the_next(store, project, monkeypatch):
    label_studio = label_studio_of(store)
    label_studio.serve(monkeypatch)
    with store.reading() as session:
        round_ = session.get_one(Round, 1)
        lease = Lease(store, session.scalars(select(Part).where(Part.step == "planning")).one())
    mixed, round_.config = round_.config, replace(round_.config, questions="single")
    interrupted = planning.make_plan(store, round_, lease, lambda done, total, message: None)
    round_.config = mixed
    asking.plan_next(store, round_, lease, lambda done, total, message: None)
    with store.reading() as session:
        row = session.get_one(Round, 1)
        assert row.plan_in_force == row.plans == 2
        placed = session.scalars(select(Query.task_id).where(Query.place.is_not(None))).all()
    version = model_version.of_round(1)
    told = {
        task.id
        for task in label_studio.tasks_of(QUERY_PROJECT)
        if any(one["model_version"] == version for one in task.predictions)
    }
    assert len(placed) >= len(interrupted.queries) > 50
    assert set(placed) <= told
