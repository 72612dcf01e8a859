"""A real Redis and real worker processes, without Label Studio."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest
from sqlalchemy import select

from alc_backend.errors import ServiceError, SettingsError
from alc_backend.loop.rounds import executor, lifecycle, status
from alc_backend.loop.rounds.machines import Machines
from alc_backend.service.jobs import functions, worker_registry
from alc_backend.service.jobs.processes import Processes, start_redis
from alc_backend.service.jobs.queues import Jobs, job_of, queue_of
from alc_backend.service.jobs.worker import run_worker
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Part, Round, Score
from alc_backend.store.round_states import RoundState, Step
from tests.conftest import wait_for, write_dataset
from tests.ports import free_port


def test_a_killed_worker_is_replaced_and_the_round_goes_on(
    store, settings, dataset, redis, tmp_path
):
    store.settings = settings.model_copy(
        update={"iterations": 15, "input_size": 64, "batch_size": 2, "checkpoint_every": 1}
    )
    project = import_folder(store, dataset, "pets").project_id
    jobs = Jobs(settings, redis)

    def latest() -> Round:
        return status.latest_round(store, project)

    with Processes(tmp_path / "workers") as processes:
        processes.start(
            "worker",
            [sys.executable, "-m", "alc_backend.cli", "worker"],
            environment=store.settings.environment(),
            restart=True,
        )
        lifecycle.start(store, jobs.enqueue_part, project)

        def trains() -> bool:
            processes.check()
            return latest().state == RoundState.TRAINING and latest().done >= 2

        wait_for(trains)
        first = processes.pid_of("worker")
        os.kill(first, signal.SIGKILL)
        assert latest().state == RoundState.TRAINING

        def over() -> bool:
            processes.check()
            return latest().state == RoundState.FAILED  # publishing needs a Label Studio

        wait_for(over)
        assert processes.pid_of("worker") != first
        assert latest().failed_in == RoundState.PUBLISHING
    assert not psutil.pid_exists(first)
    with store.reading() as session:
        assert len(session.scalars(select(Score)).all()) == 6
    assert not list((settings.data_dir / "projects").rglob("*.checkpoint"))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_two_workers_share_the_scoring_of_a_round(store, settings, redis, tmp_path):
    images = write_dataset(tmp_path / "many", names=[f"p{number:03d}" for number in range(120)])
    store.settings = settings.model_copy(
        update={"iterations": 2, "input_size": 64, "batch_size": 2}
    )
    project = import_folder(store, images, "pets").project_id
    command = [sys.executable, "-m", "alc_backend.cli", "worker"]
    with Processes(tmp_path / "workers") as processes:
        for name in ("one", "two"):
            processes.start(name, command, environment=store.settings.environment())
        lifecycle.start(store, Jobs(settings, redis).enqueue_part, project)

        def over() -> bool:
            processes.check()
            return status.latest_round(store, project).state == RoundState.FAILED

        wait_for(over)
    round_ = status.latest_round(store, project)
    assert round_.failed_in == RoundState.PUBLISHING  # that needs a Label Studio
    with store.reading() as session:
        parts = session.scalars(select(Part).where(Part.step == RoundState.SCORING)).all()
        scores = session.scalars(select(Score)).all()
    assert [part.claims for part in parts] == [1, 1, 1, 1]
    scored = [image for part in parts for image in part.work["images"]]
    assert len(scored) == len(set(scored)) == 120
    assert len(scores) == 240


def test_a_job_lost_between_queue_and_worker_is_queued_again(settings, redis):
    """A worker killed while it takes a job leaves its status `queued`, in no queue."""
    jobs = Jobs(settings, redis)
    part = Part(id=1, round_id=1, step=RoundState.TRAINING, number=0)
    queue = queue_of("train", redis)
    jobs.enqueue_part(part)
    jobs.enqueue_part(part)
    assert queue.get_job_ids() == ["round-1-training-0"]
    redis.delete(queue.key)
    assert job_of("round-1-training-0", redis).get_status() == "queued"
    jobs.enqueue_part(part)
    assert queue.get_job_ids() == ["round-1-training-0"]


def test_every_process_ends_with_its_owner(settings, tmp_path):
    with Processes(tmp_path / "logs") as processes:
        start_redis(processes, settings)
        processes.start("sleeper", ["sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"])
        pids = [processes.pid_of(name) for name in ("redis", "sleeper")]
        children = wait_for(lambda: psutil.Process(pids[1]).children(recursive=True))
    assert not any(map(psutil.pid_exists, pids))
    for child in children:  # orphans, reaped by somebody else at some time
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_process_that_must_not_die_is_reported_with_its_log(tmp_path):
    with Processes(tmp_path) as processes:
        processes.start("broken", [sys.executable, "-c", "raise SystemExit(3)"])
        with pytest.raises(ServiceError, match=r"broken has ended \(exit code 3\).*broken\.log"):
            processes.wait_for(lambda: False, "broken", 30)
        with pytest.raises(ServiceError, match="cannot be started"):
            processes.start("missing", [str(tmp_path / "nothing")])


def test_one_backend_per_data_folder(settings, redis, tmp_path):
    with Processes(tmp_path / "second") as processes, pytest.raises(ServiceError, match="another"):
        start_redis(processes, settings)


HANGS = """
import threading
from alc_backend.loop.rounds import executor
from alc_backend.service.jobs.worker import run_worker
from alc_backend.settings import settings
from alc_backend.store.round_states import Step

executor.STEPS[Step.CREATED] = lambda store, part, report: threading.Event().wait()
run_worker(settings())
"""


def test_a_worker_that_hangs_ends_and_another_one_goes_on(
    store, settings, dataset, redis, tmp_path
):
    project = import_folder(store, dataset, "pets").project_id
    jobs, hasty = Jobs(settings, redis), settings.model_copy(update={"hung_after_minutes": 0.01})
    with Processes(tmp_path / "workers") as processes:
        processes.start(
            "hangs", [sys.executable, "-c", HANGS], environment=hasty.environment(), restart=True
        )
        hung = processes.pid_of("hangs")
        lifecycle.start(store, jobs.enqueue_part, project)
        wait_for(lambda: psutil.Process(hung).status() == psutil.STATUS_ZOMBIE)
        assert "no progress for 0.01 minutes" in processes.log_of("hangs").read_text()
        assert "in wait" in processes.log_of("hangs").read_text()  # where it hung
    queue = []
    assert executor.recover(store, queue.append) == 1
    executor.run_part(store, queue.append, queue.pop().id)
    assert status.latest_round(store, project).state == RoundState.TRAINING


def test_two_machines_of_one_name_have_a_worker_each(settings, redis):
    mine = worker_registry.this_process(["train"])
    clone = replace(mine, process=f"{mine.host}/another-start/pid:[1]|{mine.pid}|1")
    for worker in (mine, clone):
        worker_registry.sign_in(redis, worker, settings)
    assert len(worker_registry.workers(redis)) == 2


def test_unknown_queues_are_named(settings):
    with pytest.raises(SettingsError, match="'train2'"):
        run_worker(settings, ["train2"])


@pytest.mark.parametrize(
    ("host", "warned"), [("node-0", True), ("localhost", False), ("127.0.0.1", False)]
)
def test_a_place_that_other_machines_cannot_reach_is_warned_of(
    settings, monkeypatch, caplog, host, warned
):
    found = socket.getaddrinfo("127.0.0.1", free_port(), type=socket.SOCK_STREAM)
    machines = Machines(2, 0, host, found[0][4][1])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **which: found)
    monkeypatch.setitem(executor.STEPS, Step.TRAINING, None)
    without_redis = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})
    with pytest.raises(ServiceError, match="no Redis"):
        run_worker(without_redis, burst=True, machines=machines)
    assert (f"{machines.meeting} stands for 127.0.0.1 here" in caplog.text) == warned


def test_a_worker_that_was_killed_is_forgotten(settings, redis, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_registry, "MIN_LIFETIME_S", 1.0)
    me = worker_registry.this_process(["train"])
    worker_registry.sign_in(redis, me, settings.model_copy(update={"stale_after_s": 1.0}))
    assert worker_registry.workers(redis) == [me]
    wait_for(lambda: worker_registry.workers(redis) == [])  # nothing was said again
    with Processes(tmp_path / "workers") as processes:
        command = [sys.executable, "-m", "alc_backend.cli", "worker", "--queues", "score,train"]
        processes.start("worker", command, environment=settings.environment())
        (there,) = wait_for(lambda: worker_registry.workers(redis))
        assert (there.pid, there.queues) == (processes.pid_of("worker"), ("score", "train"))
        os.kill(there.pid, signal.SIGTERM)
        wait_for(lambda: worker_registry.workers(redis) == [])  # it said goodbye


def test_a_worker_that_is_told_to_stop_many_times_at_once_stops(settings, redis, tmp_path):
    """A signal may come while the one before is being handled."""
    with Processes(tmp_path / "workers") as processes:
        command = [sys.executable, "-m", "alc_backend.cli", "worker", "--queues", "score"]
        names = ["one", "two", "three"]
        for name in names:
            processes.start(name, command, environment=settings.environment())
        wait_for(lambda: len(worker_registry.workers(redis)) == len(names))
        for told in [psutil.Process(processes.pid_of(name)) for name in names]:
            for _ in range(3000):
                told.send_signal(signal.SIGTERM)
            wait_for(lambda told=told: told.status() == psutil.STATUS_ZOMBIE, limit_s=60)


def test_threads_that_need_the_store_at_the_same_moment_open_it_once(here, monkeypatch):
    opened, together = [], threading.Barrier(2)

    class SlowStore(functions.Store):
        def __init__(self, settings):
            opened.append(self)
            time.sleep(0.2)
            super().__init__(settings)

    def ask():
        together.wait()
        return functions.store()

    monkeypatch.setattr(functions, "Store", SlowStore)
    with ThreadPoolExecutor(2) as pool:
        one, other = (answer.result() for answer in [pool.submit(ask), pool.submit(ask)])
    assert one is other
    assert opened == [one]
