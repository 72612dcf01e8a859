"""Trainings of several machines: node workers as processes of their own, over the loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import select

import alc_backend
from alc_backend.errors import ServiceError, SettingsError, TrainingError
from alc_backend.loop import leases
from alc_backend.loop.leases import Heartbeat
from alc_backend.loop.rounds import executor, lifecycle, meeting, nodes, training
from alc_backend.loop.rounds.distributed import TRAIN_PROCESS, WATCH_EVERY_S
from alc_backend.loop.rounds.machines import Machines, share_out
from alc_backend.loop.rounds.presence import Presence, presence
from alc_backend.service.jobs.processes import Processes
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Part, Round
from alc_backend.store.round_states import RoundState, Step
from tests.conftest import wait_for, write_dataset
from tests.loop.rounds.running import at_step, hand_to_another_process, only_round, work
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
    """The worker of node 1, a process of its own, with a disk of its own in ``folder``."""
    shutil.copytree(store.settings.data_dir / "projects", folder / "projects")
    settings = store.settings.model_copy(
        update={"data_dir": folder, "database_url": store.settings.database}
    )
    options = ["--nodes", "2", "--node", "1", "--meeting", machines.meeting]
    with Processes(folder / "logs") as processes:
        processes.start(
            "node",
            [sys.executable, "-m", "alc_backend.cli", "worker", *options],
            environment=settings.environment(),
        )
        yield processes


def training_processes(process: int) -> list[psutil.Process]:
    found = psutil.Process(process).children(recursive=True)
    return [each for each in found if TRAIN_PROCESS in each.cmdline()]


def lead(store, machines, tell):
    """Train the only round with node 1, as a worker of node 0 does."""
    report = at_step(store, only_round(store), Step.TRAINING, tell)
    with Heartbeat(store, report.claimed):
        nodes.lead(store, machines, report)


def test_two_machines_train_the_network_that_one_would(
    store, project, machines, tmp_path, monkeypatch
):
    """The first attempt breaks off in the middle, and node 0 alone has its checkpoint."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store.settings = store.settings.model_copy(update={"iterations": 12, "checkpoint_every": 1})
    lifecycle.start(store, [].append, project)
    path = store.files(project).network(1)
    with node_worker(store, machines, tmp_path / "one") as processes:
        node = processes.pid_of("node")

        def kill(done, total, message):
            if done == 2:
                (process,) = training_processes(node)
                process.kill()

        with pytest.raises(TrainingError, match=r"machine 1 .* \(SIGKILL\)"):
            lead(store, machines, kill)
        assert not path.exists()
        assert training_processes(os.getpid()) == []
        seen = []
        lead(store, machines, lambda done, total, message: seen.append(done))
        assert 2 < min(filter(None, seen)) < max(seen) == 12
        wait_for(lambda: training_processes(node) == [])
        processes.check()
        os.kill(node, signal.SIGTERM)
        wait_for(lambda: psutil.Process(node).status() == psutil.STATUS_ZOMBIE)
        with pytest.raises(ServiceError, match="exit code 0"):
            processes.check()
    assert not list((tmp_path / "one").rglob("model*"))
    together = load_file(path)
    path.unlink()
    store.settings = store.settings.model_copy(update={"train_processes": 2})
    training.train(store, only_round(store), at_step(store, only_round(store), Step.TRAINING))
    for name, value in load_file(path).items():
        assert torch.allclose(together[name].float(), value.float(), rtol=1e-4, atol=1e-6), name


@pytest.fixture
def alone_at_node_0(store, project, machines, monkeypatch):
    """A round whose training waits for node 1, and what happens meanwhile, set by the test."""
    meanwhile = []
    monkeypatch.setattr(nodes, "TELL_EVERY_S", 0.0)
    monkeypatch.setattr(nodes.time, "sleep", lambda seconds: meanwhile.pop(0)())
    monkeypatch.setitem(executor.STEPS, Step.TRAINING, None)
    executor.train_with(machines, lambda: bool(meanwhile) and meanwhile[0] == "stop")
    queue = []
    lifecycle.start(store, queue.append, project)
    work(store, queue, 1)
    return queue, meanwhile


def test_waiting_for_other_machines_is_told_and_can_be_cancelled(
    store, project, machines, alone_at_node_0
):
    queue, meanwhile = alone_at_node_0
    messages = []

    def cancel():
        messages.append(only_round(store).message)
        lifecycle.cancel(store, project)

    meanwhile.append(cancel)
    work(store, queue)
    assert messages == [f"waiting for 1 of 2 machines at {machines.meeting}"]
    assert only_round(store).state == RoundState.CANCELLED
    meeting.listen(machines).close()  # the port is free again


def test_a_worker_that_stops_while_it_waits_leaves_the_training_to_others(store, alone_at_node_0):
    queue, meanwhile = alone_at_node_0
    meanwhile += [lambda: None, "stop"]
    work(store, queue)
    assert only_round(store).state == RoundState.TRAINING
    assert executor.recover(store, queue.append) == 1


def test_a_worker_alone_for_too_long_does_other_jobs_and_tries_again(
    store, machines, alone_at_node_0, monkeypatch
):
    queue, _ = alone_at_node_0
    monkeypatch.setattr(nodes, "WAIT_S", 0.0)
    work(store, queue)
    round_ = only_round(store)
    assert round_.state == RoundState.TRAINING
    assert round_.message.startswith("trying again in ")
    assert round_.message.endswith(f"waiting for 1 of 2 machines at {machines.meeting}")
    with store.session() as session:
        part = session.scalars(select(Part).where(Part.step == Step.TRAINING)).one()
        assert part.claimed_by is None
        part.retry_at = part.retry_at.replace(year=2000)
    assert executor.recover(store, queue.append) == 1


def test_batches_too_small_for_the_machines_fail_the_round_at_once(store, alone_at_node_0):
    queue, _ = alone_at_node_0
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        small = replace(round_.config.training, batch_size=2)
        round_.config = replace(round_.config, training=small)
    work(store, queue)
    assert only_round(store).state == RoundState.FAILED
    assert "2 machines cannot share batches of 2 images" in only_round(store).error
    assert "ALC_BATCH_SIZE to 4" in only_round(store).error


def test_machines_with_most_processes_give_up_some_for_small_batches():
    assert share_out([4, 1], 16) == [4, 1]
    assert share_out([4, 1], 8) == [3, 1]
    assert share_out([8, 8], 9) == [2, 2]
    assert share_out([3], 2) == [1]
    assert share_out([10**12, 1], 8) == [3, 1]  # not one after the other
    with pytest.raises(SettingsError, match="or use 3 machines"):
        share_out([1, 1, 1, 1], 7)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((0, 0, None), "--nodes 0"),
        ((1025, 0, "h:1"), "--nodes 1025"),
        ((2, 2, "h:1"), "from 0 to 1"),
        ((2, -1, "h:1"), "--node -1"),
        ((1, 0, "h:1"), "--nodes"),
        ((2, 0, None), "--meeting HOST:PORT"),
        *(
            ((2, 0, wrong), "is not HOST:PORT")
            for wrong in ("", "h", "h:", "h:x", "h:0", "h:65536", ":1", "h:1/x", "a@h:1", "h 1:b")
        ),
        ((2, 0, "0.0.0.0:1"), "names no machine"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(SettingsError, match=named):
        Machines.of_options(*options)


def test_addresses_of_both_kinds_are_understood():
    assert Machines.of_options(2, 1, "10.0.0.5:29500") == Machines(2, 1, "10.0.0.5", 29500)
    six = Machines.of_options(3, 2, "[fd00::5]:29500")
    assert (six.host, six.port, six.meeting) == ("fd00::5", 29500, "[fd00::5]:29500")


def test_a_place_that_cannot_be_used_is_told(machines):
    with meeting.listen(machines), pytest.raises(SettingsError, match="choose another port"):
        meeting.listen(machines)
    with pytest.raises(SettingsError, match="an address of this machine"):
        meeting.listen(replace(machines, host="192.0.2.1"))


def test_the_port_is_open_at_the_named_address_alone(met):
    with met.host(), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", met.machines.port))


def test_no_python_objects_are_sent_between_machines():
    """PyTorch pickles them; all that a training exchanges is tensors, and JSON in the meeting."""
    sending = [
        path
        for path in Path(alc_backend.__file__).parent.rglob("*.py")
        if re.search(r"_object(_list)?\(", path.read_text()) and "distributed" in path.read_text()
    ]
    assert sending == []


class Meeting:
    """A meeting of two machines, both in this process."""

    def __init__(self, machines, monkeypatch):
        monkeypatch.setattr(meeting, "REASON_S", 1.5)
        self.machines = machines
        self.me = presence("zero/1|2|3", machines, 1)

    def host(self, training="1/a"):
        return closing(meeting.Host(self.machines, training, self.me, stale_after_s=60))

    def guest(self, *trainings, stale_after_s=60.0, **changes):
        node = replace(self.machines, node=1)
        there = replace(self.me, **{"name": "one/4|5|6", "processes": 3, **changes})
        return closing(meeting.Guest(node, trainings or ["1/a"], there, stale_after_s))


@pytest.fixture
def met(machines, monkeypatch):
    return Meeting(machines, monkeypatch)


def test_a_machine_finds_the_training_that_is_waiting_for_it(met):
    with pytest.raises(meeting.AwayError, match="nothing answers"):
        met.guest()
    with met.host("7/b") as host:
        with pytest.raises(meeting.AwayError, match="another training"):
            met.guest("7/a", "8/b")
        with met.guest("7/a", "7/b") as guest:
            assert guest.training == "7/b"
            assert host.present() == [met.me]
            guest.enter()
            assert guest.share() is None
            assert [there.host for there in host.present()] == ["zero", "one"]
            host.begin(host.present(), [2, 3])
            share = wait_for(guest.share)
            assert (share.first, share.processes, share.world) == (2, 3, 5)
            host.check()
            guest.tell_end()
            host.await_end()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"alc": "0.0.9"}, "alc-backend"),
        ({"torch": "2.6.0"}, "PyTorch"),
        ({"backend": "nccl"}, "GPUs"),
        ({"nodes": 3}, "--nodes"),
    ],
)
def test_machines_that_do_not_fit_together_are_refused_on_both(met, changes, named):
    with met.host() as host, met.guest(**changes) as guest:
        with pytest.raises(SettingsError, match=rf"machine 0 \(zero\) has {named}|{named}"):
            guest.enter()
        with pytest.raises(SettingsError, match=rf"machine 1 \(one\).*{named}"):
            host.present()


@pytest.mark.parametrize("number", ['"x"', "[]", "null", "1e999", "NaN", "true", "0", "-1", "1025"])
@pytest.mark.parametrize("what", ["nodes", "processes"])
def test_numbers_that_cannot_be_are_refused(what, number):
    with pytest.raises(SettingsError, match=f"one says of its {what} .*ALC_TRAIN_PROCESSES"):
        Presence.read(f'{{"name": "one", "{what}": {number}}}'.encode())


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"[" * 10**6, b"9" * 10**5])
def test_what_is_no_presence_fits_no_machine(met, content):
    with pytest.raises(SettingsError, match="alc-backend"):
        met.me.require_like(Presence.read(content), 1)


@pytest.mark.parametrize(
    ("shares", "named"),
    [
        ({}, "shares"),
        ({"processes": [1], "names": ["a", "b"]}, "shares"),
        ({"processes": [1, 1], "names": 7}, "shares"),
        ({"processes": [1, 10**7], "names": ["a", "one/4|5|6"]}, "processes"),
    ],
)
def test_shares_that_cannot_be_are_refused(met, shares, named):
    with met.host() as host, met.guest() as guest:
        guest.enter()
        host._store.set("shares", json.dumps(shares))
        with pytest.raises(SettingsError, match=f"node 0 says of its {named}"):
            wait_for(guest.share)


HOST = """
import sys, time
from alc_backend.loop.rounds.machines import Machines
from alc_backend.loop.rounds.meeting import Host
from alc_backend.loop.rounds.presence import presence

machines = Machines(2, 0, "127.0.0.1", int(sys.argv[1]))
host = Host(machines, sys.argv[2], presence("zero/1|2|3", machines, 1), 60.0)
print("open", flush=True)
while len(host.present()) < 2:
    time.sleep(0.1)
print("met", flush=True)
time.sleep(600)
"""


@contextmanager
def host_process(machines, training):
    """Node 0's meeting, held by a process of its own, as its :class:`subprocess.Popen`."""
    arguments = [sys.executable, "-c", HOST, str(machines.port), training]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()  # a stopped process, too


def test_a_machine_notices_that_node_0_hangs(met):
    with host_process(met.machines, "1/a") as node_0, met.guest(stale_after_s=3.0) as guest:
        guest.enter()
        assert node_0.stdout.readline() == "met\n"
        guest.check()
        node_0.send_signal(signal.SIGSTOP)

        def is_missed():
            try:
                guest.check()
            except meeting.AwayError as error:
                return str(error)

        assert "does not answer any more" in wait_for(is_missed)
        with pytest.raises(meeting.AwayError):
            guest.share()
        guest.tell_failure("in vain", cause_elsewhere=False)
        node_0.send_signal(signal.SIGCONT)


def test_a_worker_can_be_stopped_while_node_0_hangs(store, project, machines, tmp_path):
    store.settings = store.settings.model_copy(update={"stale_after_s": 3600.0})
    lifecycle.start(store, [].append, project)
    part = at_step(store, only_round(store), Step.TRAINING).claimed
    with (
        host_process(machines, nodes._training(part)) as node_0,
        node_worker(store, machines, tmp_path / "one") as processes,
    ):
        assert node_0.stdout.readline() == "met\n"
        node_0.send_signal(signal.SIGSTOP)
        time.sleep(3 * WATCH_EVERY_S)  # by now the worker has asked, and gets no answer
        node = processes.pid_of("node")
        os.kill(node, signal.SIGTERM)
        wait_for(lambda: psutil.Process(node).status() == psutil.STATUS_ZOMBIE, limit_s=60)


def test_a_place_that_accepts_and_says_nothing_is_left(met, monkeypatch):
    monkeypatch.setattr(meeting, "CONNECT_S", 0.5)
    with meeting.listen(met.machines), pytest.raises(meeting.AwayError, match="not answered"):
        met.guest()


def test_secrets_are_not_told_to_other_machines(store, project, machines, met, monkeypatch):
    lifecycle.start(store, [].append, project)
    part = at_step(store, only_round(store), Step.TRAINING).claimed
    monkeypatch.setattr(type(store.settings), "hidden", lambda settings: ["sesame-street"])

    def launch(*arguments):
        raise TrainingError("cannot reach postgresql://alc:sesame-street@db")

    monkeypatch.setattr(nodes, "launch", launch)
    with met.host(nodes._training(part)) as host:
        host.begin([met.me, replace(met.me, name=leases.this_process())], [1, 1])
        with pytest.raises(TrainingError, match="sesame-street"):
            nodes.join(store, replace(machines, node=1), 1, set())
        with pytest.raises(TrainingError, match="postgresql://alc:…@db"):
            host.check()


def test_the_machine_that_has_failed_is_named(met):
    with met.host() as host, met.guest() as guest:
        guest.enter()
        assert host.reason() is None  # it is there, and has nothing to say
        guest.tell_failure("the peer is gone", cause_elsewhere=True)
        with pytest.raises(TrainingError, match="the peer is gone"):
            host.check()
        assert host.reason() is None  # that does not say why
        guest.tell_failure("no disk", cause_elsewhere=False)
        assert host.reason() == "machine 1 (one): no disk"
        assert host.present() == [met.me]
        with met.guest(name="one/4|7|8") as restarted:
            restarted.enter()
            assert len(host.present()) == 2
            host.check()


def test_a_machine_that_says_nothing_any_more_is_named(met):
    with met.host() as host:
        with met.guest() as guest:
            guest.enter()
        guest._beating.join()
        assert "machine 1 of 2 has left the training" in host.reason()


def test_two_workers_of_one_number_do_not_both_take_part(met):
    with met.host() as host, met.guest() as first, met.guest(name="two/4|5|6") as second:
        first.enter()
        second.enter()
        host.begin(host.present(), [1, 1])
        with pytest.raises(SettingsError, match="as machine 1, too"):
            wait_for(first.share)
        assert wait_for(second.share).first == 1


def test_a_machine_notices_that_node_0_has_ended(met):
    host = met.host().thing
    with met.guest() as guest:
        guest.enter()
        guest.check()
        host.close()
        guest._beating.join()
        with pytest.raises(meeting.AwayError, match="node 0 has ended"):
            guest.check()


def test_only_trainings_with_a_living_worker_are_joined(store, project):
    lifecycle.start(store, [].append, project)
    assert nodes.running_trainings(store) == []
    report = at_step(store, only_round(store), Step.TRAINING)
    assert [part.id for part in nodes.running_trainings(store)] == [report.claimed.id]
    watched = nodes._Watched(store, report.claimed)
    watched.look()
    hand_to_another_process(store, 1, age_s=30.0)
    assert nodes.running_trainings(store) == []
    with store.reading() as session:
        late = nodes._Watched(store, session.get_one(Part, report.claimed.id))
    with pytest.raises(nodes.CancelledError, match="no sign of life"):
        late.look()
    with pytest.raises(nodes.CancelledError, match="taken over"):
        watched.look()
