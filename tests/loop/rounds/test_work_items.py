"""Parts of a round are done by one worker at a time, and taken over from dead ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from alc_backend.loop.rounds import executor, lifecycle
from alc_backend.store.importing import import_folder
from alc_backend.store.round_states import RoundState
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds.running import hand_to_another_process, only_round, work

pytestmark = BOTH_DATABASES


@pytest.fixture
def project(store, dataset):
    return import_folder(store, dataset, "pets", validation=dataset).project_id


def test_a_step_is_done_by_one_worker_at_a_time(store, project, queue):
    lifecycle.start(store, queue.append, project)
    hand_to_another_process(store, os.getppid())
    work(store, queue)
    assert only_round(store).state == RoundState.CREATED
    assert executor.recover(store, queue.append) == 0


@pytest.mark.parametrize("silent", ["dead process", "old heartbeat"])
def test_the_step_of_a_dead_worker_is_queued_again(store, project, queue, silent):
    lifecycle.start(store, queue.append, project)
    queue.clear()
    if silent == "dead process":
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        hand_to_another_process(store, ended.pid)
    else:
        hand_to_another_process(store, os.getppid(), age_s=3600)
    assert executor.recover(store, queue.append) == 1
    work(store, queue, 1)
    assert only_round(store).state == RoundState.TRAINING
