"""A round as programs are told of it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import select

from alc_backend.loop.rounds.status import RoundSummary
from alc_backend.store.models import Round, utc_now
from alc_backend.store.round_states import RoundState
from tests.annotations import asked_project


@pytest.fixture
def round_(store, dataset):
    asked_project(store, dataset)
    with store.session() as session:
        found = session.scalars(select(Round)).one()
        found.answers, found.data_miou, found.class_iou = 3, 0.4, [0.5, None, 0.25]
        return found


def test_the_json_of_a_round_has_its_figures_by_name(round_):
    told = json.loads(json.dumps(RoundSummary.of(round_).as_json()))
    assert (told["project"], told["round"], told["state"]) == (round_.project_id, 1, "open")
    assert (told["answers"], told["data_miou"], told["model_miou"]) == (3, 0.4, None)
    assert told["class_iou"] == {"background": 0.5, "cat": None, "dog": 0.25}
    assert told["eta_s"] is None
    assert "opened_at" not in told


def test_the_time_left_follows_the_pace_of_the_step(round_):
    round_.state, round_.done, round_.total = RoundState.TRAINING, 20, 80
    round_.step_began_at = utc_now() - timedelta(seconds=40)
    assert RoundSummary.of(round_).eta_s == pytest.approx(120, abs=2)
    round_.done = 0
    assert RoundSummary.of(round_).eta_s is None
