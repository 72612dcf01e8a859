"""Whose claim it is, and whether the worker that has it is still alive."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from sqlalchemy import select

from alc_backend.errors import CancelledError
from alc_backend.loop import leases
from alc_backend.loop.rounds import executor, lifecycle
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Part, utc_now
from alc_backend.store.round_states import Step
from tests.conftest import BOTH_DATABASES, wait_for
from tests.loop.rounds.running import at_step, began, only_round

LONG_GONE = 2**22 + 1
"""A number that no process of Linux has."""


@pytest.fixture
def project(store, dataset):
    return import_folder(store, dataset, "pets").project_id


@pytest.fixture
def part(store, project):
    """What there is to do."""
    lifecycle.start(store, [].append, project)
    return part_of(store)


def part_of(store) -> Part:
    with store.reading() as session:
        return session.scalars(select(Part)).one()


def taken_by(store, process) -> None:
    """Let a process have the part, of which it was heard just now."""
    with store.session() as session:
        row = session.scalars(select(Part)).one()
        row.claimed_by, row.heartbeat_at = f"{process}|f00d", utc_now()


def is_free(store) -> bool:
    return executor.recover(store, [].append) == 1


@pytest.mark.parametrize(
    "elsewhere",
    [
        f"{socket.gethostname()}/another-start/{{namespace}}",  # a cloned machine
        f"{socket.gethostname()}/{{boot}}/pid:[1]",  # another container
        f"{socket.gethostname()}/5bd3",  # a machine that does not name its start
    ],
)
def test_processes_elsewhere_are_not_looked_up_here(store, part, elsewhere):
    _, boot, namespace = leases.machine().split("/")
    there = elsewhere.format(boot=boot, namespace=namespace)
    taken_by(store, f"{there}|{LONG_GONE}|1")
    assert not is_free(store)
    taken_by(store, f"{leases.machine()}|{LONG_GONE}|1")
    assert is_free(store)


def test_a_process_that_got_the_number_of_a_dead_one_does_not_stand_for_it(store, part):
    number = os.getppid()
    taken_by(store, f"{leases.machine()}|{number}|{began(number)}")
    assert not is_free(store)
    taken_by(store, f"{leases.machine()}|{number}|{int(began(number)) - 1}")
    assert is_free(store)


def test_a_process_that_has_ended_and_was_not_waited_for_is_dead(store, part):
    ended = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=-1)
    name = f"{leases.machine()}|{ended.pid}|{began(ended.pid)}"
    taken_by(store, name)
    assert not is_free(store)
    ended.stdin.close()
    wait_for(lambda: leases.is_gone(name))
    assert is_free(store)
    ended.wait()


@pytest.mark.parametrize("name", ["", "x", "a|b|c", "|||", "host|12x|3"])
def test_a_name_that_is_none_is_taken_for_alive_until_nothing_is_heard(name):
    assert not leases.is_gone(name)


def test_this_process_is_there():
    assert leases.is_here(leases.this_process())
    assert not leases.is_gone(leases.this_process())


@BOTH_DATABASES
def test_the_heartbeat_stops_where_the_work_does(store, part):
    changes = {"stale_after_s": 1.0, "hung_after_minutes": 0.02}
    store.settings = store.settings.model_copy(update=changes)
    claimed = at_step(store, only_round(store), Step.CREATED).claimed
    with leases.Heartbeat(store, claimed) as heartbeat:
        wait_for(leases.is_hung)
        wait_for(lambda: leases.is_abandoned(part_of(store), store.settings))
        heartbeat.progress()
        assert not heartbeat.is_hung
    assert not leases.is_hung()


@BOTH_DATABASES
def test_a_lease_is_lost_with_the_next_claim(store, part):
    report = at_step(store, only_round(store), Step.CREATED)
    report.check()
    with report.session() as session:
        session.scalars(select(Part)).one().done = 1
    at_step(store, only_round(store), Step.CREATED)  # this very process claims it once more
    with pytest.raises(CancelledError):
        report.check()
    with pytest.raises(CancelledError), report.session() as session:
        session.scalars(select(Part)).one().done = 2
    assert part_of(store).done == 1
