"""Asking again what annotators disagree about, as soon as they do."""

from __future__ import annotations

from operator import itemgetter

import pytest
from sqlalchemy import select

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio.annotation import parse
from alc_backend.labelstudio.query import epsilon_of
from alc_backend.loop.annotations import answers
from alc_backend.store.models import Project, Query, Round, Superpixel, utc_now
from tests.annotations import (
    answer,
    asked_project,
    judged,
    label_studio_of,
    query_of,
    round_config,
    task_of,
)
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds import running
from tests.pages import add_page, say_to_page


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset, overlap=2)


@pytest.fixture
def label_studio(store, project, monkeypatch):
    fake = label_studio_of(store)
    fake.serve(monkeypatch)
    return fake


def disputes(label_studio):
    """The tasks that put a question once more."""
    tasks = label_studio.tasks.values()
    return [task for task in tasks if task.data.get("alc", {}).get("adjudication")]


@pytest.fixture
def ask(store, label_studio):
    """Ask what is missing, as workers do once a round says so."""

    def ask():
        assert unasked(store)
        running.ask_missing(store, latest(store))
        assert not unasked(store)

    return ask


def latest(store):
    with store.reading() as session:
        return session.scalars(select(Round).order_by(Round.number.desc()).limit(1)).one()


def unasked(store):
    return latest(store).unasked


@pytest.fixture
def say(store, project):
    def say(number, choice, *, adjudicating=False, **changes):
        task = task_of(store, "a", 2)
        if adjudicating:
            task = query_of(store, "a", 2, adjudication=True).task_id
        with store.reading() as session:
            row = session.get_one(Project, project)
        given = parse(answer(number, task, choice, **changes))
        answers.record(store, row, given, {"overlap": 1 if adjudicating else 2})

    return say


def test_a_dispute_is_asked_again_first_with_what_was_said(store, project, label_studio, say, ask):
    say(1, "dog", by=1)
    assert not unasked(store)
    say(2, "background", by=2, minute=1)
    ask()
    (made,) = disputes(label_studio)
    assert made.overlap == 1
    assert [c["value"] for c in made.data["choices"]] == ["dog", "background", "cat"]
    first = min(made.predictions, key=itemgetter("score"))
    assert (first["score"], first["model_version"]) == (0.0, "alc-round-1")


@BOTH_DATABASES
def test_a_dispute_is_asked_again_once(store, project, label_studio, say, ask):
    say(1, "dog", by=1)
    say(2, "cat", by=2, minute=1)
    ask()
    running.ask_missing(store, latest(store))  # as after a crash
    (made,) = disputes(label_studio)
    assert [prediction["score"] for prediction in made.predictions] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("path", "method"), [("/api/predictions", "POST"), ("/api/tasks/", "PATCH")]
)
def test_one_that_was_interrupted_is_served(store, project, label_studio, say, ask, path, method):
    say(1, "dog", by=1)
    say(2, "cat", by=2, minute=1)
    label_studio.fail(400, path, method=method)
    with pytest.raises(LabelStudioError):
        running.ask_missing(store, latest(store))
    assert all(made.is_labeled for made in disputes(label_studio))
    label_studio.recover()
    ask()
    (made,) = disputes(label_studio)
    assert not made.is_labeled
    assert min(prediction["score"] for prediction in made.predictions) == 0.0
    assert not unasked(store)


def test_the_answer_to_it_settles(store, project, label_studio, say, ask):
    say(1, "dog", by=1)
    say(2, "cat", by=2, minute=1)
    ask()
    say(3, "dog", by=3, minute=2, adjudicating=True)
    assert len(judged(store, project).resolved) == 1
    assert not unasked(store)


def test_a_third_view_is_shown_in_the_question(store, project, label_studio, say, ask):
    say(1, "dog", by=1)
    say(2, "cat", by=2, minute=1)
    ask()
    say(3, "background", by=3, minute=2)
    ask()
    (made,) = disputes(label_studio)
    assert "background" in made.data["question"]


def test_a_dispute_that_comes_back_is_served_again(store, project, label_studio, say, ask):
    say(1, "dog", by=1)
    say(2, "cat", by=2, minute=1)
    ask()
    say(2, "dog", by=2, minute=1, revised=5)  # agreed after all: the next round closes the task
    (made,) = disputes(label_studio)
    made.is_labeled = True
    asked = query_of(store, "a", 2, adjudication=True)
    with store.session() as session:
        session.scalars(select(Round)).one().state = "closed"
        session.add(
            Round(
                project_id=project,
                number=2,
                state="open",
                config=round_config(),
                opened_at=utc_now(),
            )
        )
        session.get_one(Query, asked.id).closed_at = utc_now()
    say(2, "cat", by=2, minute=1, revised=9)  # and not agreed again
    ask()
    assert not made.is_labeled
    assert query_of(store, "a", 2, adjudication=True).closed_at is None


def test_a_question_asked_again_is_that_of_the_round_that_chose_its_star(
    store, project, label_studio, say, ask
):
    """What its answer reaches was found by that round; the queue is the later one's."""
    say(1, "dog", by=1)
    again = query_of(store, "a", 2).id
    with store.session() as session:
        before = session.scalars(select(Round)).one()
        before.state, before.config = "closed", round_config(epsilon=0.25)
        opened = Round(
            project_id=project, number=2, state="open", config=round_config(), opened_at=utc_now()
        )
        session.add(opened)
        session.flush()
        for query in session.scalars(select(Query)):
            if query.id != again:
                query.round_id = opened.id
    answers.withdraw(store, project, [1])
    ask()
    asked = query_of(store, "a", 2)
    (made,) = label_studio.tasks[asked.task_id].predictions
    assert made["model_version"] == "alc-round-2"
    assert all(region["id"].startswith("r1-") for region in made["result"])
    assert epsilon_of(made["result"]) == 0.25
    with store.reading() as session:
        assert session.get_one(Round, asked.round_id).number == 2


def test_a_withdrawn_settlement_is_asked_again(store, project, label_studio, say, ask):
    say(1, "dog", by=1)
    say(2, "cat", by=2, minute=1)
    ask()
    say(3, "dog", by=3, minute=2, adjudicating=True)
    answers.withdraw(store, project, [3])
    ask()
    assert len(judged(store, project).disputed) == 1
    assert len(disputes(label_studio)) == 1


def first_in_queue(label_studio):
    return {task.id for task in label_studio.tasks.values() if task.predictions}


@BOTH_DATABASES
def test_what_was_undone_is_asked_again_but_not_a_batch_that_is_not_published(
    store, project, label_studio, say, ask
):
    say(1, "dog", by=1)
    others = [query_of(store, *place) for place in (("b", 2), ("c", 1), ("c", 2))]
    with store.session() as session:
        before = session.scalars(select(Round)).one()
        failed = Round(project_id=project, number=2, state="failed", config=before.config)
        session.add(failed)
        session.flush()
        for other in others:  # its batch was chosen when it failed
            query = session.get_one(Query, other.id)
            query.round_id, query.rank = failed.id, 5
    answers.withdraw(store, project, [1])
    with store.reading() as session:
        opened = session.scalars(select(Round).where(Round.number == 1)).one()
    running.ask_missing(store, opened)
    chosen = {task_of(store, *place) for place in (("b", 2), ("c", 1), ("c", 2))}
    assert not first_in_queue(label_studio) & chosen


@BOTH_DATABASES
def test_a_dispute_on_pages_alone_is_asked_again(store, project, label_studio):
    """Nobody was asked singly: the question is about the pixel of the tile, with its outline."""
    superpixel = query_of(store, "a", 2).superpixel_id
    with store.session() as session:
        session.query(Query).filter_by(superpixel_id=superpixel).delete()
        session.get_one(Superpixel, superpixel).shape = None
        session.scalars(select(Round)).one().unasked = True
    for by, proposed in enumerate((1, 2), start=1):  # a cat; a dog
        page = add_page(
            store, project, [("a", 2)], proposed=proposed, key=f"{by}" * 32, task_id=800 + by
        )
        say_to_page(store, page, by, {1}, by=str(by), minute=by)
    running.ask_missing(store, latest(store))
    assert not unasked(store)
    (made,) = disputes(label_studio)
    assert [c["value"] for c in made.data["choices"]][:2] == ["cat", "dog"]
    asked = query_of(store, "a", 2, adjudication=True)
    assert (asked.row, asked.col, asked.question_round) == (11, 12, 1)
    with store.reading() as session:
        assert session.get_one(Superpixel, superpixel).shape["outlines"]
