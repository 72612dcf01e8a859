"""Edits that cannot be read, or at which the process dies: told, and not tried for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import select

from alc_backend.errors import LabelStudioAwayError
from alc_backend.labelstudio.annotation import parse
from alc_backend.loop.annotations import answers, attempts, mask_edits, reconciliation
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.overview import overview
from alc_backend.store.incoming import Attempt
from alc_backend.store.models import Project
from tests.annotations import annotation, asked_project, image_of, label_studio_of, region
from tests.conftest import BOTH_DATABASES

pytestmark = BOTH_DATABASES

CORNER = (slice(0, 4), slice(0, 4))


@pytest.fixture
def project(store, dataset):
    made = asked_project(store, dataset)
    with store.reading() as session:
        return session.get_one(Project, made)


@pytest.fixture
def label_studio(store, project):
    fake = label_studio_of(store)
    fake.predict(image_of(store, "a").dataset_task, [], number=900)
    return fake


@pytest.fixture
def edit(store, project):
    """Annotation 1 of image a."""
    task = image_of(store, "a").dataset_task
    return parse(annotation(1, task, [region("dog", *CORNER)], parent_prediction=900))


@pytest.fixture
def begin(store, project, label_studio):
    def begin(given, client=label_studio.client):
        return mask_edits.record(store, client, project, given)

    return begin


def die():
    """What the process does in the middle of an attempt."""
    raise KeyboardInterrupt


def later(given):
    return replace(given, updated_at=given.updated_at + timedelta(minutes=5))


def told(store, project):
    return [text for text in overview(store, project.id).problems if "left out" in text]


def noted(store):
    with store.reading() as session:
        return list(session.scalars(select(Attempt)))


def test_an_edit_at_which_the_process_dies_is_set_aside(store, project, begin, edit):
    for _ in range(attempts.MAX_TRIES):
        assert told(store, project) == []
        with pytest.raises(KeyboardInterrupt):
            begin(edit, die)
    for _ in range(2):
        with pytest.raises(ValueError, match="3 attempts to read it ended with the process"):
            begin(edit, die)
    (problem,) = told(store, project)
    assert problem.startswith("Annotation 1 of image a was left out: 3 attempts")
    assert begin(later(edit)) == Outcome.RECORDED  # saved again
    assert told(store, project) == noted(store) == []


def test_one_death_is_forgotten_after_a_success(store, project, begin, edit):
    with pytest.raises(KeyboardInterrupt):
        begin(edit, die)
    assert begin(edit) == Outcome.RECORDED
    assert noted(store) == []


def test_waiting_for_label_studio_counts_for_nothing(store, project, begin, edit, label_studio):
    label_studio.fail()
    for _ in range(2 * attempts.MAX_TRIES):
        with pytest.raises(LabelStudioAwayError):
            begin(edit)
    assert told(store, project) == []
    label_studio.recover()
    assert begin(edit) == Outcome.RECORDED


def test_an_edit_that_cannot_be_read_is_told_until_it_can_or_is_gone(store, project, begin, edit):
    wrong = replace(edit, result=[region("dog", *CORNER, shape=(24, 32))])
    for _ in range(2 * attempts.MAX_TRIES):
        with pytest.raises(ValueError, match="differs in size"):
            begin(wrong)
    (problem,) = told(store, project)
    assert "for 32×24 pixels, and the image has 64×48" in problem
    with pytest.raises(ValueError, match="differs in size"):
        begin(replace(later(wrong), annotation_id=2))
    assert len(told(store, project)) == 2
    assert begin(later(edit)) == Outcome.RECORDED
    answers.withdraw(store, project.id, [2])
    assert told(store, project) == noted(store) == []


def test_what_was_left_out_and_is_gone_is_forgotten_when_everything_is_looked_at(
    store, project, begin, edit, label_studio
):
    for number in (1, 2):
        task = edit.task_id
        wrong = annotation(number, task, [region("dog", *CORNER, shape=(24, 32))])
        label_studio.annotate(wrong)
    look = partial(reconciliation.reconcile, store, label_studio.client(), project.id)
    assert look() == {Outcome.UNREADABLE: 2}
    label_studio.remove_annotation(1)
    look(full=True)
    (problem,) = told(store, project)
    assert "Annotation 2" in problem
