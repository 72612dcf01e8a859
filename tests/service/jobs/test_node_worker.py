"""The worker of a machine that only helps with trainings."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from alc_backend.errors import CancelledError, SettingsError, TrainingError
from alc_backend.loop.rounds.machines import Machines
from alc_backend.loop.rounds.meeting import AwayError
from alc_backend.service.jobs import node_worker

MACHINES = Machines(2, 1, "127.0.0.1", 29500)


def test_it_goes_on_whatever_becomes_of_a_training(settings, database, monkeypatch, caplog):
    caplog.set_level("INFO")
    ends = [
        AwayError("nothing answers"),
        AwayError("nothing answers"),
        CancelledError("taken over"),
        TrainingError("no memory"),
        SettingsError("machine 0 has another version"),
        OperationalError("SELECT", {}, Exception("away")),
        True,
        SystemExit(143),
    ]

    def join(store, machines, processes, joined):
        assert machines == MACHINES
        end = ends.pop(0)
        if isinstance(end, BaseException):
            raise end
        return end

    monkeypatch.setattr(node_worker.nodes, "join", join)
    monkeypatch.setattr(node_worker.time, "sleep", lambda seconds: None)
    node_worker.run_node(settings, MACHINES)
    assert ends == []
    assert caplog.text.count("nothing answers") == 1
    for told in ("taken over", "no memory", "another version", "database cannot be read"):
        assert told in caplog.text
    assert "waiting for the next one" in caplog.text


def test_more_processes_than_gpus_are_refused_when_it_starts(settings, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    many = settings.model_copy(update={"train_processes": 2})
    with pytest.raises(SettingsError, match="ALC_TRAIN_PROCESSES is 2, but this machine has 1"):
        node_worker.run_node(many, MACHINES)
