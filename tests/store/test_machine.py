"""What the machine writes by itself: over the label maps, and never an answer."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from alc_backend.store import ledger, recording, standing, upkeep
from alc_backend.store.files import encode_edit
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Query, Round, utc_now
from tests.annotations import (
    BACKGROUND,
    CAT,
    DOG,
    asked_project,
    entries,
    image_of,
    judged,
    label_map,
    query_of,
    round_config,
)
from tests.conftest import BOTH_DATABASES
from tests.machine import write_batch
from tests.pages import add_page, say_to_page

pytestmark = BOTH_DATABASES


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


def say(store, place, number, class_id, *, by="7"):
    """Somebody answers a single question an hour after now."""
    moment, query_id = utc_now() + timedelta(hours=1), query_of(store, *place).id
    with store.session() as session:
        query = session.get_one(Query, query_id)
        reply = recording.Reply(number, class_id, by, 2.5, moment, moment)
        recording.record(session, query, reply)


def maps_of(store, project):
    with store.reading() as session:
        return LabelMaps(session, store.files(project), project)


def withdraw(store, project, number):
    with store.session() as session:
        return recording.withdraw(session, project, number)


def pixels(store, project, number, key="a"):
    return store.files(project).read_superpixels(image_of(store, key).id) == number


def test_a_batch_is_written_like_a_page(store, project):
    assert write_batch(store, project) == 1
    assert write_batch(store, project, [("c", 2)]) == 2
    assert write_batch(store, project, []) is None
    told = [
        (e.annotation_id, e.position, e.kind, e.class_id, e.proposed, e.annotator, e.lead_time)
        for e in entries(store)
    ]
    assert told == [
        (-1, 1, "machine", DOG, DOG, "machine", None),
        (-1, 2, "machine", DOG, DOG, "machine", None),
        (-2, 1, "machine", DOG, DOG, "machine", None),
    ]
    assert {(e.label_studio_project, e.task_id) for e in entries(store)} == {(None, None)}


def test_it_writes_its_superpixels_and_a_withdrawn_batch_leaves_no_trace(store, project):
    before, named = label_map(store, project), maps_of(store, project).version(1)
    write_batch(store, project)
    after, dog = label_map(store, project), pixels(store, project, 2)
    assert (after[dog] == DOG).all()
    assert np.array_equal(after[~dog], before[~dog])
    maps = maps_of(store, project)
    assert maps.version(1) != named
    labels, authors, writers = maps.read_with_authors(image_of(store, "a").id)
    assert np.array_equal(labels, after)
    assert np.array_equal(authors == 1, dog)
    assert [writer.kind for writer in writers] == ["machine"]

    assert len(withdraw(store, project, -1)) == 2
    assert np.array_equal(label_map(store, project), before)
    assert maps_of(store, project).version(1) == named
    assert withdraw(store, project, -1) == []


def test_it_reaches_as_far_as_an_answer(store, project):
    with store.session() as session:
        session.get_one(Round, 1).config = round_config(epsilon=0.5)
    reached = np.zeros((48, 64), dtype=np.bool_)
    reached[:, 40:] = True
    store.files(project).write_reach(1, image_of(store, "a").id, reached)
    before = label_map(store, project)
    write_batch(store, project, [("a", 2)])
    changed = label_map(store, project) != before
    assert np.array_equal(changed, pixels(store, project, 2) & reached)


def test_it_is_no_answer_and_no_vote(store, project):
    with store.session() as session:
        upkeep.set_overlap(session, project, 2)
    write_batch(store, project)
    place = query_of(store, "a", 2).superpixel_id
    found = judged(store, project)
    assert (found.resolved, found.settled, found.waiting, found.disputed) == ({}, set(), set(), {})
    assert place in found.rests_on_machine
    assert maps_of(store, project).answers == 0
    with store.reading() as session:
        assert list(standing.resolved_at(session, project, ledger.position(session, project))) == []

    say(store, ("a", 2), 1, CAT, by="7")  # one of two: the machine is not the second
    assert judged(store, project).waiting == {place}
    say(store, ("a", 2), 2, CAT, by="8")
    assert judged(store, project).resolved[place].class_id == CAT
    assert place not in judged(store, project).rests_on_machine


@pytest.mark.parametrize("class_id", [BACKGROUND, CAT, DOG])
def test_any_persons_answer_replaces_it(store, project, class_id):
    write_batch(store, project)
    say(store, ("a", 2), 1, class_id)
    write_batch(store, project)  # even where the machine comes later
    assert (label_map(store, project)[pixels(store, project, 2)] == class_id).all()
    withdraw(store, project, 1)
    assert (label_map(store, project)[pixels(store, project, 2)] == DOG).all()


def test_a_class_that_a_person_rules_out_is_not_written(store, project):
    before = label_map(store, project)
    write_batch(store, project)
    page = add_page(store, project, [("a", 2), ("b", 2)], proposed=DOG)
    say_to_page(store, page, 1, {2})
    assert np.array_equal(label_map(store, project), before)
    assert judged(store, project).machine == {}
    other = add_page(store, project, [("c", 2)], proposed=CAT, key="1" * 32, task_id=801)
    write_batch(store, project, [("c", 2)])
    say_to_page(store, other, 2, set())  # no cat; it may well be a dog
    assert (label_map(store, project, "c")[pixels(store, project, 2, "c")] == DOG).all()


def test_what_a_person_painted_later_stays(store, project):
    write_batch(store, project, [("a", 2)])
    image = image_of(store, "a")
    moment = utc_now() + timedelta(hours=1)
    change = {
        "superpixel": query_of(store, "a", 2).superpixel_id,
        "number": 2, "from": DOG, "to": BACKGROUND, "pixels": 4, "most": False,
    }  # fmt: skip
    with store.session() as session:
        edit = recording.Edit(9, "7", 1.0, moment, moment, skipped=False, changes=[change])
        entry = recording.record_edit(session, image, edit)
        assert entry is not None
        labels = np.full((48, 64), BACKGROUND, dtype=np.uint8)
        painted = np.zeros((48, 64), dtype=np.bool_)
        painted[30:32, 40:42] = True
        store.files(project).write_edit(9, entry.revision, encode_edit(labels, painted))
    found, dog = label_map(store, project), pixels(store, project, 2)
    assert (found[painted] == BACKGROUND).all()
    assert (found[dog & ~painted] == DOG).all()


def test_a_withdrawn_batch_keeps_its_number(store, project):
    write_batch(store, project)
    withdraw(store, project, -1)
    assert write_batch(store, project) == 2  # a number is never given twice
