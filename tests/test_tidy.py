"""Clearing away what older rounds left, without taking anything off a labeler's screen."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy import select

from alc_backend import answers, tidy
from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio.annotation import parse
from alc_backend.store.models import Project, Query, Round, Score, utc_now
from tests.annotations import QUERY_PROJECT, answer, asked_project, query_of, task_of

HOUR = timedelta(hours=1)


class FakeLabelStudio:
    """A query project with its tasks, as far as clearing away touches it."""

    def __init__(self, tasks) -> None:
        self.there = {
            task: {"id": task, "is_labeled": False, "annotations": [], "drafts": []}
            for task in tasks
        }
        self.versions = {"alc-round-1", "alc-round-2"}
        self.changes = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def closed(self):
        return {task for task, row in self.there.items() if row["is_labeled"]}

    def get(self, path, **parameters):
        if path.endswith("model-versions/"):
            return dict.fromkeys(self.versions, 1)
        return self._shown(self._row(path))

    def tasks(self, project, **parameters):
        assert project == QUERY_PROJECT
        filters = json.loads(parameters.get("query", '{"filters": {"items": []}}'))["filters"]
        either = any if filters.get("conjunction") == "or" else all
        for row in self.there.values():
            if either(self._matches(row, item) for item in filters["items"]):
                yield self._shown(row)

    def patch(self, path, body):
        self.changes += 1
        self._row(path).update(body)

    def delete(self, path, body=None):
        self.changes += 1
        assert path == f"/api/projects/{QUERY_PROJECT}/model-versions/"
        self.versions.remove(body["model_version"])

    def request(self, method, path, *, params, json):
        self.changes += 1
        assert (method, path, params["id"]) == ("POST", "/api/dm/actions/", "delete_tasks")
        assert json["selectedItems"]["all"] is False
        assert json["selectedItems"]["included"]
        for task in json["selectedItems"]["included"]:
            self.there.pop(task, None)

    def _row(self, path):
        row = self.there.get(int(path.split("/")[3]))
        if row is None:
            raise LabelStudioError(f"{path}: it does not exist in Label Studio (deleted?)", 404)
        return row

    @staticmethod
    def _shown(row):
        return {**row, "total_annotations": len(row["annotations"]), "cancelled_annotations": 0}

    def _matches(self, row, item):
        shown = {**self._shown(row), "draft_exists": bool(row["drafts"])}
        value = shown[item["filter"].removeprefix("filter:tasks:")]
        return {
            "equal": lambda: value == item["value"],
            "greater": lambda: value > item["value"],
            "in_list": lambda: value in item["value"],
        }[item["operator"]]()


@pytest.fixture
def project(store, dataset):
    """Two rounds; the second one's queue has only the dogs, the cats have fallen out of it."""
    project_id = asked_project(store, dataset)
    with store.session() as session:
        first = session.scalars(select(Round)).one()
        first.state, first.opened_at = "closed", utc_now() - 48 * HOUR
        second = Round(
            project_id=project_id,
            number=2,
            state="open",
            config={"epsilon": 0.0},
            opened_at=utc_now() - HOUR,
        )
        session.add(second)
        session.flush()
        for key in "abc":
            session.get_one(Query, query_of(store, key, 2).id).round_id = second.id
    return project_id


CATS = [("a", 1), ("b", 1), ("c", 1)]


@pytest.fixture
def cats(store, project):
    return {task_of(store, *place) for place in CATS}


@pytest.fixture
def label_studio(store, project, monkeypatch):
    with store.reading() as session:
        fake = FakeLabelStudio(session.scalars(select(Query.task_id)).all())
    monkeypatch.setattr(tidy.Client, "from_settings", lambda settings: fake)
    return fake


def closed_since(store, age):
    """Let all tasks of the cats have been closed a while ago."""
    with store.session() as session:
        for place in CATS:
            session.get_one(Query, query_of(store, *place).id).closed_at = utc_now() - age


def reply(store, project, key, choice):
    with store.reading() as session:
        row = session.get_one(Project, project)
    given = parse(answer(1, task_of(store, key, 1), choice))
    assert answers.record(store, row, given, {}) == answers.RECORDED


def round_of(store, number):
    with store.reading() as session:
        return session.scalars(select(Round).where(Round.number == number)).one()


def test_what_left_the_queue_is_closed_not_deleted(store, project, label_studio, cats):
    everything = set(label_studio.there)
    assert tidy.due(store) == [project]
    tidy.tidy(store, project)
    assert label_studio.closed == cats
    assert set(label_studio.there) == everything
    assert query_of(store, "a", 1).closed_at is not None
    assert query_of(store, "a", 2).closed_at is None
    assert tidy.due(store) == []


def test_nothing_is_closed_twice(store, project, label_studio):
    tidy.tidy(store, project)
    label_studio.changes = 0
    tidy.tidy(store, project)
    assert label_studio.changes == 0


def test_what_was_closed_is_deleted_a_day_later(store, project, label_studio, cats):
    dogs = set(label_studio.there) - cats
    closed_since(store, tidy.HELD - HOUR)
    assert tidy.due(store) == []
    tidy.tidy(store, project)
    assert cats <= set(label_studio.there)
    closed_since(store, tidy.HELD + HOUR)
    assert tidy.due(store) == [project]
    tidy.tidy(store, project)
    assert set(label_studio.there) == dogs
    query = query_of(store, "a", 1)
    assert (query.task_id, query.published, query.closed_at) == (None, None, None)
    assert tidy.due(store) == []


@pytest.mark.parametrize("choice", ["dog", None], ids=["answered", "skipped"])
@pytest.mark.parametrize("after", ["before closing", "after closing"])
def test_what_was_answered_is_never_deleted(store, project, label_studio, cats, choice, after):
    kept = task_of(store, "a", 1)
    if after == "before closing":
        reply(store, project, "a", choice)
        tidy.tidy(store, project)
        assert label_studio.closed == cats - {kept}
    closed_since(store, tidy.HELD + HOUR)
    if after == "after closing":
        reply(store, project, "a", choice)
    tidy.tidy(store, project)
    assert set(label_studio.there) & cats == {kept}
    assert task_of(store, "a", 1) == kept


def test_what_was_withdrawn_again_is_not_deleted(store, project, label_studio, cats):
    kept = task_of(store, "a", 1)
    reply(store, project, "a", "dog")
    answers.withdraw(store, project, [1])
    closed_since(store, tidy.HELD + HOUR)
    tidy.tidy(store, project)
    assert set(label_studio.there) & cats == {kept}


def test_a_task_with_a_draft_is_not_deleted(store, project, label_studio, cats):
    kept = task_of(store, "b", 1)
    label_studio.there[kept]["drafts"] = [{"id": 1}]
    closed_since(store, tidy.HELD + HOUR)
    tidy.tidy(store, project)
    assert set(label_studio.there) & cats == {kept}
    label_studio.there[kept]["drafts"] = []
    tidy.tidy(store, project)
    assert not set(label_studio.there) & cats


def test_an_answer_whose_webhook_was_lost_is_not_deleted(store, project, label_studio, cats):
    kept = task_of(store, "b", 1)
    label_studio.there[kept]["annotations"] = [answer(1, kept, "dog")]
    closed_since(store, tidy.HELD + HOUR)
    tidy.tidy(store, project)
    assert set(label_studio.there) & cats == {kept}


def test_a_query_that_is_asked_again_stays(store, project, label_studio, cats):
    kept = task_of(store, "a", 1)
    with store.session() as session:
        session.get_one(Query, query_of(store, "a", 1).id).round_id = round_of(store, 2).id
    tidy.tidy(store, project)
    assert label_studio.closed == cats - {kept}


def test_a_task_deleted_by_hand_does_not_keep_the_others_open(store, project, label_studio, cats):
    gone = task_of(store, "a", 1)
    del label_studio.there[gone]
    tidy.tidy(store, project)
    assert label_studio.closed == cats - {gone}


def test_clearing_away_may_be_stopped_and_goes_on(store, project, label_studio, cats):
    allowed = iter([True, False])
    tidy.tidy(store, project, lambda: next(allowed))
    assert len(label_studio.closed) == 1
    assert tidy.due(store) == [project]
    tidy.tidy(store, project)
    assert label_studio.closed == cats


def test_while_another_round_is_on_its_way_nothing_is_cleared_away(store, project, label_studio):
    with store.session() as session:
        session.add(Round(project_id=project, number=3, state="training", config={}))
    assert tidy.due(store) == []
    tidy.tidy(store, project)
    assert label_studio.changes == 0


def test_in_the_first_round_nothing_is_due(store, dataset):
    asked_project(store, dataset)
    assert tidy.due(store) == []


def test_a_project_without_queries_in_label_studio_is_left_alone(store, project, label_studio):
    with store.session() as session:
        session.get_one(Project, project).query_project = None
    assert tidy.due(store) == []
    tidy.tidy(store, project)
    assert label_studio.changes == 0


# Predictions and scores of rounds that were replaced.


@pytest.fixture
def replaced(store, project, label_studio):
    """Let the second round have opened a while ago, when nothing else is to be done."""

    def replaced(age):
        tidy.tidy(store, project)
        label_studio.changes = 0
        with store.session() as session:
            session.get_one(Round, round_of(store, 2).id).opened_at = utc_now() - age

    return replaced


@pytest.fixture
def scores(store, project):
    """Every superpixel was scored in both rounds; about the one of picture c nobody was asked."""
    with store.session() as session:
        queries = session.scalars(select(Query)).all()
        for query in queries:
            for number in (1, 2):
                session.add(
                    Score(
                        round_id=round_of(store, number).id,
                        superpixel_id=query.superpixel_id,
                        score=1.0,
                        row=1,
                        col=1,
                        pseudo_label=1,
                        dominant=1,
                    )
                )
        unasked = query_of(store, "c", 2)
        session.delete(session.get_one(Query, unasked.id))
    return unasked.superpixel_id


def test_predictions_of_a_round_replaced_today_stay(store, project, label_studio, replaced):
    replaced(tidy.HELD - HOUR)
    assert tidy.due(store) == []
    tidy.tidy(store, project)
    assert label_studio.changes == 0
    assert not round_of(store, 1).pruned


def test_predictions_go_a_day_after_they_were_replaced(store, project, label_studio, replaced):
    replaced(tidy.HELD + HOUR)
    assert tidy.due(store) == [project]
    tidy.tidy(store, project)
    assert label_studio.versions == {"alc-round-2"}
    assert (round_of(store, 1).pruned, round_of(store, 2).pruned) == (True, False)
    assert tidy.due(store) == []


def test_predictions_that_are_gone_already_are_no_trouble(store, project, label_studio, replaced):
    replaced(tidy.HELD + HOUR)
    label_studio.versions.discard("alc-round-1")
    tidy.tidy(store, project)
    assert round_of(store, 1).pruned
    assert label_studio.changes == 0


def test_scores_of_a_replaced_round_go_but_for_what_was_asked(
    store, project, label_studio, scores, replaced
):
    replaced(tidy.HELD + HOUR)
    tidy.tidy(store, project)
    first, second = round_of(store, 1).id, round_of(store, 2).id
    with store.reading() as session:
        left = {(row.round_id, row.superpixel_id) for row in session.scalars(select(Score))}
    assert (first, scores) not in left
    assert (second, scores) in left
    assert len(left) == 11
