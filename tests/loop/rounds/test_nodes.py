"""Trainings of several machines: node workers as processes of their own, over the loopback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import closing, contextmanager
from dataclasses import replace

import psutil
import pytest
import torch
from safetensors.torch import load_file

from alc_backend.errors import CancelledError, SettingsError, TrainingError
from alc_backend.loop.rounds import executor, lifecycle, meeting, nodes, training
from alc_backend.loop.rounds.distributed import TRAIN_PROCESS
from alc_backend.loop.rounds.machines import Machines, share_out
from alc_backend.loop.rounds.presence import presence
from alc_backend.service.jobs.processes import Processes
from alc_backend.store.importing import import_folder
from alc_backend.store.round_states import RoundState, Step
from tests.conftest import wait_for, write_dataset
from tests.loop.rounds.running import at_step, only_round
from tests.ports import free_port


@pytest.fixture
def machines():
    return Machines(2, 0, "127.0.0.1", free_port())


@pytest.fixture
def project(store, tmp_path):
    images = write_dataset(tmp_path / "many", names=tuple("abcdef"))
    store.settings = store.settings.model_copy(
        update={"train_processes": 1, "batch_size": 4, "stale_after_s": 20.0}
    )
    return import_folder(store, images, "pets").project_id


@contextmanager
def node_worker(store, machines, folder):
    """The worker of node 1, which comes back when it is killed."""
    options = ["--nodes", "2", "--node", "1", "--meeting", machines.meeting]
    with Processes(folder) as processes:
        processes.start(
            "node",
            [sys.executable, "-m", "alc_backend.cli", "worker", *options],
            environment={**store.settings.environment(), "GLOO_SOCKET_IFNAME": "lo"},
            restart=True,
        )
        yield processes


def training_processes(process: int) -> list[psutil.Process]:
    found = psutil.Process(process).children(recursive=True)
    return [each for each in found if TRAIN_PROCESS in each.cmdline()]


def test_two_machines_train_the_network_that_one_would(
    store, project, machines, tmp_path, monkeypatch
):
    """The first attempt breaks off in the middle, and node 0 alone has its checkpoint."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store.settings = store.settings.model_copy(update={"iterations": 12, "checkpoint_every": 1})
    lifecycle.start(store, [].append, project)
    path = store.files(project).network(1)
    with node_worker(store, machines, tmp_path / "logs") as processes:
        node = processes.pid_of("node")

        def kill(done, total, message):
            if done == 2:
                (process,) = training_processes(node)
                process.kill()

        report = at_step(store, only_round(store), Step.TRAINING, kill)
        with pytest.raises(TrainingError, match=r"machine 1 .* \(SIGKILL\)"):
            nodes.lead(store, machines, report)
        assert not path.exists()
        assert training_processes(os.getpid()) == []
        seen = []
        report = at_step(
            store, only_round(store), Step.TRAINING, lambda done, total, message: seen.append(done)
        )
        nodes.lead(store, machines, report)
        assert 2 < min(filter(None, seen)) < max(seen) == 12
        wait_for(lambda: training_processes(node) == [])
        assert processes.pid_of("node") == node
    together = load_file(path)
    path.unlink()
    store.settings = store.settings.model_copy(update={"train_processes": 2})
    training.train(store, only_round(store), at_step(store, only_round(store), Step.TRAINING))
    for name, value in load_file(path).items():
        assert torch.allclose(together[name].float(), value.float(), rtol=1e-4, atol=1e-6), name
