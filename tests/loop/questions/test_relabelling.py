"""The machine on its own word: what is asked at random, what it may write, what it takes back."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import select

from alc_backend.loop.annotations import history
from alc_backend.loop.leases import Lease
from alc_backend.loop.questions import asking, planning
from alc_backend.loop.questions.relabelling import relabel
from alc_backend.store import ledger, recording, upkeep
from alc_backend.store.kinds import Removal
from alc_backend.store.machine import MACHINE
from alc_backend.store.models import LedgerEntry, Part, Query, Round, Superpixel, utc_now
from alc_backend.store.pages import Page
from tests.annotations import (
    CAT,
    DOG,
    QUERY_PROJECT,
    label_map,
    label_studio_of,
)
from tests.plans import plan, write_traits


@pytest.fixture
def settings(settings):
    settings.relabel = "audited"
    settings.relabel_precision = 0.7
    return settings


def audits(store, *, opened=True):
    """The questions drawn at random, those ``opened`` without an answer, by superpixel."""
    with store.reading() as session:
        by_people = select(LedgerEntry.superpixel_id).where(LedgerEntry.annotator != MACHINE)
        answered = set(session.scalars(by_people))
        found = session.scalars(select(Query).where(Query.audited.is_not(None)).order_by(Query.id))
        return {
            query.superpixel_id: query.audited
            for query in found
            if not (opened and query.superpixel_id in answered)
        }


def answer(store, superpixels, class_id, first=1):
    """Somebody says of each superpixel (row id) what it is."""
    for number, superpixel_id in enumerate(superpixels, start=first):
        with store.session() as session:
            asked = select(Query).where(Query.superpixel_id == superpixel_id)
            query, now = session.scalars(asked).one(), utc_now()
            recording.record(session, query, recording.Reply(number, class_id, "7", 2.0, now, now))


def machine(store, project):
    """The superpixels (row ids) of each batch in force, by the batch's number."""
    with store.reading() as session:
        batches: dict[int, set[int | None]] = {}
        for entry in ledger.standing(session, project):
            if entry.kind == "machine":
                batches.setdefault(-entry.annotation_id, set()).add(entry.superpixel_id)
        return batches


def earn(store, count=9):
    """Plan, and answer that the machine was right, until it has earned its word."""
    plan(store)
    first = 1
    while first <= count:
        some = list(audits(store))[: count + 1 - first]
        answer(store, some, DOG, first)
        first += len(some)
        plan(store)


def dogs(store):
    with store.reading() as session:
        return set(session.scalars(select(Superpixel.id).where(Superpixel.number == 2)))


def test_off_draws_nothing_and_writes_nothing(store, project, settings):
    settings.relabel = "off"
    plan(store)
    assert audits(store) == {}
    assert machine(store, project) == {}


def test_a_plan_asks_every_tenth_at_random(store, project):
    made, *_ = plan(store)
    drawn = audits(store)
    assert set(drawn.values()) == {DOG}
    assert set(drawn) <= dogs(store)
    with store.reading() as session:
        tiles = [
            tile.superpixel_id for page in session.scalars(select(Page)) for tile in page.tiles
        ]
        queries = session.scalars(select(Query)).all()
    assert set(made.queries) == {query.id for query in queries}
    assert not set(drawn) & set(tiles)
    assert len(drawn) == round((len(queries) + len(tiles)) / 10)
    plan(store)
    assert audits(store) == drawn  # the same ones until somebody answers


def test_one_that_is_not_answered_yet_measures_nothing(store, project):
    plan(store)
    plan(store)
    assert machine(store, project) == {}


def test_a_class_that_people_confirm_is_written(store, project):
    before = label_map(store, project, "i00")
    earn(store, 8)  # 0.7^8 is above 0.05
    assert machine(store, project) == {}
    answer(store, list(audits(store))[:1], DOG, first=9)
    plan(store)
    answered = set(audits(store, opened=False)) - set(audits(store))
    assert len(answered) == 9
    assert machine(store, project) == {1: dogs(store) - answered}
    labels = label_map(store, project, "i00")
    changed = labels != before
    assert (labels[changed] == DOG).all()
    assert changed.any()


def test_planning_again_writes_nothing_more(store, project):
    earn(store)
    with store.reading() as session:
        position = ledger.position(session, project)
    made, round_, lease = plan(store)
    relabel(store, round_, made, lease)
    with store.reading() as session:
        assert ledger.position(session, project) == position
        assert not planning.is_due(session, round_)


def test_what_was_written_is_still_asked_and_teaches_nothing(store, project):
    earn(store)
    (batch,) = machine(store, project).values()
    made, *_ = plan(store)
    assert len(made.learnt.known.members) == 9
    with store.reading() as session:
        tiles = {
            tile.superpixel_id for page in session.scalars(select(Page)) for tile in page.tiles
        }
    assert batch & (tiles | set(audits(store)))
    assert audits(store)  # and it is measured on


def test_later_answers_take_all_of_it_back(store, project):
    before = label_map(store, project, "i00")
    earn(store)
    assert machine(store, project)
    answer(store, list(audits(store))[:2], CAT, first=20)
    plan(store)
    assert machine(store, project) == {}
    with store.reading() as session:
        withdrawn = session.scalars(select(LedgerEntry).where(LedgerEntry.kind == "deleted")).all()
        assert {entry.annotator for entry in withdrawn} == {"machine"}
        assert not planning.is_due(session, session.get_one(Round, 1))
    assert np.array_equal(label_map(store, project, "i00"), before)


def test_switched_off_it_still_takes_back(store, project, settings):
    earn(store)
    some = list(audits(store))[:2]
    settings.relabel = "off"
    answer(store, some, CAT, first=20)
    plan(store)
    assert machine(store, project) == {}


def test_what_somebody_undid_stays_undone_in_this_round(store, project):
    earn(store)
    with store.session() as session:
        entry = session.scalars(select(LedgerEntry).where(LedgerEntry.kind == "machine")).first()
    history.revert(store, no_client, project, entry.id)
    plan(store)
    assert machine(store, project) == {}


def test_what_was_taken_back_is_written_again_once_it_is_earned_again(store, project):
    earn(store)
    some = list(audits(store))
    answer(store, some[:1], CAT, first=20)
    plan(store)
    assert machine(store, project) == {}  # 9 of 10
    answer(store, some[1:5], DOG, first=30)
    plan(store)
    assert set(machine(store, project)) == {2}  # 13 of 14


def test_what_people_said_or_painted_is_left_alone(store, project):
    earn(store, 8)
    left = sorted(dogs(store) - set(audits(store, opened=False)))
    with store.session() as session:
        pixels = {"number": 2, "from": CAT, "to": DOG, "pixels": 3, "most": False}
        touched, gone = session.get_one(Superpixel, left[0]), session.get_one(Superpixel, left[1])
        now = utc_now() + timedelta(hours=-1)
        changes = [{"superpixel": touched.id, **pixels}]
        recording.record_edit(
            session, touched.image, recording.Edit(50, "7", 1.0, now, now, False, changes)
        )
        upkeep.set_removed(session, project, {gone.image_id: Removal.BY_HAND})
    answer(store, list(audits(store))[:1], DOG, first=9)
    plan(store)
    (batch,) = machine(store, project).values()
    assert batch
    assert not batch & set(left[:2])


def test_a_ruled_out_class_is_not_written(store, project):
    earn(store, 8)
    with store.session() as session:
        page = session.scalars(select(Page).where(Page.proposed == DOG)).first()
        refused = {tile.superpixel_id for tile in page.tiles}
        now = utc_now()
        reply = recording.Reply(60, DOG, "7", 9.0, now, now)
        recording.record_page(session, page, reply, set(), again=False)
    answer(store, list(audits(store))[:1], DOG, first=9)
    plan(store)
    assert all(not batch & refused for batch in machine(store, project).values())


def no_client():
    raise AssertionError("Label Studio was asked")


def next_round(store, project):
    """The next round opens, whose network saw the machine's labels."""
    batches = machine(store, project)
    with store.session() as session:
        old = session.get_one(Round, 1)
        new = Round(
            project_id=project, number=2, state="open", config=old.config, opened_at=utc_now()
        )
        session.add_all(
            Part(round=new, step=step, number=0, work={"images": [1]}, claimed_by="me", claims=1)
            for step in ("scoring", "planning")
        )
        ids = session.scalars(select(Superpixel.id).order_by(Superpixel.id)).all()
    on_its_word = {row_id for batch in batches.values() for row_id in batch}
    labels = np.array([DOG if row_id in on_its_word else CAT for row_id in ids], dtype=np.uint8)
    write_traits(store, project, number=2, labels=labels)


def test_a_new_round_keeps_what_was_earned_and_goes_on_measuring_it(store, project):
    earn(store)
    kept = machine(store, project)
    next_round(store, project)
    plan(store, 2)
    assert machine(store, project) == kept
    with store.reading() as session:
        drawn = session.scalars(
            select(Query).where(Query.audited.is_not(None), Query.round_id == 2)
        ).all()
    again = [query.superpixel_id for query in drawn if query.superpixel_id in kept[1]]
    assert again
    answer(store, again[:3], CAT, first=70)
    plan(store, 2)
    assert machine(store, project) == {}


def test_the_chore_of_planning_writes_and_tells_label_studio_nothing_of_it(
    store, project, monkeypatch
):
    earn(store, 8)
    answer(store, list(audits(store))[:1], DOG, first=9)
    label_studio = label_studio_of(store)
    label_studio.serve(monkeypatch)
    with store.reading() as session:
        round_ = session.get_one(Round, 1)
        lease = Lease(store, session.scalars(select(Part).where(Part.step == "planning")).one())
    asking.plan_next(store, round_, lease, lambda done, total, message: None)
    assert machine(store, project)[1]
    assert not [one for one in label_studio.writes if "/annotations" in one.path]
    # An audit looks like any other question.
    data = [task.data for task in label_studio.tasks_of(QUERY_PROJECT)]
    assert data
    assert "audit" not in str(data)
