"""Plans on their way into Label Studio."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

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
    planning.make_plan(store, round_, lease, lambda done, total, message: None)
    with store.session() as session:  # it asked singly what the next plan does not
        asked = session.scalars(select(Query)).all()
        assert not asked or all(query.place is not None for query in asked)
        session.execute(update(Round).values(config=round_.config))
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
    assert set(placed) <= told
