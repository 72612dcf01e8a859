"""Questions that are closed stay closed, whatever lets Label Studio serve them again."""

from __future__ import annotations

import pytest

from alc_backend.labelstudio.query import asked_about
from alc_backend.loop import image_tasks
from alc_backend.store import upkeep
from alc_backend.store.kinds import Removal
from alc_backend.store.models import Project, Query, Round
from alc_backend.store.round_states import RoundState
from tests.annotations import QUERY_PROJECT, answer, at, image_of, query_of, round_config, task_of
from tests.conftest import BOTH_DATABASES


def served(label_studio, key):
    """The tasks about an image that Label Studio serves."""
    return [
        task.id
        for task in label_studio.tasks_of(QUERY_PROJECT)
        if asked_about(task.data).image == key and not task.is_labeled
    ]


@pytest.fixture
def closed_task(store, project, label_studio, look):
    """A closed task: its image was taken out of the dataset."""
    look()
    images = [image_of(store, "a")]
    image_tasks.remove_images(store, label_studio.client(), project, images, Removal.BY_HAND)
    look()
    assert served(label_studio, "a") == []
    return task_of(store, "a", 2)


def skip(label_studio, task):
    label_studio.annotate(answer(1, task, None, minute=60))


def answer_and_delete(label_studio, task):
    label_studio.annotate(answer(1, task, "dog", minute=60))
    label_studio.remove_annotation(1, at(61))


def take_back_an_old_answer(label_studio, task):
    """Label Studio's clock was set back meanwhile."""
    label_studio.annotate(answer(1, task, None, minute=-600))


def ask_two(label_studio, task):
    label_studio.change_overlap(2)


def make_a_twin(label_studio, task):
    """A second task about the same, of which somebody deletes the answer after it was closed."""
    twin = label_studio.add_task(9999, dict(label_studio.tasks[task].data), updated_at=at(60))
    label_studio.annotate(answer(1, twin.id, None, minute=61))


@BOTH_DATABASES
@pytest.mark.parametrize(
    "happens", [skip, answer_and_delete, take_back_an_old_answer, ask_two, make_a_twin]
)
def test_a_closed_task_that_is_served_again_is_closed_again(
    store, label_studio, look, closed_task, happens
):
    others = served(label_studio, "b")
    happens(label_studio, closed_task)
    assert served(label_studio, "a")
    look()
    assert served(label_studio, "a") == []
    assert served(label_studio, "b") == others


@BOTH_DATABASES
@pytest.mark.parametrize("busy", [True, False])
def test_what_an_older_dump_opens_is_closed_again(store, project, label_studio, look, busy):
    """It has as many tasks, and no annotation tells; people may have gone on before it is seen."""
    look()
    dump = label_studio.dump()
    images = [image_of(store, "a")]
    image_tasks.remove_images(store, label_studio.client(), project, images, Removal.BY_HAND)
    label_studio.tasks[task_of(store, "c", 1)].updated_at = at(90)
    look()
    label_studio.restore(dump)
    assert len(served(label_studio, "a")) == 2
    if busy:
        label_studio.annotate(answer(1, task_of(store, "b", 1), "dog", minute=120))
    look()
    assert served(label_studio, "a") == []


def test_a_twin_that_was_closed_stays_closed(store, label_studio, look):
    look()
    task = task_of(store, "b", 2)
    make_a_twin(label_studio, task)
    look()
    assert served(label_studio, "b") == [task_of(store, "b", 1), task]
    label_studio.annotate(answer(2, 9999, None, minute=70))
    look()
    assert served(label_studio, "b") == [task_of(store, "b", 1), task]


@pytest.mark.parametrize("removed", [True, False])
def test_what_a_round_is_about_to_open_is_left_to_it(
    store, project, label_studio, look, closed_task, removed
):
    """Unless its image was removed meanwhile, and nobody opens it any more."""
    query, image = query_of(store, "a", 2), image_of(store, "a")
    with store.session() as session:
        second = Round(
            project_id=project, number=2, state=RoundState.PUBLISHING, config=round_config()
        )
        session.add(second)
        session.flush()
        session.get_one(Query, query.id).round_id = second.id
        upkeep.set_removed(session, project, {image.id: Removal.BY_HAND if removed else None})
    skip(label_studio, closed_task)
    look()
    assert served(label_studio, "a") == ([] if removed else [closed_task])


def test_one_task_that_cannot_be_closed_holds_up_no_other(
    store, project, label_studio, look, closed_task
):
    other = task_of(store, "a", 1)
    label_studio.fail(403, f"/api/tasks/{other}/", method="PATCH")
    for number, task in enumerate((other, closed_task), start=1):
        label_studio.annotate(answer(number, task, None, minute=60))
    look()
    assert served(label_studio, "a") == [other]
    label_studio.recover()
    look(full=True)
    assert served(label_studio, "a") == []


def test_one_question_that_cannot_be_closed_keeps_no_image_in(store, project, label_studio):
    first, second = task_of(store, "a", 1), task_of(store, "a", 2)
    label_studio.fail(500, f"/api/tasks/{first}/", method="PATCH")
    images = [image_of(store, "a")]
    image_tasks.remove_images(store, label_studio.client(), project, images, Removal.BY_HAND)
    assert served(label_studio, "a") == [first]
    assert label_studio.tasks[second].is_labeled
    label_studio.recover()
    image_tasks.close_questions(store, label_studio.client(), project)
    assert served(label_studio, "a") == []


def test_closed_tasks_cost_no_request_while_nothing_changes(
    store, project, label_studio, look, closed_task
):
    look()
    with store.reading() as session:
        assert session.get_one(Project, project).reconciled_fully_at
    label_studio.requests.clear()
    look()
    assert label_studio.writes == []
    assert not any(str(closed_task) in request.path for request in label_studio.requests)
