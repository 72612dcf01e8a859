from __future__ import annotations

import pytest
from rich.console import Console

from alc_backend.cli.round_progress import wait_until_open
from alc_backend.errors import CancelledError, RoundError
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Round
from alc_backend.store.round_states import RoundState
from tests.annotations import round_config


@pytest.fixture
def project(store, dataset):
    return import_folder(store, dataset, "pets").project_id


def add_round(store, project, state, **values):
    with store.session() as session:
        session.add(
            Round(project_id=project, number=1, state=state, config=round_config(), **values)
        )


def test_waiting_for_a_failed_round_tells_why(store, project):
    add_round(store, project, RoundState.FAILED, error="disk is full")
    with pytest.raises(RoundError, match="disk is full"):
        wait_until_open(store, project, Console(quiet=True))


def test_waiting_for_a_cancelled_round_says_how_it_goes_on(store, project):
    add_round(store, project, RoundState.CANCELLED)
    with pytest.raises(CancelledError, match="round 1 was cancelled; started again, it goes on"):
        wait_until_open(store, project, Console(quiet=True))


def test_waiting_ends_when_the_round_is_open(store, project):
    add_round(store, project, RoundState.OPEN)
    assert wait_until_open(store, project, Console(quiet=True)).number == 1


def test_waiting_for_no_round_says_how_to_start_one(store, project):
    with pytest.raises(RoundError, match="alc round start"):
        wait_until_open(store, project, Console(quiet=True))
