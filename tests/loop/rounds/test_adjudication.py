"""Asking again what annotators disagree about, as soon as they do."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from alc_backend.labelstudio.annotation import parse
from alc_backend.loop.annotations import answers
from alc_backend.loop.rounds import adjudication
from alc_backend.store.models import Project, Query, Round, utc_now
from tests.annotations import answer, asked_project, judged, query_of, round_config, task_of


class FakeLabelStudio:
    """Tasks and predictions, as far as asking again touches them."""

    def __init__(self) -> None:
        self.first = {101 + number: {"is_labeled": False} for number in range(6)}
        self.there = {}
        self.predictions = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def get(self, path, **parameters):
        if path == "/api/projects/12":
            return {"task_number": len(self.first) + len(self.there)}
        assert path == "/api/predictions/"
        return [item for item in self.predictions if item["task"] == parameters["task"]]

    def post(self, path, body):
        if path == "/api/predictions/":
            self.predictions.append(body)
            return body
        assert path == "/api/tasks/"
        task = 900 + len(self.there)
        self.there[task] = {"is_labeled": False, **body}
        return {"id": task}

    def patch(self, path, body):
        task = int(path.split("/")[3])
        (self.there if task in self.there else self.first)[task].update(body)


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset, overlap=2)


@pytest.fixture
def label_studio(monkeypatch):
    fake = FakeLabelStudio()
    monkeypatch.setattr(adjudication.Client, "from_settings", lambda settings: fake)
    return fake


@pytest.fixture
def ask(store, label_studio):
    """Ask what is missing, as workers do once a round says so."""

    def ask():
        assert unasked(store)
        adjudication.ask(store, latest(store))
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


def of_disputes(label_studio):
    return [item for item in label_studio.predictions if item["task"] in label_studio.there]


def test_a_dispute_is_asked_again_first_with_what_was_said(store, project, label_studio, say, ask):
    say(1, "dog", by=1)
    assert not unasked(store)
    say(2, "background", by=2, minute=1)
    ask()
    ((task, made),) = label_studio.there.items()
    assert made["overlap"] == 1
    assert [c["value"] for c in made["data"]["choices"]] == ["dog", "background", "cat"]
    (prediction,) = of_disputes(label_studio)
    assert (prediction["task"], prediction["score"]) == (task, 0.0)
    assert prediction["model_version"] == "alc-round-1"


def test_a_dispute_is_asked_again_once(store, project, label_studio, say, ask):
    say(1, "dog", by=1)
    say(2, "cat", by=2, minute=1)
    ask()
    adjudication.ask(store, latest(store))  # as after a crash
    assert len(label_studio.there) == len(of_disputes(label_studio)) == 1


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
    (made,) = label_studio.there.values()
    assert "background" in made["data"]["question"]


def test_a_dispute_that_comes_back_is_served_again(store, project, label_studio, say, ask):
    say(1, "dog", by=1)
    say(2, "cat", by=2, minute=1)
    ask()
    say(2, "dog", by=2, minute=1, revised=5)  # agreed after all: the next round closes the task
    (task,) = label_studio.there
    label_studio.patch(f"/api/tasks/{task}/", {"is_labeled": True})
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
        session.get_one(Query, query_of(store, "a", 2, adjudication=True).id).closed_at = utc_now()
    say(2, "cat", by=2, minute=1, revised=9)  # and not agreed again
    ask()
    assert not label_studio.there[task]["is_labeled"]
    assert query_of(store, "a", 2, adjudication=True).closed_at is None


def test_a_withdrawn_settlement_is_asked_again(store, project, label_studio, say, ask):
    say(1, "dog", by=1)
    say(2, "cat", by=2, minute=1)
    ask()
    say(3, "dog", by=3, minute=2, adjudicating=True)
    answers.withdraw(store, project, [3])
    ask()
    assert len(judged(store, project).disputed) == 1
    assert len(label_studio.there) == 1


def first_in_queue(label_studio):
    return {item["task"] for item in label_studio.predictions}


def test_what_was_undone_is_asked_again_but_not_a_batch_that_is_not_published(
    store, project, label_studio, say, ask
):
    say(1, "dog", by=1)
    with store.session() as session:
        before = session.scalars(select(Round)).one()
        failed = Round(project_id=project, number=2, state="failed", config=before.config)
        session.add(failed)
        session.flush()
        for place in (("b", 2), ("c", 1), ("c", 2)):  # its batch was chosen when it failed
            query = session.get_one(Query, query_of(store, *place).id)
            query.round_id, query.rank = failed.id, 5
    answers.withdraw(store, project, [1])
    with store.reading() as session:
        opened = session.scalars(select(Round).where(Round.number == 1)).one()
    adjudication.ask(store, opened)
    chosen = {task_of(store, *place) for place in (("b", 2), ("c", 1), ("c", 2))}
    assert not first_in_queue(label_studio) & chosen
