"""The rounds of the demonstration, without its Label Studio."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.run import run_rounds
from alc_backend.cli.demo.start import Demo
from alc_backend.errors import CancelledError
from alc_backend.loop.rounds import lifecycle, status
from alc_backend.service.jobs.queues import Jobs
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Round
from alc_backend.store.round_states import RUNNING, RoundState


@pytest.fixture
def demo(store, settings, dataset, redis):
    project_id = import_folder(store, dataset, "pets").project_id
    return Demo(settings, store, EmptyQueue(), Jobs(settings, redis), project_id, 12, "password")


class EmptyQueue:
    """In place of the client: Label Studio has no question left."""

    def get_or_none(self, path):
        return None


class SomebodyCancels:
    """In place of the processes: whenever they are checked, a running round is cancelled."""

    def __init__(self, demo):
        self.demo = demo

    def check(self):
        latest = status.latest_round(self.demo.store, self.demo.project_id)
        if latest is not None and latest.state in RUNNING:
            lifecycle.cancel(self.demo.store, self.demo.project_id)


def test_the_demo_stays_when_somebody_cancels_its_round(demo, tmp_path, capsys):
    records = tmp_path / "rounds.json"
    run_rounds(demo, DemoOptions(auto=4, json_file=records), SomebodyCancels(demo), Console())
    assert status.latest_round(demo.store, demo.project_id).state == RoundState.CANCELLED
    shown = " ".join(capsys.readouterr().out.split())
    assert "The first query will wait at" in shown
    assert "round 1 was cancelled; started again, it goes on: press Start round at" in shown
    assert [row["round"] for row in json.loads(records.read_text())["rounds"]] == [1]


def test_with_nobody_to_start_the_round_again_its_end_is_an_error(demo, tmp_path):
    records = tmp_path / "rounds.json"
    options = DemoOptions(auto=4, stop=True, json_file=records)
    with pytest.raises(CancelledError, match="round 1 was cancelled"):
        run_rounds(demo, options, SomebodyCancels(demo), Console(quiet=True))
    assert records.is_file()


def test_a_later_round_that_is_cancelled_ends_the_rounds(demo, capsys):
    first, _ = lifecycle.start(demo.store, demo.jobs.enqueue_part, demo.project_id)
    with demo.store.session() as session:
        session.get_one(Round, first.id).state = RoundState.OPEN
    run_rounds(demo, DemoOptions(auto=4), SomebodyCancels(demo), Console())
    shown = " ".join(capsys.readouterr().out.split())
    assert "The first query waits at" in shown
    assert "round 2 was cancelled" in shown
