"""Tiles that are known to be wrong, and who overlooks them."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from alc_backend.loop.questions.planning import is_due
from alc_backend.store import ledger, recording
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import Image, Query, Round, Superpixel, utc_now
from alc_backend.store.pages import Page
from tests.annotations import CAT, DOG, judged, label_map
from tests.pages import say_to_page
from tests.plans import plan


@pytest.fixture
def settings(settings):
    settings.repeats = 1.0
    settings.tiles = 6
    return settings


@pytest.fixture
def pages(store, project):
    """The pages of a plan that is made after some answers: cats (1) are cats, dogs (2) dogs."""

    def pages():
        plan(store)
        with store.reading() as session:
            row = session.get_one(Round, 1)
            found = session.scalars(
                select(Page).where(Page.plan == row.plans).order_by(Page.place)
            ).all()
            for page in found:
                list(page.tiles)
        return found

    return pages


def superpixels(store, kind, many):
    with store.reading() as session:
        rows = select(Superpixel.id).where(Superpixel.number == kind).order_by(Superpixel.id)
        return list(session.scalars(rows))[:many]


def teach(store):
    """Let somebody answer about four cats and four dogs."""
    cats, dogs = superpixels(store, 1, 4), superpixels(store, 2, 4)
    for number, superpixel_id in enumerate([*cats, *dogs], start=1):
        with store.session() as session:
            query = Query(
                superpixel_id=superpixel_id, adjudication=False, round_id=1, rank=number,
                score=1.0, row=30, col=40, pseudo_label=CAT,
            )  # fmt: skip
            session.add(query)
            session.flush()
            said, now = CAT if superpixel_id in cats else DOG, utc_now()
            recording.record(session, query, recording.Reply(number, said, "7", 2.0, now, now))
    return cats, dogs


def repeated_on(page):
    return [tile for tile in page.tiles if tile.repeated]


def test_without_answers_nothing_is_repeated(pages):
    found = pages()
    assert found
    assert not any(repeated_on(page) for page in found)


def test_a_page_repeats_what_was_answered_with_another_class(store, pages):
    cats, dogs = teach(store)
    found = pages()
    known = {CAT: set(dogs), DOG: set(cats)}
    seen = []
    for page in found:
        assert len(page.tiles) <= 6
        assert len(repeated_on(page)) <= 1
        for tile in repeated_on(page):
            assert tile.superpixel_id in known[page.proposed]
            seen.append(tile.superpixel_id)
        asked = [tile.superpixel_id for tile in page.tiles if not tile.repeated]
        assert not set(asked) & {*cats, *dogs}
    assert seen
    assert len(set(seen)) == len(seen)
    assert len([page for page in found if repeated_on(page)]) == min(len(found), len(seen))


def test_a_superpixel_is_repeated_once(store, pages):
    teach(store)
    seen = [tile.superpixel_id for page in pages() for tile in repeated_on(page)]
    again = [tile.superpixel_id for page in pages() for tile in repeated_on(page)]
    assert seen
    assert not set(seen) & set(again)


def test_none_are_repeated_where_that_is_set(store, settings, pages):
    settings.repeats = 0.0
    teach(store)
    assert not any(repeated_on(page) for page in pages())


@pytest.mark.parametrize("overlooked", [True, False])
def test_what_is_said_of_a_repeated_tile_changes_nothing(store, project, pages, overlooked):
    teach(store)
    page = next(page for page in pages() if repeated_on(page))
    (wrong,) = repeated_on(page)
    with store.reading() as session:
        image = session.get_one(Image, session.get_one(Superpixel, wrong.superpixel_id).image_id)
    before = label_map(store, project, image.key)
    answered = judged(store, project).resolved[wrong.superpixel_id].id
    ticked = {tile.position for tile in page.tiles if overlooked or not tile.repeated}
    entries = say_to_page(store, page.id, 900, ticked, minute=99)
    (entry,) = [entry for entry in entries if entry.position == wrong.position]
    assert entry.kind == EntryKind.REPEATED
    assert entry.class_id == (page.proposed if overlooked else None)
    now = judged(store, project)
    assert now.resolved[wrong.superpixel_id].id == answered
    assert len(now.resolved) == 8 + len(page.tiles) - 1
    with store.reading() as session:
        asked = select(Superpixel.image_id).where(
            Superpixel.id.in_([tile.superpixel_id for tile in page.tiles])
        )
        alone = session.scalars(asked).all().count(image.id) == 1
    changed = label_map(store, project, image.key) != before
    assert not (alone and changed.any())


def test_a_skipped_page_says_nothing_of_its_repeated_tile(store, project, pages):
    teach(store)
    page = next(page for page in pages() if repeated_on(page))
    say_to_page(store, page.id, 900, None, minute=99)
    with store.reading() as session:
        kinds = {entry.kind for entry in ledger.standing(session, project) if entry.position}
    assert kinds == {EntryKind.SKIP}
    with store.reading() as session:
        assert not is_due(session, session.get_one(Round, 1))


def test_a_page_that_asked_earlier_is_no_page_that_repeats(store, settings, pages):
    """A tile that was asked about, and answered since, comes again on a page of its own."""
    settings.repeats = 0.0
    asked = {page.key: [tile.superpixel_id for tile in page.tiles] for page in pages()}
    teach(store)
    settings.repeats = 1.0
    for page in pages():
        for tile in repeated_on(page):
            assert tile.superpixel_id not in asked.get(page.key, [])
