"""What an admin sees of a project at a glance."""

from __future__ import annotations

import numpy as np
import pytest

from alc_backend.loop import overview as overviews
from alc_backend.loop.overview import Overviews, overview
from alc_backend.loop.projects import image_queue
from alc_backend.store.incoming import Arrival
from alc_backend.store.models import Project, Round
from alc_backend.store.round_states import RoundState
from tests.annotations import (
    NOON,
    answer,
    arrive,
    asked_project,
    created,
    round_config,
    task_of,
)
from tests.conftest import BOTH_DATABASES


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def submit(store, project):
    def submit(*records):
        arrive(store, project, *(created(record) for record in records))

    return submit


@BOTH_DATABASES
def test_the_figures_of_a_project(store, project, submit):
    submit(
        answer(1, task_of(store, "a", 1), "cat", by=7),
        answer(2, task_of(store, "a", 2), "dog", by=8, lead_time=10.0),
        answer(3, task_of(store, "b", 2), "dog", by=8, lead_time=5.0),
        answer(4, task_of(store, "b", 1), None, by=8),
    )
    view = overview(store, project)
    figures = view.figures
    assert (view.images, figures.answers, view.queue) == (3, 3, 3)
    assert figures.accept_rate == pytest.approx(1 / 3)
    assert figures.saved == pytest.approx((1 - 1 / np.log2(3)) / 3)
    assert figures.corrections == [("cat", "dog", 2)]
    second, first = figures.annotators
    assert (second.name, second.answers, second.skipped, second.accepted) == ("8", 2, 1, 0.0)
    assert (second.pace, second.seconds) == (pytest.approx(480), 7.5)
    assert (first.name, first.accepted) == ("7", 1.0)
    assert view.problems == []
    assert not view.running


def test_a_long_ledger_is_not_read_anew_for_everyone(store, project, submit, monkeypatch):
    views = Overviews(store)
    submit(answer(1, task_of(store, "a", 1), "cat"))
    assert views.of(project).figures.answers == 1
    submit(answer(2, task_of(store, "a", 2), "dog"))
    assert views.of(project).figures.answers == 1  # as it was a moment ago
    monkeypatch.setattr(overviews, "REFRESH_S", 0.0)
    assert views.of(project).figures.answers == 2
    read = []
    monkeypatch.setattr(overviews, "figures", lambda *given: read.append(given))
    assert [view.figures.answers for view in views.all()] == [2]
    assert read == []  # nothing new was said


def test_problems_are_told_with_their_remedies(store, project, submit):
    with store.session() as session:
        session.get_one(Project, project).warm_start_error = "model files are missing"
        session.add(Arrival(project_id=project, dataset_task=9, error="x", finished_at=NOON))
        session.add(
            Round(
                project_id=project,
                number=2,
                state=RoundState.FAILED,
                error="disk full",
                config=round_config(),
            )
        )
    said = "\n".join(overview(store, project).problems)
    assert "Round 2 failed: disk full" in said
    assert "model files are missing; then run `alc pseudo --retry`" in said
    assert "Images without a first label map: 1" in said
    assert image_queue.waiting(store, project).failed == 1
