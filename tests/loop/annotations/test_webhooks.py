"""What webhooks report, in whatever order, as often and as late as it comes."""

from __future__ import annotations

import json
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
from alc_backend.errors import SettingsError
from alc_backend.labelstudio.client import TRIES
from alc_backend.loop.annotations import answers, webhooks
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store import ledger, upkeep
from alc_backend.store.derived import ImageState, Standing, Tally
from alc_backend.store.incoming import Event
from alc_backend.store.models import LedgerEntry, Project, Query, utc_now
from tests.annotations import (
    CAT,
    DATASET_PROJECT,
    DOG,
    NOON,
    QUERY_PROJECT,
    annotation,
    answer,
    arrive,
    created,
    deleted,
    entries,
    happen,
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


@pytest.fixture
def post(store, project, label_studio):
    """Let something happen in Label Studio, whose webhooks arrive."""

    def post(*payloads):
        happen(label_studio, *payloads)
        return [receive(store, project, body) for body in payloads]

    return post


@pytest.fixture
def hint(store, project):
    """Let webhooks arrive, whatever is so in Label Studio."""
    return lambda *payloads: [receive(store, project, body) for body in payloads]


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


def emptied(store):
    with store.session() as session:
        for table in (Standing, Tally, ImageState, LedgerEntry, Event):
            session.execute(delete(table))
    return label_studio_of(store)


def ledger_now(store, project):
    assert webhooks.waiting(store) == 0
    maps = np.stack([label_map(store, project, key) for key in ("a", "b")])
    return in_ledger(store, project), maps


@BOTH_DATABASES
@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(overlap=st.sampled_from([1, 2]), history=histories(), data=st.data())
def test_any_order_repetition_and_loss_of_webhooks_gives_the_same_ledger(
    store, project, overlap, history, data
):
    """Whenever they are read in: between what happens, and after it."""
    with store.session() as session:
        upkeep.set_overlap(session, project, overlap)
    tasks = {place: task_of(store, *place) for place in PLACES}
    events, last = told(history, tasks)
    label_studio = emptied(store)
    for body in events:
        arrive(store, project, body, label_studio=label_studio)
    expected, maps = ledger_now(store, project)
    assert expected == {
        index + 1: said(choices[-1])
        for index, (_, _, choices, gone) in enumerate(history)
        if not gone
    }
    label_studio = emptied(store)
    under_way = []
    for body, needed in zip(events, last, strict=True):
        happen(label_studio, body)
        under_way += [body] * data.draw(st.integers(1 if needed else 0, 2))
        if data.draw(st.booleans()):
            under_way = data.draw(st.permutations(under_way))
            for _ in range(data.draw(st.integers(0, len(under_way)))):
                receive(store, project, under_way.pop())
            webhooks.drain(store, label_studio.client)
    for body in data.draw(st.permutations(under_way)):
        receive(store, project, body)
    webhooks.drain(store, label_studio.client)
    found, found_maps = ledger_now(store, project)
    assert found == expected
    assert np.array_equal(found_maps, maps)


# What a webhook says is not believed.


def test_an_answer_is_what_label_studio_has(store, project, label_studio, hint, drain):
    task = task_of(store, "a", 2)
    label_studio.annotate(answer(1, task, "dog", by=7))
    forged = answer(1, task, "background", by=8, revised=30)
    hint(created(forged), created(forged, action="ANNOTATION_UPDATED"))
    assert drain() == {Outcome.RECORDED: 1, Outcome.KNOWN: 1}
    (entry,) = entries(store)
    assert (entry.annotator, entry.class_id, entry.lead_time) == ("7", DOG, 2.5)
    assert entry.updated_at == NOON


def test_what_label_studio_does_not_have_ends_with_that_reason(store, project, hint, drain):
    hint(
        created(answer(1, task_of(store, "a", 2), "dog", by=8)),  # no such annotation
        created(answer(2, 9999, "dog", by=8)),  # no such task
        created(annotation(3, image_of(store, "a").dataset_task, []), project=DATASET_PROJECT),
    )
    assert drain() == {Outcome.ABSENT: 3}
    assert outcomes(store) == ["1 not in Label Studio"] * 3
    assert (entries(store), webhooks.waiting(store)) == ([], 0)


def test_nothing_is_withdrawn_that_label_studio_still_has(
    store, project, label_studio, post, hint, drain
):
    task, image = task_of(store, "a", 2), image_of(store, "a").dataset_task
    painted = annotation(2, image, [region("dog", slice(0, 4), slice(0, 4))])
    post(created(answer(1, task, "dog")), created(painted, project=DATASET_PROJECT))
    drain()
    before = in_ledger(store, project)
    assert before.keys() == {1, 2}
    hint(
        deleted(1),
        tasks_deleted(task),
        deleted(2, project=DATASET_PROJECT),
        tasks_deleted(image, project=DATASET_PROJECT),
        created(answer(1, 9999, "cat")),  # as if it had moved to another task
    )
    assert drain() == {Outcome.PRESENT: 5}
    assert outcomes(store)[2:] == ["1 still in Label Studio"] * 5
    assert in_ledger(store, project) == before


def test_a_deletion_told_in_advance_keeps_no_answer_out(store, project, post, hint, drain):
    hint(deleted(1), tasks_deleted(task_of(store, "a", 2)))
    drain()
    post(created(answer(1, task_of(store, "a", 2), "dog")))
    drain()
    assert in_ledger(store, project) == {1: ("correct", DOG)}


def test_nothing_but_names_is_kept(store, project, hint):
    task = task_of(store, "a", 2)
    body = created(answer(1, task, "dog"), {"secret": "of somebody"})
    body["project"]["title"] = "of somebody"
    hint(body, deleted(2, 3), tasks_deleted(4))
    with store.reading() as session:
        kept = list(session.scalars(select(Event.payload).order_by(Event.id)))
    assert kept == [
        {"annotations": [[1, task]], "tasks": []},
        {"annotations": [[2, None], [3, None]], "tasks": []},
        {"annotations": [], "tasks": [4]},
    ]


@BOTH_DATABASES
@pytest.mark.parametrize(
    "body",
    [
        created(answer(1, 2**31, "dog")),
        created(answer(2**63, 1, "dog")),
        created(answer(1, 1, "dog"), project=2**31),
        tasks_deleted(2**31),
        deleted(0),
    ],
)
def test_ids_that_no_database_holds_are_refused(store, project, hint, body):
    """Asked for them, Label Studio would fail, and with it what is asked for beside them."""
    with pytest.raises(ValueError, match=r"there can be no|must be a positive integer"):
        hint(body)
    assert webhooks.waiting(store) == 0


# How Label Studio is asked.


def test_many_events_are_few_requests(store, project, label_studio, post):
    post(*(created(answer(n, 5000 + n, "dog")) for n in range(1, 101)))
    client = label_studio.client()
    webhooks.drain(store, lambda: client)
    paths = [request.path for request in label_studio.requests]
    assert paths == ["/api/token/refresh/", "/api/tasks/", "/api/tasks/"]
    assert webhooks.waiting(store) == 100  # tasks that the store does not know


def test_a_large_event_is_read_in_parts(store, project, label_studio, drain, hint):
    task = task_of(store, "a", 2)
    numbers = range(1, 3 * webhooks.AT_ONCE)
    for number in numbers:
        label_studio.annotate(answer(number, task if number == 120 else 5000 + number, "dog"))
    records = [label_studio.annotation(number) for number in numbers]
    body = {
        "action": "ANNOTATIONS_CREATED",
        "project": {"id": QUERY_PROJECT},
        "annotation": records,
        "task": [{"id": record["task"]} for record in records],
    }
    hint(body)
    drain()
    assert in_ledger(store, project) == {120: ("correct", DOG)}
    asked = [json.loads(r.parameters["query"]) for r in label_studio.asked("/api/tasks/")]
    sizes = [len(query["filters"]["items"][0]["value"]) for query in asked]
    assert max(sizes) <= webhooks.AT_ONCE


def test_both_projects_are_asked_for_their_own_tasks(store, project, label_studio, post, drain):
    images = [image_of(store, key).dataset_task for key in "abc"]
    painted = [region("dog", slice(0, 4), slice(0, 4))]
    for number, image in enumerate(images):
        post(
            created(annotation(10 + number, image, painted), project=DATASET_PROJECT),
            created(answer(20 + number, task_of(store, "abc"[number], 2), "dog")),
        )
    assert drain() == {Outcome.RECORDED: 6}
    asked = [request.parameters["project"] for request in label_studio.asked("/api/tasks/")]
    assert sorted(asked) == [str(DATASET_PROJECT), str(QUERY_PROJECT)]


def test_a_task_that_label_studio_fails_at_holds_up_no_other(
    store, project, label_studio, post, drain
):
    bad, good = task_of(store, "a", 1), task_of(store, "a", 2)
    post(created(answer(1, bad, "cat")), created(answer(2, good, "dog")))
    label_studio.fail_at(bad)
    drain()
    assert in_ledger(store, project) == {2: ("correct", DOG)}
    assert webhooks.waiting(store) == 1
    assert "500" in outcomes(store)[0]


@pytest.mark.parametrize("status", [None, 401, 429, 503])
def test_all_events_wait_while_label_studio_is_away(
    store, project, label_studio, post, drain, status
):
    post(*(created(answer(n, task_of(store, "a", 2), "dog", by=n)) for n in (1, 2, 3)))
    label_studio.fail(status)
    for _ in range(webhooks.MAX_TRIES + 2):
        assert not drain()
        hurry(store)
    asked = len(label_studio.asked("/api/tasks/"))
    drain()
    assert len(label_studio.asked("/api/tasks/")) - asked <= TRIES  # not for each event
    assert webhooks.waiting(store) == 3
    label_studio.recover()
    hurry(store)
    drain()
    assert in_ledger(store, project).keys() == {1, 2, 3}


def test_without_a_token_events_wait_for_one(store, project, label_studio, post, drain):
    def no_token():
        raise SettingsError("LABEL_STUDIO_API_KEY is not set")

    post(created(answer(1, task_of(store, "a", 2), "dog")))
    for _ in range(webhooks.MAX_TRIES + 2):
        assert not webhooks.drain(store, no_token)
        hurry(store)
    assert outcomes(store) == ["to be tried again: LABEL_STUDIO_API_KEY is not set"]
    drain()
    assert in_ledger(store, project) == {1: ("correct", DOG)}


def test_an_answer_restored_before_news_of_its_change_arrives_stays_restored(
    store, project, post, drain
):
    task = task_of(store, "a", 2)
    post(
        created(answer(1, task, "dog")),
        created(answer(1, task, "cat", revised=1)),
        created(answer(1, task, "dog", revised=2)),
    )
    drain()
    assert in_ledger(store, project) == {1: ("correct", DOG)}


def test_a_deletion_may_come_before_the_answer(store, project, hint, drain):
    task = task_of(store, "a", 2)
    hint(deleted(1), created(answer(1, task, "dog")))
    drain()
    assert entries(store) == []
    hint(created(answer(1, task, "dog", revised=3)))
    drain()
    assert in_ledger(store, project) == {}


def test_deleted_tasks_take_their_answers_along(store, project, post, drain):
    tasks = [task_of(store, "a", 1), task_of(store, "a", 2), task_of(store, "b", 2)]
    post(*(created(answer(n, task, "dog", by=n)) for n, task in enumerate(tasks, start=1)))
    post(created(answer(4, tasks[0], "cat", by=9)))
    drain()
    post(tasks_deleted(tasks[0], tasks[2], 9999))
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
    with store.reading() as session:  # the answer is kept, though its image is out of the dataset
        (kept,) = ledger.standing(session, project, removed=True)
    assert (kept.annotation_id, kept.class_id) == (2, DOG)


# Events that cannot be read in at once.


def forget_task(store, key, number):
    """As if the process died between making a task and noting its number."""
    asked = query_of(store, key, number)
    with store.session() as session:
        session.get_one(Query, asked.id).task_id = None


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
    asked = query_of(store, "a", 2)
    with store.session() as session:
        session.get_one(Query, asked.id).task_id = 9999
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
    hurry(store)
    drain()
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


@BOTH_DATABASES
def test_events_survive_a_crash_while_they_are_read_in(store, project, post, drain, monkeypatch):
    post(
        created(answer(1, task_of(store, "a", 1), "dog")),
        created(answer(2, task_of(store, "a", 2), "dog")),
    )
    record = answers.record

    def die_at_two(store, project, annotation, *about, **options):
        if annotation.annotation_id == 2:
            raise KeyboardInterrupt
        return record(store, project, annotation, *about, **options)

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

    def die_after(*arguments, **options):
        record(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(answers, "record", die_after)
    with pytest.raises(KeyboardInterrupt):
        drain()
    monkeypatch.setattr(answers, "record", record)
    assert drain() == {Outcome.KNOWN: 1}
    assert len(entries(store)) == 1


@BOTH_DATABASES
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


@BOTH_DATABASES
def test_waiting_counts_each_project_for_itself(store, project, post, drain, label_studio):
    with store.session() as session:
        other = Project(name="other", classes=CLASSES)
        session.add(other)
        session.flush()
        number = other.id
    post(created(answer(1, task_of(store, "a", 2), "dog")))
    unknown = created(answer(2, 9999, "dog"))
    happen(label_studio, unknown)
    receive(store, number, unknown)
    assert [webhooks.waiting(store, n) for n in (None, project, number)] == [2, 1, 1]
    drain()
    assert [webhooks.waiting(store, n) for n in (None, project, number)] == [1, 0, 1]


@BOTH_DATABASES
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
    del broken["annotation"]["id"]
    with pytest.raises(ValueError, match="'id' must be"):
        receive(store, project, broken)
    assert webhooks.waiting(store) == 0


def test_draining_stops_when_asked_and_goes_on_later(store, project, post, drain, label_studio):
    post(created(answer(1, task_of(store, "a", 2), "cat")))
    assert not webhooks.drain(store, label_studio.client, lambda: True)
    assert webhooks.waiting(store) == 1
    drain()
    assert in_ledger(store, project) == {1: ("accept", CAT)}


# One of many that a webhook names.


def many(*records, action="ANNOTATIONS_CREATED"):
    """The webhook about several annotations."""
    return {
        "action": action,
        "project": {"id": QUERY_PROJECT},
        "annotations": list(records),
        "task": [{"id": record["task"]} for record in records],
    }


def test_one_unreadable_annotation_keeps_no_other_of_its_event_out(
    store, project, label_studio, hint, drain
):
    records = [answer(number, task_of(store, key, 2), "dog") for number, key in enumerate("abc", 1)]
    records[1]["created_at"] = "yesterday"
    for record in records:
        label_studio.annotate(record)
    hint(many(*records))
    drain()
    assert in_ledger(store, project).keys() == {1, 3}
    with store.reading() as session:
        event = session.scalars(select(Event)).one()
    assert event.processed_at
    assert event.outcome


@pytest.mark.parametrize("fails", ["at the task", "at the question whether it exists"])
def test_one_annotation_that_label_studio_does_not_give_is_tried_again_and_keeps_no_other_out(
    store, project, label_studio, hint, drain, fails
):
    records = [answer(number, task_of(store, key, 2), "dog") for number, key in enumerate("abc", 1)]
    for record in records:
        label_studio.annotate(record)
    if fails == "at the task":
        label_studio.fail_at(records[0]["task"])
    else:
        hint(many(records[0]))
        drain()
        label_studio.remove_annotation(1)
        label_studio.fail(403, "/api/annotations/1/")
    hint(many(*records))
    drain()
    assert {2, 3} <= in_ledger(store, project).keys()
    assert webhooks.waiting(store) == 1
    label_studio.recover()
    hurry(store)
    drain()
    assert webhooks.waiting(store) == 0
    assert in_ledger(store, project).keys() == ({1, 2, 3} if fails == "at the task" else {2, 3})


def test_one_deleted_task_whose_answer_cannot_be_looked_up_keeps_no_other(
    store, project, label_studio, hint, drain
):
    records = [answer(number, task_of(store, key, 2), "dog") for number, key in enumerate("abc", 1)]
    for record in records:
        label_studio.annotate(record)
    hint(many(*records))
    drain()
    for record in records[:2]:
        del label_studio.tasks[record["task"]]
    label_studio.fail(403, "/api/annotations/1/")
    hint(tasks_deleted(*[record["task"] for record in records[:2]]))
    drain()
    assert in_ledger(store, project).keys() == {1, 3}
