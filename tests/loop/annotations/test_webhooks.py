"""What webhooks report, in whatever order, as often and as late as it comes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from alc_backend.common.retries import pause_after
from alc_backend.loop.annotations import answers, webhooks
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store.models import Event, LedgerEntry, Project, Query, Withdrawal, utc_now
from tests.annotations import (
    CAT,
    DATASET_PROJECT,
    DOG,
    annotation,
    answer,
    asked_project,
    created,
    deleted,
    entries,
    image_of,
    in_ledger,
    label_map,
    label_studio_of,
    query_of,
    receive,
    region,
    task_of,
    tasks_deleted,
)
from tests.conftest import BOTH_DATABASES, CLASSES
from tests.fake_label_studio import FakeLabelStudio

pytestmark = BOTH_DATABASES


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def label_studio(store, project):
    return label_studio_of(store)


@pytest.fixture
def post(store, project):
    def post(*payloads):
        return [receive(store, project, body) for body in payloads]

    return post


@pytest.fixture
def drain(store, label_studio):
    return lambda: webhooks.drain(store, label_studio.client)


def hurry(store):
    """As if all pauses before another try were over."""
    with store.session() as session:
        session.execute(update(Event).values(next_try_at=None))


def outcomes(store):
    with store.reading() as session:
        return list(session.scalars(select(Event.outcome).order_by(Event.id)))


# Any order, any number of times.

PLACES = [("a", 1), ("a", 2), ("b", 2)]


@st.composite
def histories(draw):
    """What happens to some annotations: (place, annotator, choices it had, whether deleted)."""
    one = st.tuples(
        st.sampled_from(PLACES),
        st.sampled_from([7, 8]),
        st.lists(st.sampled_from(["dog", "cat", None]), min_size=1, max_size=4),
        st.booleans(),
    )
    return draw(st.lists(one, min_size=1, max_size=3))


def told(history, tasks):
    """The webhooks about a history, and which of them tell of what came last."""
    events, last = [], []
    for index, (place, annotator, choices, gone) in enumerate(history):
        for revision, choice in enumerate(choices):
            times = {"minute": index, "revised": index + revision}
            record = answer(index + 1, tasks[place], choice, by=annotator, **times)
            action = "ANNOTATION_UPDATED" if revision else "ANNOTATION_CREATED"
            events.append(created(record, action=action))
            last.append(revision == len(choices) - 1 and not gone)
        if gone:
            events.append(deleted(index + 1))
            last.append(True)
    return events, last


def said(choice):
    if choice is None:
        return "skip", None
    return "accept" if choice == "cat" else "correct", CLASSES.index(choice)


def ledger_after(store, project, events):
    with store.session() as session:
        for table in (LedgerEntry, Withdrawal, Event):
            session.execute(delete(table))
    for body in events:
        receive(store, project, body)
    webhooks.drain(store, FakeLabelStudio().client)
    assert webhooks.waiting(store) == 0
    maps = np.stack([label_map(store, project, key) for key in ("a", "b")])
    return in_ledger(store, project), maps


@pytest.mark.parametrize("overlap", [1, 2])
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), data=st.data())
def test_any_order_repetition_and_loss_of_webhooks_gives_the_same_ledger(
    store, project, overlap, history, data
):
    with store.session() as session:
        session.get_one(Project, project).overlap = overlap
    tasks = {place: task_of(store, *place) for place in PLACES}
    events, last = told(history, tasks)
    expected, maps = ledger_after(store, project, events)
    assert expected == {
        index + 1: said(choices[-1])
        for index, (_, _, choices, gone) in enumerate(history)
        if not gone
    }
    kept = [
        body
        for body, needed in zip(events, last, strict=True)
        for _ in range(data.draw(st.integers(1 if needed else 0, 2)))
    ]
    found, found_maps = ledger_after(store, project, data.draw(st.permutations(kept)))
    assert found == expected
    assert np.array_equal(found_maps, maps)


def test_an_answer_restored_before_news_of_its_change_arrives_stays_restored(
    store, project, post, drain
):
    task = task_of(store, "a", 2)
    post(
        created(answer(1, task, "dog")),
        created(answer(1, task, "dog", revised=2)),
        created(answer(1, task, "cat", revised=1)),  # the change came between
    )
    drain()
    assert in_ledger(store, project) == {1: ("correct", DOG)}


def test_a_deletion_may_come_before_the_answer(store, project, post, drain):
    task = task_of(store, "a", 2)
    post(deleted(1), created(answer(1, task, "dog")))
    drain()
    assert entries(store) == []
    post(created(answer(1, task, "dog", revised=3)))
    drain()
    assert in_ledger(store, project) == {}


def test_deleted_tasks_take_their_answers_along(store, project, post, drain):
    tasks = [task_of(store, "a", 1), task_of(store, "a", 2), task_of(store, "b", 2)]
    post(*(created(answer(n, task, "dog", by=n)) for n, task in enumerate(tasks, start=1)))
    post(created(answer(4, tasks[0], "cat", by=9)), tasks_deleted(tasks[0], tasks[2], 9999))
    assert drain()[Outcome.DELETED] == 3
    assert in_ledger(store, project) == {2: ("correct", DOG)}


def test_a_deleted_dataset_task_takes_its_edits_along_and_no_answer(store, project, post, drain):
    image = image_of(store, "a").dataset_task
    painted = annotation(1, image, [region("dog", slice(0, 4), slice(0, 4))])
    post(
        created(painted, project=DATASET_PROJECT),
        created(answer(2, task_of(store, "a", 2), "dog")),
    )
    drain()
    assert in_ledger(store, project) == {1: ("edit", None), 2: ("correct", DOG)}
    post(tasks_deleted(image, project=DATASET_PROJECT))
    drain()
    assert in_ledger(store, project) == {2: ("correct", DOG)}


# Events that cannot be read in at once.


def forget_task(store, key, number):
    """As if the process died between making a task and noting its number."""
    with store.session() as session:
        session.get_one(Query, query_of(store, key, number).id).task_id = None


def test_a_task_of_unknown_number_is_found_by_what_it_asks(store, project, post, drain):
    forget_task(store, "a", 2)
    post(created(answer(1, 9999, "dog"), {"alc": {"image": "a", "superpixel": 2}}))
    drain()
    assert entries(store)[0].superpixel_id == query_of(store, "a", 2).superpixel_id


def test_an_answer_to_an_unknown_task_is_read_in_once_the_task_is_known(
    store, project, post, drain
):
    post(created(answer(1, 9999, "dog")))
    assert not drain()
    assert webhooks.waiting(store) == 1
    with store.session() as session:
        session.get_one(Query, query_of(store, "a", 2).id).task_id = 9999
    assert not drain()  # its pause is not over
    hurry(store)
    assert drain() == {Outcome.RECORDED: 1}
    assert (webhooks.waiting(store), outcomes(store)) == (0, ["1 recorded"])


def test_an_event_waiting_for_another_try_holds_up_no_other(store, project, post, drain):
    post(created(answer(1, 9999, "dog")), created(answer(2, task_of(store, "a", 2), "dog")))
    drain()
    assert in_ledger(store, project) == {2: ("correct", DOG)}
    assert webhooks.waiting(store) == 1


def test_what_never_can_be_read_in_is_given_up_with_its_reason(store, project, post, drain):
    post(created(answer(1, 9999, "dog")), created(answer(2, task_of(store, "a", 2), "emu")))
    for _ in range(webhooks.MAX_TRIES):
        assert not drain()
        assert webhooks.waiting(store) == 2
        assert outcomes(store)[0] == "to be tried again: of an unknown task"
        hurry(store)
    assert drain() == {Outcome.UNKNOWN_TASK: 1, Outcome.UNKNOWN_CLASS: 1}
    assert webhooks.waiting(store) == 0
    assert outcomes(store) == ["of an unknown task", "of an unknown class"]
    assert entries(store) == []


def test_pauses_grow_as_announced(store, project, post, drain):
    post(created(answer(1, 9999, "dog")))
    for tries in range(1, webhooks.MAX_TRIES + 1):
        before, pause = utc_now(), pause_after(tries)
        drain()
        with store.reading() as session:
            planned = session.scalars(select(Event.next_try_at)).one()
        assert timedelta(0) <= planned - before - timedelta(seconds=pause) < timedelta(seconds=3)
        hurry(store)


def test_an_edit_waits_while_label_studio_is_away(store, project, post, drain, label_studio):
    image = image_of(store, "a").dataset_task
    painted = [region("dog", slice(0, 4), slice(0, 4))]
    post(created(annotation(1, image, painted, parent_prediction=5), project=DATASET_PROJECT))
    label_studio.predict(image, [], number=5)
    label_studio.fail()
    drain()
    assert (in_ledger(store, project), webhooks.waiting(store)) == ({}, 1)
    assert "does not answer" in outcomes(store)[0]
    label_studio.recover()
    hurry(store)
    drain()
    assert in_ledger(store, project) == {1: ("edit", None)}


def test_an_edit_taken_back_while_an_older_event_waits_stays_taken_back(
    store, project, post, drain, label_studio
):
    image = image_of(store, "a").dataset_task
    painted = [region("dog", slice(0, 4), slice(0, 4))]
    label_studio.predict(image, [], number=5)
    label_studio.fail()
    first = annotation(1, image, painted, parent_prediction=5)
    post(created(first, project=DATASET_PROJECT))
    drain()
    label_studio.recover()
    skipped = {**first, "was_cancelled": True, "updated_at": "2026-01-01T12:09:00Z"}
    post(created(skipped, project=DATASET_PROJECT, action="ANNOTATION_UPDATED"))
    drain()
    hurry(store)
    drain()
    assert (label_map(store, project)[:4, :4] == 0).all()


MALFORMED = [
    {"type": "brushlabels", "value": None},
    {"type": "brushlabels", "value": {"brushlabels": "cat"}},
    {"type": "brushlabels", "value": {"brushlabels": [["cat"]]}},
    "a word",
    {**region("dog", slice(0, 4), slice(0, 4)), "original_width": None},
    region("dog", slice(0, 4), slice(0, 4), value={"brushlabels": ["dog"], "rle": ["x"]}),
    region("dog", slice(0, 4), slice(0, 4), value={"brushlabels": ["dog"], "rle": 7}),
    region("dog", slice(0, 4), slice(0, 4), value={"brushlabels": ["dog"], "rle": [0, 0, 48, 0]}),
]


@pytest.mark.parametrize("item", MALFORMED, ids=range(len(MALFORMED)))
def test_regions_nobody_can_read_do_not_stop_the_inbox(store, project, post, drain, item):
    image = image_of(store, "b").dataset_task
    before = label_map(store, project, "b")
    post(
        created(annotation(1, image, [item]), project=DATASET_PROJECT),
        created(answer(2, task_of(store, "a", 2), "dog")),
    )
    drain()
    assert in_ledger(store, project)[2] == ("correct", DOG)
    assert np.array_equal(label_map(store, project, "b"), before)
    assert webhooks.waiting(store) == 0


# Crashes, and several at once.


def test_events_survive_a_crash_while_they_are_read_in(store, project, post, drain, monkeypatch):
    post(
        created(answer(1, task_of(store, "a", 1), "dog")),
        created(answer(2, task_of(store, "a", 2), "dog")),
    )
    record = answers.record

    def die_at_two(store, project, annotation, *about):
        if annotation.annotation_id == 2:
            raise KeyboardInterrupt
        return record(store, project, annotation, *about)

    monkeypatch.setattr(answers, "record", die_at_two)
    with pytest.raises(KeyboardInterrupt):
        drain()
    assert (in_ledger(store, project).keys(), webhooks.waiting(store)) == ({1}, 1)
    monkeypatch.setattr(answers, "record", record)
    drain()
    assert (in_ledger(store, project).keys(), webhooks.waiting(store)) == ({1, 2}, 0)


def test_a_crash_after_recording_records_nothing_twice(store, project, post, drain, monkeypatch):
    post(created(answer(1, task_of(store, "a", 1), "dog")))
    record = answers.record

    def die_after(*arguments):
        record(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(answers, "record", die_after)
    with pytest.raises(KeyboardInterrupt):
        drain()
    monkeypatch.setattr(answers, "record", record)
    assert drain() == {Outcome.KNOWN: 1}
    assert len(entries(store)) == 1


def test_two_that_drain_at_once_record_nothing_twice(store, project, post, label_studio):
    places = [(key, number) for key in "abc" for number in (1, 2)]
    for turn in range(5):
        for index, place in enumerate(places):
            post(created(answer(10 * turn + index + 1, task_of(store, *place), "dog", minute=turn)))
    together = Barrier(2)

    def drain(_):
        together.wait()
        return webhooks.drain(store, label_studio.client)

    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(drain, range(2)))
    assert sum(found[Outcome.RECORDED] for found in counts) == 30
    assert sorted(entry.annotation_id for entry in entries(store)) == sorted(
        10 * turn + index + 1 for turn in range(5) for index in range(6)
    )
    assert webhooks.waiting(store) == 0


# Keeping house.


def test_waiting_counts_each_project_for_itself(store, project, post, drain, dataset):
    with store.session() as session:
        other = Project(name="other", classes=CLASSES)
        session.add(other)
        session.flush()
        number = other.id
    post(created(answer(1, task_of(store, "a", 2), "dog")))
    receive(store, number, created(answer(2, 9999, "dog")))
    assert [webhooks.waiting(store, n) for n in (None, project, number)] == [2, 1, 1]
    drain()
    assert [webhooks.waiting(store, n) for n in (None, project, number)] == [1, 0, 1]


def test_only_events_read_in_long_ago_are_forgotten(store, project, post, drain):
    task = task_of(store, "a", 2)
    old, new, waiting = post(
        *(created(answer(n, t, "dog")) for n, t in ((1, task), (2, task), (3, 9999)))
    )
    drain()
    with store.session() as session:
        limit = utc_now() - timedelta(days=webhooks.KEEP_DAYS)
        session.get_one(Event, old).processed_at = limit - timedelta(hours=1)
        session.get_one(Event, new).processed_at = limit + timedelta(hours=1)
        session.get_one(Event, waiting).received_at = limit - timedelta(days=99)
    webhooks.forget_old(store)
    with store.reading() as session:
        assert list(session.scalars(select(Event.id).order_by(Event.id))) == [new, waiting]
    assert in_ledger(store, project).keys() == {1, 2}


def test_a_refused_event_is_not_kept(store, project, post):
    broken = created(answer(1, task_of(store, "a", 2), "dog"))
    del broken["annotation"]["created_at"]
    with pytest.raises(ValueError, match="created_at"):
        post(broken)
    assert webhooks.waiting(store) == 0


def test_draining_stops_when_asked_and_goes_on_later(store, project, post, drain, label_studio):
    post(created(answer(1, task_of(store, "a", 2), "cat")))
    assert not webhooks.drain(store, label_studio.client, lambda: True)
    assert webhooks.waiting(store) == 1
    drain()
    assert in_ledger(store, project) == {1: ("accept", CAT)}
