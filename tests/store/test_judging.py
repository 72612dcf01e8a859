"""What the ledger makes of several annotators, and of masks that were changed by hand."""

from __future__ import annotations

import itertools
from datetime import timedelta

import numpy as np
import pytest

from alc_backend.store import recording, upkeep
from alc_backend.store.files import encode_edit
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

ANN, BEN, CAY = "1", "2", "3"


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset, overlap=2)


@pytest.fixture
def judge_asked(store, project):
    """The adjudication query about the dog that is called a cat."""
    first = query_of(store, "a", 2)
    shown = {
        name: getattr(first, name)
        for name in ("superpixel_id", "round_id", "row", "col", "pseudo_label", "score", "rank")
    }
    with store.session() as session:
        session.add(Query(**shown, adjudication=True, proposed=[CAT, DOG], task_id=900))
    return query_of(store, "a", 2, adjudication=True)


class Annotators:
    """Says things about superpixel 2 of image a, one a minute; a dog that is called a cat."""

    def __init__(self, store, project):
        self.store, self.project = store, project
        self.clock = itertools.count()

    def say(self, annotator, class_id, number=None, *, query=None, minute=None, revised=0.0):
        minute = next(self.clock) if minute is None else minute
        number = number or 1000 + minute
        reply = recording.Reply(
            annotation_id=number,
            class_id=class_id,
            annotator=annotator,
            lead_time=1.0,
            answered_at=NOON + timedelta(minutes=minute),
            updated_at=NOON + timedelta(minutes=minute + revised),
        )
        query = query or query_of(self.store, "a", 2)
        with self.store.session() as session:
            recording.record(session, session.get_one(Query, query.id), reply)
        return number

    def withdraw(self, number):
        with self.store.session() as session:
            recording.withdraw(session, self.project, number)

    def ask(self, overlap):
        with self.store.session() as session:
            upkeep.set_overlap(session, self.project, overlap)

    @property
    def state(self):
        found = judged(self.store, self.project)
        return {
            name: bool(getattr(found, name))
            for name in ("resolved", "disputed", "waiting", "edited")
            if getattr(found, name)
        }

    @property
    def written(self):
        """The class of superpixel 2 in the label map."""
        labels = label_map(self.store, self.project)
        superpixels = self.store.files(self.project).read_superpixels(image_of(self.store, "a").id)
        (found,) = np.unique(labels[superpixels == 2]).tolist()
        return found


@pytest.fixture
def people(store, project):
    return Annotators(store, project)


def test_agreement_resolves_and_writes(people):
    people.say(ANN, DOG)
    people.say(BEN, DOG)
    assert (people.state, people.written) == ({"resolved": True}, DOG)


def test_one_annotator_of_two_waits_and_writes_nothing(people):
    people.say(ANN, DOG)
    assert (people.state, people.written) == ({"waiting": True}, CAT)


def test_answering_twice_is_still_one_annotator(people):
    people.say(ANN, DOG)
    people.say(ANN, DOG)
    assert (people.state, people.written) == ({"waiting": True}, CAT)


def test_disagreement_disputes_and_writes_nothing(people, store, project):
    people.say(ANN, DOG)
    people.say(BEN, BACKGROUND)
    assert (people.state, people.written) == ({"disputed": True}, CAT)
    assert list(judged(store, project).disputed.values()) == [(DOG, BACKGROUND)]
    assert judged(store, project).settled == set()


def test_a_third_annotator_cannot_outvote_a_dispute(people):
    for annotator, class_id in ((ANN, DOG), (BEN, CAT), (CAY, DOG)):
        people.say(annotator, class_id)
    assert (people.state, people.written) == ({"disputed": True}, CAT)


def test_the_latest_adjudication_settles(people, judge_asked):
    people.say(ANN, CAT)
    people.say(BEN, BACKGROUND)
    people.say(CAY, BACKGROUND, query=judge_asked)
    people.say(CAY, DOG, query=judge_asked)
    assert (people.state, people.written) == ({"resolved": True}, DOG)
    people.say(ANN, BACKGROUND)  # whatever annotators say later
    assert (people.state, people.written) == ({"resolved": True}, DOG)


def test_a_skipped_adjudication_settles_nothing(people, judge_asked):
    people.say(ANN, CAT)
    people.say(BEN, DOG)
    people.say(CAY, None, query=judge_asked)
    assert people.state == {"disputed": True}


def test_a_withdrawn_adjudication_leaves_the_dispute(people, judge_asked):
    people.say(ANN, CAT)
    people.say(BEN, BACKGROUND)
    settling = people.say(CAY, DOG, query=judge_asked)
    people.withdraw(settling)
    assert (people.state, people.written) == ({"disputed": True}, CAT)


def test_a_withdrawn_vote_ends_the_dispute(people):
    people.say(ANN, DOG)
    people.withdraw(people.say(BEN, CAT))
    assert people.state == {"waiting": True}
    people.say(CAY, DOG)
    assert (people.state, people.written) == ({"resolved": True}, DOG)


@pytest.mark.parametrize("same_annotation", [True, False])
def test_an_annotator_may_come_round_to_the_other_view(people, same_annotation):
    first = people.say(ANN, CAT, minute=0)
    people.say(BEN, DOG, minute=1)
    if same_annotation:
        people.say(ANN, DOG, first, minute=0, revised=5)
    else:
        people.say(ANN, DOG, minute=2)
    assert (people.state, people.written) == ({"resolved": True}, DOG)


def test_an_annotator_may_break_an_agreement(people):
    people.say(ANN, DOG, minute=0)
    second = people.say(BEN, DOG, minute=1)
    people.say(BEN, CAT, second, minute=1, revised=5)
    assert (people.state, people.written) == ({"disputed": True}, CAT)


def test_skips_do_not_count(people):
    people.say(ANN, DOG)
    people.say(BEN, None)
    assert people.state == {"waiting": True}
    people.say(ANN, None)  # another task of the same superpixel
    people.say(CAY, DOG)
    assert (people.state, people.written) == ({"resolved": True}, DOG)


def test_a_vote_that_becomes_a_skip_does_not_count(people):
    first = people.say(ANN, CAT, minute=0)
    people.say(BEN, DOG, minute=1)
    people.say(ANN, None, first, minute=0, revised=3)
    assert people.state == {"waiting": True}


def test_single_answers_stay_resolved_when_two_annotators_are_asked(people):
    people.ask(1)
    people.say(ANN, DOG)
    people.ask(2)
    assert (people.state, people.written) == ({"resolved": True}, DOG)
    people.say(BEN, CAT)
    assert (people.state, people.written) == ({"disputed": True}, CAT)


def test_a_single_answer_and_a_second_that_agrees_are_resolved(people):
    people.ask(1)
    people.say(ANN, DOG)
    people.ask(2)
    people.say(BEN, DOG)
    assert (people.state, people.written) == ({"resolved": True}, DOG)


def test_revising_a_single_answer_does_not_ask_for_a_second(people):
    people.ask(1)
    first = people.say(ANN, CAT, minute=0)
    people.ask(2)
    people.say(ANN, DOG, first, minute=0, revised=5)
    assert (people.state, people.written) == ({"resolved": True}, DOG)


def test_asking_one_annotator_again_the_latest_answer_wins(people):
    people.say(ANN, DOG)
    people.say(BEN, BACKGROUND)
    people.ask(1)
    assert (people.state, people.written) == ({"resolved": True}, BACKGROUND)


def test_every_order_of_arrival_gives_the_same_judgement(people, store, project, judge_asked):
    said = [(ANN, DOG, None), (BEN, CAT, None), (CAY, DOG, judge_asked), (ANN, BACKGROUND, None)]
    for turn, order in enumerate(itertools.permutations(range(4))):
        numbers = []
        for index in order:
            annotator, class_id, query = said[index]
            number = 100 * (turn + 1) + index
            numbers.append(people.say(annotator, class_id, number, query=query, minute=index))
        assert (people.state, people.written) == ({"resolved": True}, DOG)
        people.withdraw(100 * (turn + 1) + 2)
        assert people.state == {"disputed": True}
        assert list(judged(store, project).disputed.values()) == [(CAT, BACKGROUND)]
        for number in numbers:
            people.withdraw(number)


# Masks changed by hand, over and under answers.


@pytest.fixture
def edit(store, project):
    """Write a class over some rows of image a by hand; superpixel 2 are rows 24 to 39."""

    def edit(number, class_id, *, minute=0.0, revised=0.0, rows=slice(24, 40)):
        image_id = image_of(store, "a").id
        superpixels = store.files(project).read_superpixels(image_id)
        changed = np.zeros(superpixels.shape, dtype=bool)
        changed[rows, 32:56] = class_id is not None
        superpixel = query_of(store, "a", 2).superpixel_id
        about = {"superpixel": superpixel, "number": 2, "from": CAT, "to": class_id}
        pixels = int(changed.sum())
        given = recording.Edit(
            annotation_id=number,
            annotator=ANN,
            lead_time=1.0,
            answered_at=NOON + timedelta(minutes=minute),
            updated_at=NOON + timedelta(minutes=minute + revised),
            skipped=False,
            changes=[{**about, "pixels": pixels, "most": 2 * pixels > 384}] if pixels else [],
        )
        with store.session() as session:
            entry = recording.record_edit(session, session.get_one(Image, image_id), given)
            if entry is not None:
                labels = np.full(superpixels.shape, class_id or 0, dtype=np.uint8)
                content = encode_edit(labels, changed)
                store.files(project).write_edit(number, entry.revision, content)
        return entry is not None

    return edit


def test_a_superpixel_mostly_changed_by_hand_is_not_asked_about(people, store, project, edit):
    edit(1, DOG, rows=slice(24, 32))  # half of it
    assert people.state == {}
    edit(2, DOG, minute=1, rows=slice(24, 33))
    assert people.state == {"edited": True}
    assert judged(store, project).settled == {query_of(store, "a", 2).superpixel_id}
    people.withdraw(2)
    assert people.state == {}


def test_edits_and_corrections_are_written_in_the_order_they_were_made(people, edit):
    people.ask(1)
    edit(1, BACKGROUND, minute=5)
    people.say(ANN, DOG, 2, minute=10)
    assert people.written == DOG
    edit(3, CAT, minute=15)
    assert people.written == CAT
    people.withdraw(3)
    assert people.written == DOG
    people.withdraw(2)
    assert people.written == BACKGROUND
    people.withdraw(1)
    assert people.written == CAT


def test_an_edit_counts_from_when_it_was_last_submitted(people, edit):
    people.ask(1)
    edit(1, BACKGROUND, minute=0)
    people.say(ANN, DOG, 2, minute=10)
    edit(1, BACKGROUND, minute=0, revised=20)
    assert people.written == BACKGROUND


def test_an_answer_counts_from_when_it_was_given_though_revised_later(people, edit):
    people.ask(1)
    people.say(ANN, CAT, 2, minute=0)
    edit(1, BACKGROUND, minute=10)
    people.say(ANN, DOG, 2, minute=0, revised=20)
    assert people.written == BACKGROUND


def test_the_last_revision_of_an_edit_counts_also_when_it_comes_first(people, edit):
    assert edit(1, DOG, minute=0, revised=5)
    assert not edit(1, BACKGROUND, minute=0)
    assert not edit(1, BACKGROUND, minute=0, revised=5)
    assert people.written == DOG


def test_an_edit_undone_by_its_annotator_has_no_effect(people, edit):
    edit(1, DOG)
    assert edit(1, None, revised=5)
    assert (people.state, people.written) == ({}, CAT)


def test_a_withdrawn_edit_does_not_come_back(people, store, edit):
    edit(2, DOG)
    people.withdraw(2)
    assert not edit(2, DOG, revised=9)
    assert people.written == CAT
    assert [entry.kind for entry in entries(store)] == ["edit", "deleted"]


def test_hidden_answers_are_void_even_over_edits(people, store, project, edit):
    people.ask(1)
    people.say(ANN, DOG, 2, minute=0)
    edit(1, CAT, minute=5, rows=slice(20, 30))
    superpixel = query_of(store, "a", 2).superpixel_id
    shown, hidden = label_map(store, project), label_map(store, project, hidden={superpixel})
    inside = store.files(project).read_superpixels(image_of(store, "a").id) == 2
    assert set(np.unique(shown[inside])) == {CAT, DOG}
    assert (hidden[inside] == 255).all()
    assert np.array_equal(hidden[~inside], shown[~inside])
