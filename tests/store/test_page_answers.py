"""What the ledger makes of pages of look-alikes, tile by tile."""

from __future__ import annotations

import itertools
from datetime import timedelta

import numpy as np
import pytest

from alc_backend.store import ledger, recording, upkeep
from alc_backend.store.models import Image, Query
from tests.annotations import (
    BACKGROUND,
    CAT,
    DOG,
    NOON,
    asked_project,
    entries,
    image_of,
    judged,
    label_map,
    query_of,
)
from tests.pages import PLACES, add_page, say_to_page


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def page(store, project):
    """A page that asks of each of three superpixels, labelled cat, whether it is a dog."""
    return add_page(store, project, proposed=DOG)


def told(found):
    return [(entry.position, entry.kind, entry.class_id) for entry in found]


def standing(store, project):
    with store.reading() as session:
        return told(ledger.standing(session, project))


def answer_singly(store, place, number, class_id, *, by="7", minute=0.0, again=False):
    query_id = query_of(store, *place).id
    with store.session() as session:
        reply = recording.Reply(
            annotation_id=number,
            class_id=class_id,
            annotator=by,
            lead_time=2.5,
            answered_at=NOON + timedelta(minutes=minute),
            updated_at=NOON + timedelta(minutes=minute),
        )
        return recording.record(session, session.get_one(Query, query_id), reply, again=again)


def withdraw(store, project, number):
    with store.session() as session:
        return recording.withdraw(session, project, number)


def settled(store, project):
    """The superpixels of the page, by position, that have an answer, and its class."""
    resolved = judged(store, project).resolved
    classes = {}
    for position, place in enumerate(PLACES, start=1):
        answer = resolved.get(query_of(store, *place).superpixel_id)
        if answer is not None:
            classes[position] = answer.class_id
    return classes


def test_each_tile_is_an_answer_of_its_own(store, project, page):
    found = say_to_page(store, page, 1, {1, 3})
    assert told(found) == [(1, "correct", DOG), (2, "ruled out", None), (3, "correct", DOG)]
    assert [entry.proposed for entry in found] == [DOG] * 3
    assert [(entry.row, entry.col, entry.pseudo_label) for entry in found] == [
        (11, 12, CAT), (12, 12, CAT), (13, 12, CAT)
    ]  # fmt: skip
    assert [entry.lead_time for entry in found] == [2.0] * 3  # they share the page's
    assert {(entry.annotation_id, entry.annotator, entry.task_id) for entry in found} == {
        (1, "7", 800)
    }
    assert settled(store, project) == {1: DOG, 3: DOG}


def test_a_tick_writes_the_proposed_class_and_unticking_writes_nothing(store, project, page):
    before = label_map(store, project)
    say_to_page(store, page, 1, {1})
    after = label_map(store, project)
    first = store.files(project).read_superpixels(image_of(store, "a").id) == 1
    assert (after[first] == DOG).all()
    assert np.array_equal(after[~first], before[~first])


def test_ticks_that_agree_with_the_label_accept_it(store, project):
    page = add_page(store, project, proposed=CAT)
    assert told(say_to_page(store, page, 1, {1, 2})) == [
        (1, "accept", CAT), (2, "accept", CAT), (3, "ruled out", None)
    ]  # fmt: skip


@pytest.mark.parametrize(("ticked", "kind"), [(set(), "ruled out"), (None, "skip")])
def test_nothing_ticked_is_no_skip(store, project, page, ticked, kind):
    found = say_to_page(store, page, 1, ticked)
    assert told(found) == [(position, kind, None) for position in (1, 2, 3)]
    assert settled(store, project) == {}


def test_a_page_without_a_lead_time(store, project, page):
    assert {e.lead_time for e in say_to_page(store, page, 1, {1}, lead_time=None)} == {None}


def test_the_same_answer_is_recorded_once(store, project, page):
    assert len(say_to_page(store, page, 1, {1, 3})) == 3
    assert say_to_page(store, page, 1, {1, 3}) == []
    assert len(entries(store)) == 3


def test_a_position_that_the_page_has_not_is_an_error(store, project, page):
    with pytest.raises(ValueError, match=r"page 0{32} has 3 tiles, and none 4"):
        say_to_page(store, page, 1, {1, 4})
    assert entries(store) == []


def test_a_revised_page_counts_as_it_was_last_submitted(store, project, page):
    say_to_page(store, page, 1, {1, 3})
    say_to_page(store, page, 1, {2, 3}, revised=2)
    assert standing(store, project) == [
        (1, "ruled out", None), (2, "correct", DOG), (3, "correct", DOG)
    ]  # fmt: skip
    assert [entry.revision for entry in entries(store)] == [0, 0, 0, 1, 1, 1]
    assert say_to_page(store, page, 1, {1}, revised=1) == []  # it was between the two
    assert settled(store, project) == {2: DOG, 3: DOG}


def test_a_page_that_becomes_a_skip_answers_nothing(store, project, page):
    say_to_page(store, page, 1, {1})
    say_to_page(store, page, 1, None, revised=1)
    assert standing(store, project) == [(position, "skip", None) for position in (1, 2, 3)]


def test_a_withdrawn_page_loses_every_tile_for_good(store, project, page):
    before = label_map(store, project)
    say_to_page(store, page, 1, {1, 3})
    gone = withdraw(store, project, 1)
    assert told(gone) == [(position, "deleted", None) for position in (1, 2, 3)]
    assert [entry.proposed for entry in gone] == [DOG] * 3
    assert withdraw(store, project, 1) == []
    assert say_to_page(store, page, 1, {1}, revised=3) == []  # a late duplicate
    assert (standing(store, project), settled(store, project)) == ([], {})
    assert np.array_equal(label_map(store, project), before)


def test_label_studio_says_again_that_a_withdrawn_page_is_there(store, project, page):
    say_to_page(store, page, 1, {1})
    withdraw(store, project, 1)
    assert len(say_to_page(store, page, 1, {1}, again=True)) == 3
    assert settled(store, project) == {1: DOG}


# A Label Studio restored from a dump gives its numbers again.


def test_a_pages_number_is_given_to_a_single_question(store, project, page):
    say_to_page(store, page, 1, {1, 2, 3})
    assert answer_singly(store, ("b", 2), 1, DOG, minute=5).revision == 0
    assert standing(store, project) == [(0, "correct", DOG)]
    assert settled(store, project) == {}


def test_a_single_questions_number_is_given_to_a_page(store, project, page):
    answer_singly(store, ("b", 2), 1, DOG)
    say_to_page(store, page, 1, {1}, minute=5)
    assert standing(store, project) == [
        (1, "correct", DOG), (2, "ruled out", None), (3, "ruled out", None)
    ]  # fmt: skip
    assert settled(store, project) == {1: DOG}


def test_a_pages_number_is_given_to_a_shorter_page(store, project, page):
    say_to_page(store, page, 1, {1, 2, 3})
    other = add_page(store, project, [("c", 1), ("c", 2)], key="1" * 32, task_id=801)
    say_to_page(store, other, 1, {1, 2}, minute=5)
    assert standing(store, project) == [(1, "accept", CAT), (2, "accept", CAT)]
    assert settled(store, project) == {}


def test_a_pages_number_is_given_to_an_edit(store, project, page):
    say_to_page(store, page, 1, {1, 2, 3})
    edit = recording.Edit(
        annotation_id=1,
        annotator="7",
        lead_time=1.0,
        answered_at=NOON + timedelta(minutes=5),
        updated_at=NOON + timedelta(minutes=5),
        skipped=False,
        changes=[],
    )
    image_id = image_of(store, "a").id
    with store.session() as session:
        image = session.get_one(Image, image_id)
        assert recording.record_edit(session, image, edit) is not None
    assert standing(store, project) == [(0, "edit", None)]
    assert settled(store, project) == {}


def test_what_was_withdrawn_of_a_number_does_not_hide_who_has_it_now(store, project, page):
    """The single answer is a first revision; that of the page before it were more."""
    say_to_page(store, page, 1, {1})
    say_to_page(store, page, 1, {2}, revised=1)
    answer_singly(store, ("b", 2), 1, DOG, minute=5)
    assert standing(store, project) == [(0, "correct", DOG)]
    assert len(judged(store, project).resolved) == 1


# Together with other answers.


def test_tiles_are_replayed_by_when_their_page_was_answered(store, project, page):
    answer_singly(store, ("a", 2), 5, BACKGROUND, minute=2)
    say_to_page(store, page, 9, {1, 2}, minute=1)
    with store.reading() as session:
        found = ledger.standing(session, project)
    assert [(entry.annotation_id, entry.position) for entry in found] == [
        (9, 1), (9, 2), (9, 3), (5, 0)
    ]  # fmt: skip
    assert settled(store, project) == {1: DOG, 2: BACKGROUND}


def test_ruling_out_takes_no_answer_back(store, project, page):
    answer_singly(store, ("a", 2), 5, DOG, minute=0)
    say_to_page(store, page, 6, set(), minute=1)
    assert settled(store, project) == {2: DOG}


def test_every_order_of_arrival_gives_the_same_standing(store, project, page):
    def say(what, turn):
        number = 10 * turn + what
        if what == 1:
            say_to_page(store, page, number, {1, 2}, minute=1)
        elif what == 2:
            say_to_page(store, page, number - 1, {2, 3}, minute=1, revised=4)
        else:
            answer_singly(store, ("a", 2), number, BACKGROUND, minute=2)
        return number

    for turn, order in enumerate(itertools.permutations((1, 2, 3)), start=1):
        for what in order:
            say(what, turn)
        assert settled(store, project) == {2: BACKGROUND, 3: DOG}
        for number in (10 * turn + 1, 10 * turn + 3):
            withdraw(store, project, number)
        assert settled(store, project) == {}


@pytest.fixture
def of_two(store, project):
    with store.session() as session:
        upkeep.set_overlap(session, project, 2)


def test_of_two_annotators_one_who_unticks_is_no_vote(store, project, page, of_two):
    say_to_page(store, page, 1, {1, 2}, by="1")
    say_to_page(store, page, 2, {1}, by="2", minute=1)
    state = judged(store, project)
    places = [query_of(store, *place).superpixel_id for place in PLACES]
    assert settled(store, project) == {1: DOG}
    assert state.waiting == {places[1]}
    assert state.disputed == {}


def test_a_tick_and_a_single_answer_may_disagree(store, project, page, of_two):
    say_to_page(store, page, 1, {1}, by="1")
    answer_singly(store, ("a", 1), 2, CAT, by="2", minute=1)
    disputed = judged(store, project).disputed
    assert disputed == {query_of(store, "a", 1).superpixel_id: (DOG, CAT)}
