"""Publishing a round: the switch of Label Studio, and workers that are paused or die at it."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from alc_backend.errors import CancelledError, RoundError
from alc_backend.loop.rounds import executor, lifecycle, publishing
from alc_backend.store.models import Part, Round, utc_now
from alc_backend.store.round_states import RoundState, Step
from tests.annotations import QUERY_PROJECT
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds import running

VERSION = f"/api/projects/{QUERY_PROJECT}"


@pytest.fixture
def project(store, dataset):
    return running.second_round(store, dataset)


@pytest.fixture
def label_studio(store, project, monkeypatch):
    fake = running.label_studio_before_it(store)
    fake.serve(monkeypatch)
    return fake


@pytest.fixture
def work(store, project, label_studio):
    """Do the publishing as a worker does; it is done once the round is open."""
    part = running.at_step(store, round_of(store, 2), Step.PUBLISHING).claimed
    release(store)
    return lambda: executor.run_part(store, [].append, part.id)


def release(store):
    """Let nobody have the part, which may be tried at once."""
    with store.session() as session:
        part = session.scalars(select(Part)).one()
        part.claimed_by = part.retry_at = None


def round_of(store, number) -> Round:
    with store.reading() as session:
        return session.scalars(select(Round).where(Round.number == number)).one()


def states(store):
    with store.reading() as session:
        return {each.number: each.state for each in session.scalars(select(Round))}


def followed(label_studio):
    return label_studio.projects[QUERY_PROJECT]["model_version"]


class Requests(list):
    """The requests that arrive; ``happen`` is called with each after it has arrived."""

    def __init__(self, happen):
        super().__init__()
        self._happen = happen

    def append(self, request):
        super().append(request)
        self._happen(request)


def is_switch(request):
    return request.method == "PATCH" and request.path == VERSION


def die_at_switch(request):
    if is_switch(request):
        raise KeyboardInterrupt


def after_switch(label_studio, happen):
    """Let something happen with the first request after Label Studio has switched."""

    def look(request):
        if followed(label_studio) == "alc-round-2":
            label_studio.requests = [*label_studio.requests]
            happen()

    label_studio.requests = Requests(look)


# The switch.


@BOTH_DATABASES
def test_the_switch_is_recorded(store, label_studio, work):
    assert round_of(store, 2).switched_at is None
    work()
    assert followed(label_studio) == "alc-round-2"
    assert round_of(store, 2).switched_at is not None
    assert states(store) == {1: RoundState.CLOSED, 2: RoundState.OPEN}


@BOTH_DATABASES
@pytest.mark.parametrize("arrived", [True, False])
def test_a_round_that_label_studio_may_follow_is_not_cancelled(
    store, project, label_studio, work, arrived
):
    """The worker dies before or after the request has been worked on."""

    def die():
        raise KeyboardInterrupt

    if arrived:
        after_switch(label_studio, die)
    else:
        label_studio.requests = Requests(die_at_switch)
    with pytest.raises(KeyboardInterrupt):
        work()
    label_studio.requests = []
    assert followed(label_studio) == ("alc-round-2" if arrived else "alc-round-1")
    release(store)
    with pytest.raises(RoundError, match="Label Studio was told to follow its queue"):
        lifecycle.cancel(store, project)
    work()
    assert followed(label_studio) == "alc-round-2"
    assert states(store) == {1: RoundState.CLOSED, 2: RoundState.OPEN}


def test_cancelling_before_the_switch_keeps_label_studio_at_the_last_round(
    store, project, label_studio, work
):
    def cancel(request):
        if request.path.endswith("/import/predictions"):
            lifecycle.cancel(store, project)

    label_studio.requests = Requests(cancel)
    work()
    assert states(store) == {1: RoundState.OPEN, 2: RoundState.CANCELLED}
    assert followed(label_studio) == "alc-round-1"
    assert round_of(store, 2).switched_at is None


def test_a_switch_that_label_studio_refuses_has_not_happened(store, project, label_studio, work):
    label_studio.fail(400, VERSION, method="PATCH")
    work()
    assert states(store)[2] == RoundState.FAILED
    assert round_of(store, 2).switched_at is None
    label_studio.recover()
    lifecycle.start(store, [].append, project)
    assert states(store)[2] == RoundState.CREATED  # it has no network: it begins anew


def test_a_switch_whose_answer_was_lost_is_looked_up(store, label_studio, work):
    label_studio.fail(None, VERSION, method="PATCH", times=1)
    work()
    assert states(store)[2] == RoundState.PUBLISHING
    release(store)
    work()
    assert states(store)[2] == RoundState.OPEN
    assert followed(label_studio) == "alc-round-2"


def failed_after_the_switch(store, label_studio):
    """A round that is in force, although it counts as failed."""
    label_studio.projects[QUERY_PROJECT]["model_version"] = "alc-round-2"
    with store.session() as session:
        second = session.scalars(select(Round).where(Round.number == 2)).one()
        second.state, second.failed_in = RoundState.FAILED, RoundState.PUBLISHING
        second.switched_at, second.error = utc_now(), "the token is not valid any more"


@BOTH_DATABASES
def test_a_failed_round_in_force_is_finished_and_not_done_again(store, project, label_studio, work):
    failed_after_the_switch(store, label_studio)
    round_, started = lifecycle.start(store, [].append, project)
    assert (round_.number, round_.state, started) == (2, RoundState.PUBLISHING, True)
    work()
    assert states(store) == {1: RoundState.CLOSED, 2: RoundState.OPEN}


@BOTH_DATABASES
def test_with_other_folds_the_next_round_begins_and_the_one_in_force_opens(
    store, project, label_studio, work
):
    failed_after_the_switch(store, label_studio)
    round_, started = lifecycle.start(store, [].append, project, folds=2)
    assert (round_.number, round_.config.folds, started) == (3, 2, True)
    assert states(store) == {1: RoundState.CLOSED, 2: RoundState.OPEN, 3: RoundState.CREATED}
    assert round_of(store, 2).error is None


def test_tasks_that_cannot_be_closed_are_told_and_the_round_opens(store, label_studio, work):
    gone = min(task.id for task in label_studio.tasks_of(QUERY_PROJECT))
    label_studio.fail(403, f"/api/tasks/{gone}/", method="PATCH")
    work()
    second = round_of(store, 2)
    assert second.state == RoundState.OPEN
    assert "1 tasks that are not asked any more were not closed" in second.warning
    assert sum(task.is_labeled for task in label_studio.tasks_of(QUERY_PROJECT)) == 2


# Workers that were paused for longer than their lease.


def test_a_worker_that_was_paused_changes_nothing_any_more(store, label_studio):
    """It is paused after each of its requests in turn; the part is another worker's then."""
    for number in range(200):
        report = running.at_step(store, round_of(store, 2), Step.PUBLISHING)
        arrived = []

        def pause(request, arrived=arrived, number=number):
            arrived.append(request)
            if len(arrived) == number + 1:
                running.hand_to_another_process(store, 1)

        label_studio.requests = Requests(pause)
        try:
            publishing.publish_round(store, round_of(store, 2), report)
        except CancelledError:
            late = [request for request in arrived[number + 1 :] if request.method != "GET"]
            assert late == []
        else:
            break
    assert 5 < number < 199
    assert states(store)[2] == RoundState.PUBLISHING
    assert followed(label_studio) == "alc-round-2"


def test_a_paused_worker_does_not_take_the_questions_in_force_away(store, label_studio, work):
    """Another one has published the round before it goes on, and labelers are at it."""
    report = running.at_step(store, round_of(store, 2), Step.PUBLISHING)

    def overtake(request):
        label_studio.requests = []
        release(store)
        work()
        assert states(store)[2] == RoundState.OPEN

    label_studio.requests = Requests(overtake)
    with pytest.raises(CancelledError):
        publishing.publish_round(store, round_of(store, 2), report)
    assert followed(label_studio) == "alc-round-2"
    tasks = label_studio.tasks_of(QUERY_PROJECT)
    shown = [p["model_version"] for task in tasks for p in task.predictions]
    assert shown.count("alc-round-2") == 3
