"""Label Studio restored from an older dump, or with its clock set back: numbers come again."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from sqlalchemy import select

from alc_backend.labelstudio.task_pages import PAGE
from alc_backend.loop import task_sync
from alc_backend.loop.annotations import reconciliation, webhooks
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store.models import Image, Project, Query, utc_now
from tests.annotations import (
    CAT,
    DATASET_PROJECT,
    DOG,
    NOON,
    annotation,
    answer,
    at,
    created,
    deleted,
    entries,
    image_of,
    in_ledger,
    label_map,
    query_of,
    receive,
    region,
    task_of,
    tasks_deleted,
)
from tests.conftest import BOTH_DATABASES

CORNER = (slice(0, 4), slice(0, 4))


@pytest.fixture
def hear(store, project, label_studio):
    """Let webhooks arrive and read what they name."""

    def hear(*bodies):
        for body in bodies:
            receive(store, project, body)
        return webhooks.drain(store, label_studio.client)

    return hear


def painted(store, number, key="a", **changes):
    """Masks of an image, changed by hand."""
    return annotation(
        number, image_of(store, key).dataset_task, [region("dog", *CORNER)], **changes
    )


def change(store, project, **values):
    with store.session() as session:
        for name, value in values.items():
            setattr(session.get_one(Project, project), name, value)


# The clock.


def test_what_was_dated_back_is_found_by_its_number(store, project, label_studio, look):
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog", minute=0))
    look()
    label_studio.annotate(answer(2, task_of(store, "b", 2), "dog", minute=-600))
    assert look()[Outcome.RECORDED] == 1
    assert in_ledger(store, project).keys() == {1, 2}


def test_what_was_dated_back_and_arrives_after_a_larger_number_is_found(
    store, project, label_studio, look
):
    """It was made after its project had been read, and before the other one was."""
    for number, image, minute in ((4, "a", 0), (6, "b", 1), (5, "c", -600)):
        label_studio.annotate(answer(number, task_of(store, image, 2), "dog", minute=minute))
        look()
    assert in_ledger(store, project).keys() == {4, 5, 6}


def test_a_task_with_more_new_answers_than_a_page_hides_no_other(
    store, project, label_studio, look
):
    """Label Studio lists a task once for each of its annotations that are asked for."""
    label_studio.annotate(answer(1, task_of(store, "a", 1), "dog"))
    look()
    for number in range(2, PAGE + 5):
        label_studio.annotate(answer(number, task_of(store, "a", 2), "dog", by=number, minute=-600))
    label_studio.annotate(answer(999, task_of(store, "c", 2), "dog", minute=-600))
    look()
    assert 999 in in_ledger(store, project)
    assert len(in_ledger(store, project)) == PAGE + 5


def test_an_answer_changed_while_the_clock_was_back_is_the_one_in_force(
    store, project, label_studio, look, hear
):
    task = task_of(store, "a", 2)
    label_studio.annotate(answer(1, task, "dog", minute=0, revised=30))
    look()
    label_studio.annotate(answer(1, task, "cat", minute=0, revised=-600))
    hear(created(label_studio.annotation(1), action="ANNOTATION_UPDATED"))
    assert in_ledger(store, project) == {1: ("accept", CAT)}
    assert look(full=True) == {Outcome.KNOWN: 1}


def test_a_moment_in_the_future_is_not_waited_for(store, project, label_studio, look):
    """Label Studio's clock was ahead, and is right again."""
    task = task_of(store, "a", 2)
    now = datetime.now(timezone.utc)

    def in_minutes(minute):
        return (now - NOON).total_seconds() / 60 + minute

    label_studio.annotate(answer(1, task, "dog", minute=in_minutes(0), revised=in_minutes(600)))
    look()
    label_studio.tasks[task].updated_at = at(in_minutes(600))
    label_studio.annotate(answer(2, task_of(store, "b", 2), "dog", minute=in_minutes(0)))
    look()
    label_studio.annotate(
        answer(2, task_of(store, "b", 2), "cat", minute=in_minutes(0), revised=in_minutes(1))
    )
    look()
    assert in_ledger(store, project)[2] == ("accept", CAT)


def test_everything_is_looked_at_now_and_then(store, project, label_studio, look):
    task = task_of(store, "a", 2)
    label_studio.annotate(answer(1, task, "dog"))
    look()
    del label_studio.tasks[task]
    label_studio.add_task(9999, {}, updated_at=at(60))  # their number does not tell
    look()
    assert in_ledger(store, project).keys() == {1}
    change(store, project, reconciled_fully_at=utc_now() - reconciliation.FULL_EVERY)
    assert look() == {Outcome.DELETED: 1}
    assert utc_now() - project_row(store, project).reconciled_fully_at < timedelta(hours=1)


def project_row(store, project):
    with store.reading() as session:
        return session.get_one(Project, project)


# The dump.


@BOTH_DATABASES
def test_the_number_of_a_lost_answer_is_given_to_another(store, project, label_studio, look):
    """The image of the second is smaller: its pixels are not those of the first."""
    query_id = query_of(store, "a", 2).id
    with store.session() as session:
        session.get_one(Query, query_id).row = 47
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog", minute=0))
    look()
    label_studio.remove_annotation(1, at(-30))
    label_studio.annotate(answer(1, task_of(store, "b", 1), "dog", minute=5))
    look()
    assert in_ledger(store, project) == {1: ("correct", DOG)}
    last = entries(store)[-1]
    assert last.superpixel_id == query_of(store, "b", 1).superpixel_id
    assert (last.row, last.revision) == (query_of(store, "b", 1).row, 1)
    assert (label_map(store, project, "a") != DOG).all()
    assert (label_map(store, project, "b")[8:24, 8:24] == DOG).all()


def test_a_lost_answers_number_is_given_to_another_answer_to_the_same_question(
    store, project, label_studio, look
):
    """It answers what was shown when it was given, not what the lost one was asked."""
    task = task_of(store, "a", 2)
    label_studio.annotate(answer(1, task, "dog", minute=0))
    look()
    with store.session() as session:
        query = session.scalars(select(Query).where(Query.task_id == task)).one()
        query.pseudo_label = DOG
    label_studio.annotate(answer(1, task, "dog", minute=30))
    look(full=True)
    assert in_ledger(store, project) == {1: ("accept", DOG)}


@pytest.mark.parametrize("between", [True, False])
def test_a_number_comes_again_after_its_annotation_was_withdrawn(
    store, project, label_studio, look, between
):
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog", minute=0))
    look()
    label_studio.remove_annotation(1)
    if between:
        look(full=True)
        assert in_ledger(store, project) == {}
    label_studio.annotate(answer(1, task_of(store, "a", 2), "background", minute=300))
    look(full=True)
    assert in_ledger(store, project) == {1: ("correct", 0)}
    assert entries(store)[-1].answered_at == NOON + timedelta(minutes=300)


def test_numbers_change_between_answers_and_edits(store, project, label_studio, look):
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog", minute=0))
    label_studio.annotate(painted(store, 2, minute=0))
    look()
    label_studio.remove_annotation(1)
    label_studio.remove_annotation(2)
    label_studio.annotate(painted(store, 1, key="b", minute=300))
    label_studio.annotate(answer(2, task_of(store, "b", 2), "dog", minute=300))
    look(full=True)
    assert in_ledger(store, project) == {1: ("edit", None), 2: ("correct", DOG)}
    assert (label_map(store, project, "a") != DOG).all()
    after = label_map(store, project, "b")
    assert (after[CORNER] == DOG).all()
    assert (after[24:40, 32:56] == DOG).all()


def test_a_deletion_that_the_dump_undid_is_undone(store, project, label_studio, look, hear):
    given = answer(1, task_of(store, "a", 2), "dog", minute=0)
    edited = painted(store, 2, minute=1)
    for one in (given, edited):
        label_studio.annotate(one)
    look()
    for one in (given, edited):
        label_studio.remove_annotation(one["id"])
    look()
    assert in_ledger(store, project) == {}
    for one in (given, edited):
        label_studio.annotate(one)
    look(full=True)
    assert in_ledger(store, project) == {1: ("correct", DOG), 2: ("edit", None)}
    assert look(full=True) == {Outcome.KNOWN: 2}


def test_what_was_read_before_its_deletion_does_not_come_back(store, project, label_studio, hear):
    """One process reads an annotation, another one withdraws it, the first one writes it."""
    given = answer(1, task_of(store, "a", 2), "dog", minute=0)
    label_studio.annotate(given)
    task = {"id": given["task"], "data": label_studio.tasks[given["task"]].data}
    hear(created(given))
    label_studio.remove_annotation(1)
    hear(deleted(1))
    outcome = reconciliation.write_annotation(
        store,
        label_studio.client,
        project_row(store, project),
        project_row(store, project).query_project,
        task,
        given,
    )
    assert (outcome, in_ledger(store, project)) == (Outcome.KNOWN, {})


def test_the_older_state_of_an_answer_does_not_replace_the_newer(
    store, project, label_studio, look
):
    task = task_of(store, "a", 2)
    label_studio.annotate(answer(1, task, "dog", minute=0))
    look()
    label_studio.annotate(answer(1, task, "cat", minute=0, revised=10))
    look()
    label_studio.annotate(answer(1, task, "dog", minute=0))
    look(full=True)
    assert in_ledger(store, project) == {1: ("accept", CAT)}
    label_studio.annotate(answer(1, task, "background", minute=0, revised=20))
    look()
    assert in_ledger(store, project) == {1: ("correct", 0)}


def test_everything_is_looked_at_when_the_last_change_is_older_than_before(
    store, project, label_studio, look
):
    for number, key in enumerate("ab", start=1):
        label_studio.annotate(answer(number, task_of(store, key, 2), "dog", minute=number))
    look()
    label_studio.remove_annotation(2, at(0))
    label_studio.annotate(answer(3, task_of(store, "c", 2), "dog", minute=-600))
    assert look() == {Outcome.KNOWN: 1, Outcome.RECORDED: 1, Outcome.LOST: 1}
    assert in_ledger(store, project).keys() == {1, 2, 3}


@BOTH_DATABASES
def test_what_a_dump_lacks_stays_in_force_until_that_is_accepted(
    store, project, label_studio, look
):
    """A deletion changes a task; an older dump has it as it was before."""
    for number, key in enumerate("abc", start=1):
        label_studio.annotate(answer(number, task_of(store, key, 2), "dog", minute=number))
    label_studio.annotate(painted(store, 4, minute=4))
    look()
    for number in (2, 3, 4):
        label_studio.remove_annotation(number, at(-60))
    label_studio.remove_annotation(1, at(9))  # somebody deleted this one
    for _ in range(2):
        found = look(full=True)
        assert (found[Outcome.LOST], in_ledger(store, project).keys()) == (3, {2, 3, 4})
    label_studio.annotate(answer(2, task_of(store, "b", 2), "cat", minute=30))  # asked once more
    assert look(full=True)[Outcome.LOST] == 2
    assert in_ledger(store, project)[2] == ("accept", CAT)
    assert look(full=True, accept_deletions=True)[Outcome.DELETED] == 2
    assert in_ledger(store, project).keys() == {2}


def test_a_tasks_number_is_given_to_another_question(store, project, label_studio, look):
    first, second = task_of(store, "a", 2), task_of(store, "b", 2)
    data = label_studio.tasks.pop(second).data
    label_studio.tasks[first].data = data
    label_studio.annotate(answer(1, first, "dog"))
    look()
    assert entries(store)[0].superpixel_id == query_of(store, "b", 2).superpixel_id
    assert query_of(store, "b", 2).task_id == first
    assert query_of(store, "a", 2).task_id is None


def test_the_number_of_the_annotation_that_the_first_map_came_from_is_given_again(
    store, project, label_studio, look
):
    """It began from nothing, and says nothing about the rest of the image."""
    image_id = image_of(store, "a").id
    with store.session() as session:
        image = session.get_one(Image, image_id)
        image.initial_annotation, image.initial_annotation_at = 40, NOON
    before = label_map(store, project)
    label_studio.annotate(painted(store, 40, minute=5, parent_prediction=None))
    look()
    after = label_map(store, project)
    assert (after[CORNER] == DOG).all()
    after[CORNER] = before[CORNER]
    assert np.array_equal(after, before)


def test_an_edit_dated_back_is_not_taken_for_the_first_label_map(
    store, project, label_studio, look
):
    image_id = image_of(store, "a").id
    with store.session() as session:
        image = session.get_one(Image, image_id)
        image.initial_annotation, image.initial_annotation_at = 40, NOON
    label_studio.annotate(painted(store, 41, minute=-60, parent_prediction=None))
    look()
    assert (label_map(store, project)[CORNER] == DOG).all()


# Two tasks that ask the same.


@pytest.fixture
def twins(store, label_studio, look):
    """The task of a question and its twin, with an answer to each by another person."""
    first = task_of(store, "a", 2)
    label_studio.add_task(7777, label_studio.tasks[first].data)
    label_studio.annotate(answer(1, first, "dog", by=1, minute=0))
    label_studio.annotate(answer(2, 7777, "dog", by=2, minute=1))
    look()
    return {first: 1, 7777: 2}


@pytest.mark.parametrize("how", ["webhook", "reconciling"])
@pytest.mark.parametrize("which", [0, 1])
def test_deleting_one_of_two_twins_withdraws_its_own_answers_alone(
    store, project, label_studio, look, hear, twins, which, how
):
    assert in_ledger(store, project).keys() == {1, 2}
    gone = list(twins)[which]
    del label_studio.tasks[gone]
    if how == "webhook":
        assert hear(tasks_deleted(gone)) == {Outcome.DELETED: 1}
    else:
        look()
    (left,) = set(twins) - {gone}
    assert in_ledger(store, project).keys() == {twins[left]}
    look(full=True)
    assert in_ledger(store, project).keys() == {twins[left]}
    assert task_of(store, "a", 2) == left
    assert (label_map(store, project)[24:40, 32:56] == DOG).all()


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_that_notices_first_hides_no_deletion(
    store, project, label_studio, look, twins, which
):
    """A worker that publishes misses the task before reconciling does."""
    gone = list(twins)[which]
    del label_studio.tasks[gone]
    task_sync.sync_tasks(store, label_studio.client(), project)
    assert look() == {Outcome.DELETED: 1, Outcome.KNOWN: 1}
    noticed = project_row(store, project)
    assert noticed.tasks_gone_at < noticed.reconciled_fully_at


def test_an_answer_to_the_twin_that_is_left_counts(store, project, label_studio, look, hear, twins):
    first = next(iter(twins))
    del label_studio.tasks[first]
    look()
    label_studio.annotate(answer(3, 7777, "cat", by=3, minute=9))
    hear(created(label_studio.annotation(3)))
    assert in_ledger(store, project)[3] == ("accept", CAT)


def test_a_dataset_task_is_deleted_whose_number_means_another_image_now(
    store, project, label_studio, look, hear
):
    """Edits are withdrawn with the task that they were given to."""
    label_studio.annotate(painted(store, 1, key="a"))
    look()
    image_id, task = image_of(store, "a").id, image_of(store, "a").dataset_task
    with store.session() as session:
        session.get_one(Image, image_id).dataset_task = 8888
    label_studio.add_task(8888, {"alc": {"image": "a"}}, DATASET_PROJECT)
    del label_studio.tasks[task]
    assert hear(tasks_deleted(task, project=DATASET_PROJECT)) == {Outcome.DELETED: 1}
    assert in_ledger(store, project) == {}


# Webhooks that come late.


@BOTH_DATABASES
@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATION_UPDATED"])
def test_a_late_webhook_withdraws_nothing_that_a_dump_lacks(
    store, project, label_studio, look, hear, action
):
    dump = label_studio.dump()
    given = answer(1, task_of(store, "a", 2), "dog", minute=30)
    label_studio.annotate(given)
    look()
    label_studio.restore(dump)
    assert hear(created(given, action=action)) == {Outcome.LOST: 1}
    assert in_ledger(store, project).keys() == {1}
    assert look(full=True) == {Outcome.LOST: 1}


def test_a_late_webhook_about_what_somebody_deleted_withdraws_it(
    store, project, label_studio, look, hear
):
    given = answer(1, task_of(store, "a", 2), "dog", minute=30)
    label_studio.annotate(given)
    look()
    label_studio.remove_annotation(1, at(40))
    assert hear(created(given)) == {Outcome.DELETED: 1}
    assert in_ledger(store, project) == {}


def test_a_deletion_that_arrives_after_the_dump_was_restored_counts(
    store, project, label_studio, look, hear
):
    dump = label_studio.dump()
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog", minute=30))
    look()
    label_studio.restore(dump)
    assert hear(deleted(1)) == {Outcome.DELETED: 1}
    assert in_ledger(store, project) == {}
