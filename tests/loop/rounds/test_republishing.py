"""Label Studio restored from an older dump gets the open round's queue again, by itself."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import select

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio.query import NOT_OURS, asked_about
from alc_backend.loop.annotations import reconciliation
from alc_backend.loop.rounds import executor
from alc_backend.store.models import Part, Query, Round
from tests.annotations import QUERY_PROJECT, answer, task_of
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds import running

VERSION = "alc-round-2"


@pytest.fixture
def project(store, dataset):
    return running.second_round(store, dataset)


@pytest.fixture
def label_studio(store, project, monkeypatch):
    """A Label Studio that lacks one task of the second round's, and all its predictions."""
    number = task_of(store, "a", 2)
    with store.session() as session:
        query = session.scalars(select(Query).where(Query.task_id == number)).one()
        query.task_id = None
    fake = running.label_studio_before_it(store)
    fake.serve(monkeypatch)
    return fake


@pytest.fixture
def look(store, project, label_studio):
    return lambda **how: reconciliation.reconcile(store, label_studio.client(), project, **how)


@pytest.fixture
def dump(store, label_studio, look):
    """A dump from before the second round, which is open by now."""
    look()
    made = label_studio.dump()
    publish(store)
    look()
    return made


def publish(store):
    with store.reading() as session:
        round_ = session.scalars(select(Round).where(Round.number == 2)).one()
    part = running.at_step(store, round_, "publishing").claimed
    with store.session() as session:
        session.get_one(Part, part.id).claimed_by = None
    executor.run_part(store, [].append, part.id)
    do_chores(store)


def do_chores(store):
    """As workers do."""
    queue: list[Part] = []
    executor.recover(store, queue.append)
    running.work(store, queue)


def queue_of(label_studio):
    """The tasks that are served with marks of the second round, best first, as keys."""
    served = [
        (prediction["score"], asked_about(task.data))
        for task in label_studio.tasks_of(QUERY_PROJECT)
        for prediction in task.predictions
        if prediction["model_version"] == VERSION and not task.is_labeled
    ]
    return [key for _, key in sorted(served)]


def unmarked(label_studio):
    """What is served without marks of the second round."""
    return [
        asked_about(task.data)
        for task in label_studio.tasks_of(QUERY_PROJECT)
        if not task.is_labeled and VERSION not in [p["model_version"] for p in task.predictions]
    ]


@BOTH_DATABASES
@pytest.mark.parametrize("busy", [True, False])
def test_the_queue_of_the_open_round_comes_back(store, label_studio, look, dump, busy):
    expected = queue_of(label_studio)
    assert len(expected) == 3
    label_studio.restore(dump)
    assert queue_of(label_studio) == []
    if busy:
        label_studio.annotate(answer(1, task_of(store, "b", 1), "dog", minute=600))
    look()
    do_chores(store)
    assert label_studio.projects[QUERY_PROJECT]["model_version"] == VERSION
    assert queue_of(label_studio) == expected
    assert unmarked(label_studio) == []
    keys = Counter(asked_about(task.data) for task in label_studio.tasks_of(QUERY_PROJECT))
    assert set(keys.values()) == {1}
    assert NOT_OURS not in keys
    do_chores(store)
    assert not round_row(store).displaced


def test_an_attempt_that_ended_before_the_order_is_repeated(store, label_studio, look, dump):
    """Its tasks have predictions already, by which they are served last."""
    expected = queue_of(label_studio)
    for task in label_studio.tasks_of(QUERY_PROJECT):
        if asked_about(task.data) in expected[:2]:
            del label_studio.tasks[task.id]
    look()
    with store.session() as session:
        latest = session.scalars(select(Round).where(Round.number == 2)).one()
        latest.displaced = latest.unasked = True
    label_studio.fail(500, f"/api/projects/{QUERY_PROJECT}/import/predictions")
    with pytest.raises(LabelStudioError):
        running.ask_missing(store, round_row(store))
    assert queue_of(label_studio) != expected
    label_studio.recover()
    running.ask_missing(store, round_row(store))
    order = list(dict.fromkeys(queue_of(label_studio)))  # by the better score of each
    assert order == expected
    assert not round_row(store).displaced


def round_row(store):
    with store.reading() as session:
        return session.scalars(select(Round).where(Round.number == 2)).one()


def test_what_is_on_a_screen_stays(store, label_studio, look, dump):
    """The dump is from after the switch: what Label Studio has of the queue is kept."""
    publish_dump = label_studio.dump()
    answered = task_of(store, "b", 2)
    label_studio.annotate(answer(1, answered, "dog", minute=600))
    look()
    label_studio.restore(publish_dump)
    kept = predictions(label_studio)
    look()
    assert round_row(store).displaced
    label_studio.requests.clear()
    do_chores(store)
    assert predictions(label_studio) == kept
    assert not label_studio.asked(f"/api/projects/{QUERY_PROJECT}/model-versions/", "DELETE")
    assert not label_studio.asked(f"/api/projects/{QUERY_PROJECT}", "PATCH")


def predictions(label_studio):
    return {p["id"] for task in label_studio.tasks_of(QUERY_PROJECT) for p in task.predictions}


def test_what_label_studio_lost_is_asked_last_with_marks(store, label_studio, look):
    """Its answer stays in force until another one replaces it."""
    look()
    before = label_studio.dump()
    task = task_of(store, "b", 1)
    label_studio.annotate(answer(1, task, "dog", minute=0))
    look()
    publish(store)
    assert asked_about(label_studio.tasks[task].data) not in queue_of(label_studio)
    label_studio.restore(before)
    look()
    do_chores(store)
    assert unmarked(label_studio) == []
    assert queue_of(label_studio)[-1] == asked_about(label_studio.tasks[task].data)
    label_studio.annotate(answer(2, task, "cat", minute=700))
    look()
    assert asked_about(label_studio.tasks[task].data) not in queue_of(label_studio)


def test_an_old_question_is_replaced_by_the_present_one(store, label_studio, look, dump):
    """The dump's tasks show what the first round asked."""
    expected = {task.id: task.data for task in label_studio.tasks_of(QUERY_PROJECT)}
    asked = {task_of(store, key, 2) for key in "bc"}
    label_studio.restore(dump)
    look()
    do_chores(store)
    for task in asked:
        assert label_studio.tasks[task].data == expected[task]


def test_the_queue_comes_back_though_many_answers_went_with_their_tasks(
    store, label_studio, look, dump, monkeypatch
):
    """They are not withdrawn unasked, and nobody waits for that."""
    expected = queue_of(label_studio)
    monkeypatch.setattr(reconciliation, "MANY_GONE", 0)
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog", minute=600))
    look()
    label_studio.restore(dump)
    with pytest.raises(LabelStudioError, match="nothing was withdrawn"):
        look()
    do_chores(store)
    assert queue_of(label_studio) == expected


def test_a_version_that_somebody_chose_stays(store, label_studio, look, dump):
    label_studio.predict(task_of(store, "b", 1), [], model_version="by hand")
    label_studio.projects[QUERY_PROJECT]["model_version"] = "by hand"
    look()
    do_chores(store)
    assert label_studio.projects[QUERY_PROJECT]["model_version"] == "by hand"


def test_a_store_from_an_older_backup_leaves_the_later_queue_alone(store, label_studio, look, dump):
    label_studio.predict(task_of(store, "b", 1), [], model_version="alc-round-3")
    label_studio.projects[QUERY_PROJECT]["model_version"] = "alc-round-3"
    look()
    assert not round_row(store).displaced


def test_a_round_that_is_published_meanwhile_needs_no_other(store, label_studio, look, dump):
    with store.session() as session:
        session.scalars(select(Round).where(Round.number == 2)).one().state = "publishing"
    label_studio.restore(dump)
    look()
    assert not round_row(store).displaced


def test_bringing_the_queue_back_is_tried_again_after_a_failure(store, label_studio, look, dump):
    expected = queue_of(label_studio)
    label_studio.restore(dump)
    look()
    label_studio.fail(500, f"/api/projects/{QUERY_PROJECT}/import/predictions")
    do_chores(store)
    assert round_row(store).displaced
    label_studio.recover()
    with store.session() as session:
        for part in session.scalars(select(Part)):
            part.retry_at = None
    do_chores(store)
    assert queue_of(label_studio) == expected
    assert not round_row(store).displaced
