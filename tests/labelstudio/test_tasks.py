"""Making, ordering, closing and deleting query tasks, with a fake Label Studio."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import query, tasks
from alc_backend.labelstudio.query import Key
from tests.fake_label_studio import DATASET_PROJECT, QUERY_PROJECT, FakeLabelStudio


@pytest.fixture
def label_studio():
    return FakeLabelStudio()


@pytest.fixture
def client(label_studio):
    return label_studio.client()


def item(number, task=None, *, closed=False, adjudication=False):
    key = Key("a", number, adjudication)
    data = {"alc": {"image": "a", "superpixel": number, "adjudication": adjudication}}
    return tasks.QueueItem(number, key, task, True, closed, data, [{"id": f"r1-{number}"}])


def create(client, items):
    made = {}
    tasks.create_tasks(client, QUERY_PROJECT, items, made.update)
    return made


def test_tasks_are_made_and_told_by_what_they_ask(label_studio, client, monkeypatch):
    monkeypatch.setattr(tasks, "IMPORT_TASKS", 2)
    items = [item(number) for number in range(1, 6)]
    made = create(client, items)
    assert tasks.existing_tasks(client, QUERY_PROJECT) == {
        made[i.key]: tasks.HeldTask(i.key, True, False, query.digest(i.data)) for i in items
    }
    tasks.close_task(client, made[items[0].key])
    assert not tasks.existing_tasks(client, QUERY_PROJECT)[made[items[0].key]].is_open
    assert tasks.count_tasks(client, QUERY_PROJECT) == 5
    assert len(label_studio.asked(f"/api/projects/{QUERY_PROJECT}/import", "POST")) == 3


@pytest.mark.parametrize("adjudication", [True, False])
@pytest.mark.parametrize(("followed", "version"), [("v1", "v1"), ("", "alc-round-0")])
def test_a_task_is_made_with_what_it_asks_and_served_last(
    label_studio, client, followed, version, adjudication
):
    label_studio.projects[QUERY_PROJECT]["model_version"] = followed
    asked = item(1, adjudication=adjudication)
    (number,) = create(client, [asked]).values()
    (prediction,) = label_studio.tasks[number].predictions
    assert prediction["result"] == asked.result
    assert (prediction["model_version"], prediction["score"]) == (version, tasks.LAST)
    assert tasks.best_scores(client, QUERY_PROJECT, version) == {number: tasks.LAST}
    tasks.put_first(client, replace(asked, task_id=number), version)
    assert tasks.best_scores(client, QUERY_PROJECT, version) == {number: 0.0}


def test_an_adjudication_is_put_to_one_annotator(label_studio, client):
    made = create(client, [item(1), item(1, adjudication=True)])
    overlaps = {key.adjudication: label_studio.tasks[task].overlap for key, task in made.items()}
    assert overlaps == {False: None, True: 1}


@pytest.mark.parametrize("path", ["/api/predictions", "/api/tasks/"])
def test_nobody_is_handed_an_adjudication_before_it_shows_what_it_asks(label_studio, client, path):
    label_studio.fail(400, path, method="PATCH" if path == "/api/tasks/" else "POST")
    with pytest.raises(LabelStudioError):
        create(client, [item(1, adjudication=True)])
    (held,) = tasks.existing_tasks(client, QUERY_PROJECT).values()
    assert held.is_closed
    assert not held.is_open


def test_predictions_that_label_studio_forgets_are_made(label_studio, client):
    """Its import tries again when its database is locked, and then leaves them out."""
    forgotten = [item(1), item(2)]
    for number, asked in enumerate(forgotten, start=5):
        label_studio.add_task(number, asked.data)
    answer = {"task_ids": [5, 6], "prediction_count": 0}
    label_studio.fail(201, f"/api/projects/{QUERY_PROJECT}/import", times=1, body=answer)
    assert [*create(client, forgotten).values()] == [5, 6]
    assert tasks.best_scores(client, QUERY_PROJECT, "alc-round-0") == {5: 1.0, 6: 1.0}


def test_tasks_that_label_studio_does_not_make_are_told(label_studio, client):
    path = f"/api/projects/{QUERY_PROJECT}/import"
    label_studio.fail(200, path, body={"task_ids": [7], "prediction_count": 1})
    with pytest.raises(LabelStudioError, match="made 1 of 2 tasks"):
        create(client, [item(1), item(2)])


@pytest.mark.parametrize("closed", [True, False])
def test_a_changed_question_is_served_again_when_it_was_closed(label_studio, client, closed):
    label_studio.add_task(5, {}, is_labeled=True)
    tasks.update_task(client, item(1, 5, closed=closed))
    assert label_studio.tasks[5].data["alc"]["superpixel"] == 1
    assert label_studio.tasks[5].is_labeled is not closed


def test_closing_tolerates_a_deleted_task(label_studio, client):
    label_studio.add_task(5, {})
    for task in (5, 6):
        tasks.close_task(client, task)
    assert label_studio.tasks[5].is_labeled


@pytest.fixture
def queue(label_studio):
    """Three queries with tasks."""
    for task in (1, 2, 3):
        label_studio.add_task(task, {})
    return [item(task, task) for task in (2, 3, 1)]


def scores(label_studio, version):
    return {
        (task.id, prediction["score"])
        for task in label_studio.tasks.values()
        for prediction in task.predictions
        if prediction["model_version"] == version
    }


def test_the_best_query_has_the_lowest_score(label_studio, client, queue):
    assert tasks.import_queue(client, QUERY_PROJECT, "v1", queue)
    assert scores(label_studio, "v1") == {(2, 0.5), (3, 0.5 + 0.5 / 3), (1, 0.5 + 1 / 3)}
    assert not tasks.is_switched(client, QUERY_PROJECT, "v1")
    tasks.switch(client, QUERY_PROJECT, "v1")
    assert tasks.is_switched(client, QUERY_PROJECT, "v1")
    assert label_studio.projects[QUERY_PROJECT]["sampling"] == tasks.SAMPLING


def test_importing_again_replaces_an_interrupted_attempt(label_studio, client, queue):
    tasks.import_queue(client, QUERY_PROJECT, "v1", queue[:1])
    tasks.import_queue(client, QUERY_PROJECT, "v0", queue)
    assert tasks.import_queue(client, QUERY_PROJECT, "v1", queue)
    assert [len(task.predictions) for task in label_studio.tasks.values()] == [2, 2, 2]


def test_a_task_that_is_gone_is_noticed(label_studio, client, queue):
    del label_studio.tasks[3]
    assert not tasks.import_queue(client, QUERY_PROJECT, "v1", queue)


def test_an_empty_queue_is_imported_by_asking_for_nothing_more(label_studio, client):
    assert tasks.import_queue(client, QUERY_PROJECT, "v1", [])
    assert label_studio.writes == []


def test_what_is_put_first_gets_one_prediction(label_studio, client, queue):
    for _ in range(2):
        tasks.put_first(client, queue[0], "v1")
    tasks.put_first(client, queue[0], "v2")
    assert scores(label_studio, "v1") == {(2, 0.0)}
    assert len(label_studio.tasks[2].predictions) == 2


def test_only_untouched_tasks_are_deleted(label_studio, client):
    for task in range(1, 6):
        label_studio.add_task(task, {})
    label_studio.add_task(9, {}, DATASET_PROJECT)
    label_studio.tasks[1].drafts.append({"id": 1})
    for task, skipped in ((2, False), (3, True)):
        record = {"id": task, "task": task, "was_cancelled": skipped}
        label_studio.annotate(record | {"updated_at": "2026-01-01T12:00:00Z"})
    gone = tasks.delete_untouched(client, QUERY_PROJECT, [1, 2, 3, 4, 77])
    assert gone == [4, 77]  # what does not exist is gone, too
    assert label_studio.tasks.keys() == {1, 2, 3, 5, 9}


def test_nothing_is_deleted_when_nothing_may_be(label_studio, client):
    label_studio.add_task(1, {}, drafts=[{"id": 1}])
    assert tasks.delete_untouched(client, QUERY_PROJECT, []) == []
    assert tasks.delete_untouched(client, QUERY_PROJECT, [1]) == []
    assert label_studio.writes == []
