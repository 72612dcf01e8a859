"""What plans expect, and what came of it."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from alc_backend.loop.overview import overview
from alc_backend.loop.questions.outcome import FEWEST, came_of
from alc_backend.store import ledger
from alc_backend.store.models import Query, Round, Superpixel
from alc_backend.store.pages import Page, Tile
from tests.annotations import CAT
from tests.conftest import BOTH_DATABASES
from tests.pages import say_to_page
from tests.plans import plan

pytestmark = BOTH_DATABASES


@pytest.fixture
def settings(settings):
    settings.repeats = 0.0
    return settings


def answer_all(store, most):
    """Answer what a plan asks as it is, until so many superpixels were named; the sums expected."""
    expected = corrected = 0.0
    named = 0
    with store.session() as session:
        for task_id, row in enumerate(
            (*session.scalars(select(Query)), *session.scalars(select(Page))), 900
        ):
            row.task_id = task_id
    with store.reading() as session:
        pages = session.scalars(select(Page).order_by(Page.place)).all()
        tiles = {
            page.id: [(t.position, t.superpixel.number, t.expected) for t in page.tiles]
            for page in pages
        }
    for number, page in enumerate(pages, 1):
        right = {position for position, kind, _ in tiles[page.id] if kind == page.proposed}
        say_to_page(store, page.id, number, right, minute=number)
        named += len(right)
        expected += sum(one for position, _, one in tiles[page.id] if position in right)
        corrected += 256.0 * len(right) * (page.proposed != CAT)
        if named >= most:
            break
    return expected, corrected, named


def sized(store):
    with store.session() as session:
        for superpixel in session.scalars(select(Superpixel)):
            superpixel.size = 256


def test_what_is_expected_is_noted_and_compared_with_what_came(store, project):
    sized(store)
    plan(store)
    with store.reading() as session:
        noted = [*session.scalars(select(Query.expected)), *session.scalars(select(Tile.expected))]
    assert noted
    assert all(0 <= one <= 256 for one in noted)
    expected, corrected, named = answer_all(store, FEWEST)
    assert named >= FEWEST
    with store.reading() as session:
        found = came_of(session, project, ledger.position(session, project))
    assert found == (pytest.approx(expected), corrected)
    assert 0.8 < corrected / expected < 1.25  # the network is right about every superpixel


def test_of_few_answers_nothing_is_told(store, project):
    plan(store)
    answer_all(store, 1)
    with store.reading() as session:
        assert came_of(session, project, 5) is None


def test_the_overview_tells_how_long_most_of_the_gain_takes(store, project):
    plan(store)
    assert overview(store, project).gain_s is None  # nobody has answered: no pace is known
    answer_all(store, FEWEST)
    view = overview(store, project)
    with store.reading() as session:
        held = session.get_one(Round, 1).worthwhile
    assert 40 <= held <= 90  # of 90 superpixels, 45 are labelled wrongly
    assert view.gain_s == pytest.approx(held * view.left_s / view.queue)
    assert view.gain_came is None
    with store.session() as session:
        row = session.get_one(Round, 1)
        row.expected_pixels, row.corrected_pixels = 200.0, 150
    assert overview(store, project).gain_came == 0.75
