"""Images that are out of their dataset, by command or because their task is gone."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from alc_backend.errors import LabelStudioError, NotFoundError
from alc_backend.labelstudio.projects import connect_backend
from alc_backend.loop import image_tasks, query_tasks
from alc_backend.loop.annotations import reconciliation, webhooks
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.exports import export
from alc_backend.loop.overview import overview
from alc_backend.loop.projects import connection, image_queue, initial_labels
from alc_backend.loop.rounds.plan import scoring_works
from alc_backend.store import ledger, standing
from alc_backend.store.importing import import_folder
from alc_backend.store.kinds import Removal
from alc_backend.store.models import TRAIN, Project, Query, Round
from tests.annotations import (
    DATASET_PROJECT,
    DOG,
    QUERY_PROJECT,
    answer,
    arrive,
    asked_project,
    image_of,
    in_ledger,
    judged,
    label_studio_of,
    query_of,
    receive,
    task_of,
    tasks_deleted,
)
from tests.command_line import alc
from tests.conftest import BOTH_DATABASES, write_dataset


@pytest.fixture
def look(store, project, label_studio):
    return lambda **options: reconciliation.reconcile(
        store, label_studio.client(), project, **options
    )


def why(store, key="a"):
    return image_of(store, key).removed


def closed(store, label_studio, key="a"):
    """Whether the two questions about an image are served to nobody."""
    numbers = [task_of(store, key, superpixel) for superpixel in (1, 2)]
    return [label_studio.tasks[number].is_labeled for number in numbers]


# Its task is deleted.


@BOTH_DATABASES
@pytest.mark.parametrize("how", ["webhook", "reconciling"])
def test_an_image_whose_task_is_deleted_is_out_of_the_dataset(
    store, project, label_studio, look, how
):
    task = image_of(store, "a").dataset_task
    if how == "webhook":
        gone = tasks_deleted(task, project=DATASET_PROJECT)
        arrive(store, project, gone, label_studio=label_studio)
    else:
        look()
        del label_studio.tasks[task]
        look()
    assert why(store) == Removal.TASK_DELETED
    assert closed(store, label_studio) == [True, True]
    assert closed(store, label_studio, "b") == [False, False]
    look(full=True)
    assert (why(store), why(store, "b")) == (Removal.TASK_DELETED, None)


def test_a_forged_deletion_takes_no_image_out(store, project, label_studio):
    receive(
        store, project, tasks_deleted(image_of(store, "a").dataset_task, project=DATASET_PROJECT)
    )
    webhooks.drain(store, label_studio.client)
    assert why(store) is None


def test_what_is_out_is_neither_asked_nor_trained_on_nor_exported(
    store, project, label_studio, tmp_path
):
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog"))
    reconciliation.reconcile(store, label_studio.client(), project)
    assert len(judged(store, project).resolved) == 1
    image_id = image_of(store, "a").id
    image_tasks.remove_images(
        store, label_studio.client(), project, [image_of(store, "a")], Removal.BY_HAND
    )
    assert [image.key for image in store.images(project, TRAIN)] == ["b", "c"]
    assert judged(store, project).resolved == {}
    with store.reading() as session:
        round_ = session.scalars(select(Round)).one()
        shards = [number for work in scoring_works(session, round_) for number in work.images]
    assert shards
    assert image_id not in shards
    items = query_tasks.queue_items(store, round_)
    assert {item.key.image for item in items} == {"b", "c"}
    export.export_project(store, project, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("a.png"))
    assert list((tmp_path / "out").rglob("b.png"))
    assert overview(store, project).images == 2


def test_an_image_is_in_again_when_its_task_is(store, project, label_studio, look):
    image = image_of(store, "a")
    look()
    kept = label_studio.tasks.pop(image.dataset_task)
    look()
    label_studio.tasks[image.dataset_task] = kept
    look()
    assert why(store) is None


def test_the_twin_of_a_deleted_task_takes_its_place(store, project, label_studio, look):
    look()
    task = image_of(store, "a").dataset_task
    data = label_studio.tasks.pop(task).data
    label_studio.add_task(7000, data, DATASET_PROJECT)
    look(full=True)
    assert (why(store), image_of(store, "a").dataset_task) == (None, 7000)


def test_the_number_of_a_deleted_task_is_given_to_another_image(store, project, label_studio, look):
    task = image_of(store, "a").dataset_task
    label_studio.tasks[task].data = {"image": "/data/z.png", "alc": {"image": "z"}}
    look(full=True)
    assert why(store) == Removal.TASK_DELETED


def test_many_vanished_tasks_remove_nothing_unasked(store, tmp_path):
    names = [f"i{number:02}" for number in range(image_tasks.MANY_GONE + 5)]
    project = asked_project(store, write_dataset(tmp_path / "many", names, height=48, width=64))
    label_studio = label_studio_of(store)
    client = label_studio.client()
    for name in names[:-2]:
        del label_studio.tasks[image_of(store, name).dataset_task]
    label_studio.annotate(answer(1, task_of(store, names[-1], 2), "dog"))
    for _ in range(2):
        with pytest.raises(LabelStudioError, match=r"23 of 25 images, the first of 'i00'.*accept"):
            reconciliation.reconcile(store, client, project)
    assert in_ledger(store, project) == {1: ("correct", DOG)}  # what was answered is there
    assert len(store.images(project, TRAIN)) == len(names)
    reconciliation.reconcile(store, client, project, full=True, accept_deletions=True)
    assert len(store.images(project, TRAIN)) == 2


def test_the_tasks_are_listed_only_when_their_number_is_another(store, project, label_studio, look):
    label_studio.add_task(7000, {"image": "/data/new.png"}, DATASET_PROJECT)
    look()
    label_studio.requests.clear()
    look()
    assert not [
        request
        for request in label_studio.asked("/api/tasks/")
        if request.parameters["project"] == str(DATASET_PROJECT)
        and request.parameters.get("fields") == "task_only"
        and "ordering" not in json.loads(request.parameters.get("query", "{}"))
    ]


def test_questions_that_could_not_be_closed_are_closed_later(store, project, label_studio, look):
    label_studio.fail(503, f"/api/tasks/{task_of(store, 'a', 1)}/", method="PATCH")
    with pytest.raises(LabelStudioError):
        image_tasks.remove_images(
            store, label_studio.client(), project, [image_of(store, "a")], Removal.BY_HAND
        )
    label_studio.recover()
    look()
    assert closed(store, label_studio) == [True, True]


# By command.


def test_an_image_is_removed_and_brought_back_by_command(
    store, project, label_studio, settings, look
):
    done = alc(settings, "images", "remove", "a")
    assert done.returncode == 0, done.stderr
    assert "a: removed" in done.stdout
    look(full=True)
    assert why(store) == Removal.BY_HAND  # though its task is there
    assert closed(store, label_studio) == [True, True]
    assert "out of the dataset: removed" in alc(settings, "images", "list", "--removed").stdout
    assert "none" in alc(settings, "images", "remove", "a").stdout
    assert alc(settings, "images", "restore", "a").returncode == 0
    assert why(store) is None
    with store.reading() as session:
        round_ = session.scalars(select(Round)).one()
    assert {item.key.image for item in query_tasks.queue_items(store, round_)} == {"a", "b", "c"}


def test_a_deleted_task_is_made_again(store, project, label_studio, settings, look):
    look()
    del label_studio.tasks[image_of(store, "a").dataset_task]
    look()
    assert alc(settings, "images", "restore", "a").returncode == 0
    image = image_of(store, "a")
    made = label_studio.tasks[image.dataset_task]
    assert image.removed is None
    assert made.project == DATASET_PROJECT
    assert made.data == {"image": image.url, "alc": {"image": "a"}}
    assert (
        label_studio.files[image.url]
        == store.files(project).image(image.id, image.suffix).read_bytes()
    )


def test_unknown_images_are_named(settings, label_studio):
    done = alc(settings, "images", "remove", "a", "zebra")
    assert done.returncode == 1
    assert "no image 'zebra'" in done.stderr


def test_another_import_brings_no_removed_image_back(store, project, label_studio, dataset):
    image_tasks.remove_images(
        store, label_studio.client(), project, [image_of(store, "a")], Removal.BY_HAND
    )
    assert import_folder(store, dataset, "pets").present == 3
    connect_backend(label_studio.client(), QUERY_PROJECT, "http://127.0.0.1:9090", "s3cret")
    connection.connect_project(store, label_studio.client(), project, lambda message: None)
    assert image_queue.note(store, label_studio.client(), project) == (0, 3)
    assert why(store) == Removal.BY_HAND


# Two tasks with one key.


def test_the_second_task_of_a_key_is_told_by_name(store, project, label_studio):
    client = label_studio.client()
    task = image_of(store, "a").dataset_task
    label_studio.add_task(7000, dict(label_studio.tasks[task].data), DATASET_PROJECT)
    assert image_queue.note(store, client, project) == (0, 3)
    (told,) = image_queue.problems(store, project)
    assert told.startswith(f"task 7000: it has the key 'a' of task {task}")
    assert image_queue.waiting(store, project).failed == 1
    del label_studio.tasks[7000]
    image_queue.note(store, client, project)
    assert image_queue.problems(store, project) == []


def test_of_two_new_tasks_with_one_key_the_second_is_told(store, project, label_studio, dataset):
    content = (dataset / "images" / "a.png").read_bytes()
    for number in (7000, 7001):
        label_studio.files["/data/new.png"] = content
        data = {"image": "/data/new.png", "alc": {"image": "new"}}
        label_studio.add_task(number, data, DATASET_PROJECT)
    image_queue.note(store, label_studio.client(), project)
    with store.session() as session:
        session.get_one(Project, project).warm_start = {"superpixels": "slic"}
    done = initial_labels.work(store, label_studio.client(), project)
    assert done.labelled == 1
    (told,) = done.problems
    assert told.startswith("task 7001: it has the key 'new' of task 7000")


# Projects that were deleted.


@pytest.mark.parametrize(
    ("which", "role", "remedy"),
    [(QUERY_PROJECT, "the query project", "alc init"), (DATASET_PROJECT, "dataset", "alc export")],
)
def test_a_deleted_project_is_told_with_the_remedy(label_studio, look, which, role, remedy):
    del label_studio.projects[which]
    with pytest.raises(NotFoundError, match=f"no longer has project {which}.*{role}.*{remedy}"):
        look()


def test_init_makes_a_deleted_query_project_anew_and_answers_stay(
    store, project, label_studio, look
):
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog"))
    look()
    del label_studio.projects[QUERY_PROJECT]
    for number in [n for n, task in label_studio.tasks.items() if task.project == QUERY_PROJECT]:
        del label_studio.tasks[number]
    made = connection.connect_project(store, label_studio.client(), project, lambda message: None)
    assert made.query_project != QUERY_PROJECT
    assert made.query_project in label_studio.projects
    with store.reading() as session:
        assert set(session.scalars(select(Query.task_id))) == {None}
    reconciliation.reconcile(store, label_studio.client(), project, full=True)
    assert in_ledger(store, project) == {1: ("correct", DOG)}
    with store.reading() as session:
        round_ = session.scalars(select(Round)).one()
    query_tasks.create_missing(store, label_studio.client(), round_, Query.round_id == round_.id)
    assert len(label_studio.tasks_of(made.query_project)) == 6  # as the next round does


def test_init_makes_no_dataset_project_anew(store, project, label_studio):
    for number in (QUERY_PROJECT, DATASET_PROJECT):
        del label_studio.projects[number]
    with pytest.raises(NotFoundError, match="dataset project"):
        connection.connect_project(store, label_studio.client(), project, lambda message: None)
    with store.reading() as session:
        assert session.get_one(Project, project).query_project == QUERY_PROJECT


@BOTH_DATABASES
def test_an_answer_whose_number_came_again_counts_in_no_single_image(
    store, project, label_studio, look
):
    """Where few images are read, entries that were replaced elsewhere are not in force."""
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog", minute=0))
    look()
    label_studio.remove_annotation(1)
    label_studio.annotate(answer(1, task_of(store, "b", 2), "dog", minute=300))
    assert look(full=True)[Outcome.RECORDED] == 1
    a, b = image_of(store, "a").id, image_of(store, "b").id
    asked = query_of(store, "a", 2).superpixel_id
    with store.reading() as session:
        assert ledger.standing(session, project, images=[a]) == []
        (entry,) = ledger.standing(session, project, images=[b])
        assert not standing.is_disputed(session, asked)
    assert entry.superpixel_id == query_of(store, "b", 2).superpixel_id
