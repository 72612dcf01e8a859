"""The next round starts by itself once what the open one asks is settled, in whatever way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from alc_backend.labelstudio.annotation import parse
from alc_backend.loop.annotations import answers, mask_edits
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.rounds import lifecycle
from alc_backend.store import ledger
from alc_backend.store.models import Project, Query, Round, utc_now
from alc_backend.store.pages import Page
from tests.annotations import (
    annotation,
    answer,
    asked_project,
    image_of,
    label_studio_of,
    query_of,
    region,
    task_of,
)
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds import running
from tests.pages import add_page, say_to_page

PLACES = [(key, number) for key in "abc" for number in (1, 2)]
CAT_AT, DOG_AT = (slice(8, 24), slice(8, 24)), (slice(24, 40), slice(32, 56))


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset, overlap=2)


@pytest.fixture
def label_studio(store, project, monkeypatch):
    fake = label_studio_of(store)
    fake.serve(monkeypatch)
    return fake


@pytest.fixture
def reply(store, project):
    """One annotator answers one question."""

    def reply(number, task, choice, by, overlap=2):
        with store.reading() as session:
            row = session.get_one(Project, project)
        given = parse(answer(number, task, choice, by=by, minute=number))
        assert answers.record(store, row, given, {"overlap": overlap}) == Outcome.RECORDED

    return reply


@pytest.fixture
def agree(store, reply):
    """Two annotators say the same about a superpixel."""

    def agree(place):
        number = 10 * PLACES.index(place) + 10
        for by in (1, 2):
            reply(number + by, task_of(store, *place), "cat", by)

    return agree


def due(store):
    started = lifecycle.start_due(store, [].append)
    return [round_.number for round_ in started]


@BOTH_DATABASES
def test_after_a_dispute_was_settled(store, project, label_studio, reply, agree):
    for place in PLACES[1:]:
        agree(place)
    reply(1, task_of(store, "a", 1), "dog", by=1)
    reply(2, task_of(store, "a", 1), "cat", by=2)
    with store.reading() as session:
        opened = session.scalars(select(Round)).one()
    running.ask_missing(store, opened)
    assert due(store) == []
    reply(99, query_of(store, "a", 1, adjudication=True).task_id, "dog", by=3, overlap=1)
    assert due(store) == [2]
    assert due(store) == []  # it is on its way


def test_after_the_last_one_was_mended_by_hand(store, project, label_studio, agree):
    for place in PLACES[1:]:
        agree(place)
    assert due(store) == []
    with store.reading() as session:
        row = session.get_one(Project, project)
    painted = [region("dog", *CAT_AT), region("dog", *DOG_AT, identity="other")]
    given = parse(annotation(99, image_of(store, "a").dataset_task, painted))
    assert mask_edits.record(store, label_studio.client, row, given) == Outcome.RECORDED
    assert due(store) == [2]


def test_after_as_many_as_its_batch_has(store, project, agree):
    agree(PLACES[0])
    with store.session() as session:  # begun with one that was settled, and older questions
        opened = session.scalars(select(Round)).one()
        opened.config = replace(opened.config, size=2)
        opened.ledger_position, opened.answers = ledger.position(session, project), 1
    agree(PLACES[1])
    assert due(store) == []
    agree(PLACES[2])
    assert due(store) == [2]


def both_say(store, page, number, ticked):
    """Two annotators say the same to a page."""
    for by in (1, 2):
        say_to_page(store, page, number + by, ticked, by=str(by), minute=number + by)


@BOTH_DATABASES
def test_what_was_answered_on_a_page_is_answered(store, project, agree):
    for place in PLACES[3:]:
        agree(place)
    page = add_page(store, project, PLACES[:3])
    both_say(store, page, 100, {1, 2})
    assert due(store) == []  # the third was ruled out, which answers nothing
    again = add_page(store, project, PLACES[2:3], key="1" * 32, task_id=801, proposed=2)
    both_say(store, again, 200, {1})
    assert due(store) == [2]


def test_a_round_that_asks_on_pages_alone(store, project):
    with store.session() as session:
        session.query(Query).delete()
    page = add_page(store, project, PLACES)
    assert due(store) == []
    both_say(store, page, 100, {1, 2, 3, 4, 5})
    assert due(store) == []
    with store.session() as session:  # another plan has put the last one elsewhere, and left it
        session.get_one(Page, page).closed_at = utc_now()
    other = add_page(store, project, PLACES[:5], key="1" * 32, task_id=801)
    assert due(store) == [2]
    assert other != page
