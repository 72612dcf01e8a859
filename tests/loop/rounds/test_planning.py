"""Plans of open rounds that have lost what they knew, or whose classes have changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from alc_backend.loop.annotations import webhooks
from alc_backend.loop.questions import planning
from alc_backend.loop.rounds.plan import Work
from alc_backend.store.models import Part, Project, Query, Round, Superpixel
from alc_backend.store.pages import Page
from alc_backend.store.round_states import Step
from tests.annotations import answer, arrive, asked_project, created, task_of
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds import running
from tests.pages import traits

pytestmark = BOTH_DATABASES


@pytest.fixture
def project(store, dataset):
    """A project with an open round that asks pages, too."""
    made = asked_project(store, dataset)
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        round_.config = replace(round_.config, questions="mixed")
        work = Work([1]).as_json()
        session.add(Part(round_id=round_.id, step=Step.SCORING, number=1, work=work))
    return made


@pytest.fixture
def make_plan(store, project):
    def make_plan():
        round_ = running.only_round(store)
        with running.working(store, round_, Step.PLANNING) as report:
            return planning.make_plan(store, round_, report, lambda done, total, message: None)

    return make_plan


def pages(store):
    with store.reading() as session:
        return session.scalars(select(Page)).all()


def test_a_round_whose_traits_are_gone_plans_without_pages_and_says_so(
    store, project, make_plan, caplog
):
    plan = make_plan()
    assert (plan.number, plan.queries) == (1, [])
    assert pages(store) == []
    assert "traits/1.npz" in caplog.text
    assert "questions are asked singly" in caplog.text
    with store.reading() as session:
        assert len(session.scalars(select(Query)).all()) == 6  # its queue is what it was


def test_answers_that_name_a_class_that_was_added_after_the_scoring_are_learnt_from(
    store, project, make_plan
):
    with store.session() as session:
        ids = session.scalars(select(Superpixel.id)).all()
    store.files(project).write_traits(1, 1, traits(ids, classes=3))
    with store.session() as session:
        row = session.get_one(Project, project)
        row.classes = [*row.classes, "bird"]
    arrive(store, project, created(answer(1, task_of(store, "a", 1), "bird")))
    assert not webhooks.waiting(store, project)
    plan = make_plan()
    assert len(plan.queries) + sum(len(page.tiles) for page in pages_with_tiles(store)) == 5


def pages_with_tiles(store):
    with store.reading() as session:
        found = session.scalars(select(Page)).unique().all()
        for page in found:
            list(page.tiles)
        return found
