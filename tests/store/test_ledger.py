from __future__ import annotations

import dataclasses
import itertools
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from sqlalchemy import select

from alc_backend.store import ledger, recording
from alc_backend.store.importing import import_folder
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Image, LedgerEntry, Query, Round, Score, Superpixel
from tests.annotations import round_config
from tests.conftest import BOTH_DATABASES

pytestmark = BOTH_DATABASES

BACKGROUND, CAT, DOG = 0, 1, 2
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def add_query(store, project_id, key, number, *, epsilon=0.0, round_number=1):
    """A published query about superpixel ``number`` of image ``key``, proposing cat."""
    with store.session() as session:
        round_ = session.scalar(select(Round).where(Round.number == round_number))
        if round_ is None:
            round_ = Round(
                project_id=project_id,
                number=round_number,
                state="open",
                config=round_config(epsilon=epsilon),
            )
            session.add(round_)
            session.flush()
        superpixel = session.scalars(
            select(Superpixel).join(Image).where(Image.key == key, Superpixel.number == number)
        ).one()
        query = Query(
            superpixel_id=superpixel.id,
            round_id=round_.id,
            task_id=100 + superpixel.id,
            row=25,
            col=40,
            pseudo_label=CAT,
            score=1.0,
            rank=0,
        )
        session.add(query)
        session.flush()
        return query.id


def reply(annotation_id, class_id, *, minute=0, revised=0, annotator="7"):
    return recording.Reply(
        annotation_id=annotation_id,
        class_id=class_id,
        annotator=annotator,
        lead_time=2.5,
        answered_at=NOON + timedelta(minutes=minute),
        updated_at=NOON + timedelta(minutes=minute, seconds=revised),
    )


@pytest.fixture
def project(store, dataset):
    return import_folder(store, dataset, "pets").project_id


@pytest.fixture
def say(store, project):
    query_id = add_query(store, project, "a", 2)

    def say(given):
        with store.session() as session:
            return recording.record(session, session.get_one(Query, query_id), given) is not None

    return say


def label_map(store, project, key="a", upto=None):
    with store.reading() as session:
        image = session.scalars(select(Image).where(Image.key == key)).one()
        maps = LabelMaps(session, store.files(project), project, upto)
    return maps.read(image.id), store.files(project).read_superpixels(image.id)


def label_of_two(store, project, upto=None):
    labels, superpixels = label_map(store, project, upto=upto)
    found = np.unique(labels[superpixels == 2])
    assert len(found) == 1
    return int(found[0])


def test_a_correction_is_written_over_its_superpixel_only(store, project, say):
    before, superpixels = label_map(store, project)
    assert say(reply(1, DOG))
    after, _ = label_map(store, project)
    assert (after[superpixels == 2] == DOG).all()
    assert np.array_equal(after[superpixels != 2], before[superpixels != 2])


def test_accept_and_skip_write_nothing_but_accept_resolves(store, project, say):
    before, _ = label_map(store, project)
    say(reply(1, None))
    with store.reading() as session:
        assert ledger.judgement(session, project).resolved == {}
    say(reply(2, CAT))
    with store.reading() as session:
        assert len(ledger.judgement(session, project).resolved) == 1
    assert np.array_equal(label_map(store, project)[0], before)


def test_the_same_answer_is_recorded_once(store, project, say):
    assert say(reply(1, DOG))
    assert not say(reply(1, DOG))
    with store.reading() as session:
        assert len(session.scalars(select(LedgerEntry)).all()) == 1


def test_saving_again_without_a_change_is_newer_than_what_arrives_late(store, project, say):
    say(reply(1, DOG))
    assert say(reply(1, DOG, revised=5))
    assert not say(reply(1, BACKGROUND, revised=3))  # it was between the two
    assert label_of_two(store, project) == DOG


def test_every_order_of_arrival_gives_the_same_label_map(store, project, dataset, say):
    versions = [reply(1, DOG), reply(1, BACKGROUND, revised=10), reply(2, None, minute=1)]
    for number, order in enumerate(itertools.permutations(versions)):
        for given in order:
            say(
                recording.Reply(
                    **{**given.__dict__, "annotation_id": given.annotation_id + 10 * number}
                )
            )
        assert label_of_two(store, project) == BACKGROUND


def test_the_latest_answer_wins_even_when_it_arrives_first(store, project, say):
    say(reply(2, BACKGROUND, minute=5))
    say(reply(1, DOG, minute=1))
    assert label_of_two(store, project) == BACKGROUND


def test_accepting_an_earlier_correction_keeps_it(store, project, say):
    say(reply(1, CAT, minute=0))
    say(reply(2, DOG, minute=1))
    say(reply(3, DOG, minute=2))
    assert label_of_two(store, project) == DOG
    say(reply(4, CAT, minute=3))  # somebody accepts the pseudo label again
    assert label_of_two(store, project) == CAT


def withdraw(store, project, annotation_id):
    with store.session() as session:
        return recording.withdraw(session, project, annotation_id)


def test_a_withdrawn_annotation_loses_its_effect_for_good(store, project, say):
    say(reply(1, DOG))
    withdraw(store, project, 1)
    assert label_of_two(store, project) == CAT
    assert not say(reply(1, DOG, revised=5))  # a late duplicate of the webhook
    assert label_of_two(store, project) == CAT


def test_the_ledger_can_be_replayed_up_to_any_entry(store, project, say):
    say(reply(1, DOG))
    with store.reading() as session:
        first = ledger.position(session, project)
    say(reply(1, BACKGROUND, revised=9))
    assert label_of_two(store, project, upto=0) == CAT
    assert label_of_two(store, project, upto=first) == DOG
    assert label_of_two(store, project) == BACKGROUND


def test_with_epsilon_only_the_reached_part_is_written(store, project):
    query_id = add_query(store, project, "b", 2, epsilon=0.5, round_number=2)
    labels, superpixels = label_map(store, project, "b")
    reached = np.zeros_like(superpixels, dtype=bool)
    reached[24:30] = True
    with store.session() as session:
        image = session.scalars(select(Image).where(Image.key == "b")).one()
        store.files(project).write_reach(2, image.id, reached)
        recording.record(session, session.get_one(Query, query_id), reply(9, DOG))
    after, _ = label_map(store, project, "b")
    written = (superpixels == 2) & reached
    assert (after[written] == DOG).all()
    assert np.array_equal(after[~written], labels[~written])


def reaches(store, number, key, rows):
    """Let a round above ε = 0 reach some rows of an image."""
    with store.session() as session:
        image = session.scalars(select(Image).where(Image.key == key)).one()
        reached = np.zeros((image.height, image.width), dtype=bool)
        reached[rows] = True
        store.files(image.project_id).write_reach(number, image.id, reached)
    return reached


def test_an_accept_at_a_void_pixel_writes_no_more_than_is_reached(store, project):
    """The network's guess was asked about, for the pixel had no label."""
    query_id = add_query(store, project, "b", 2, epsilon=0.5, round_number=2)
    reached = reaches(store, 2, "b", slice(24, 30))
    with store.session() as session:
        image = session.scalars(select(Image).where(Image.key == "b")).one()
        files = store.files(project)
        void = files.read_label_map("initial", image.id).copy()
        void[20:28, 32:48] = 255
        files.write_label_map("initial", image.id, void)
        asked = session.get_one(Query, query_id)
        assert void[asked.row, asked.col] == 255
        said = dataclasses.replace(reply(9, DOG), round_number=2)
        asked.pseudo_label = DOG
        recording.record(session, asked, said)
    after, superpixels = label_map(store, project, "b")
    written = (superpixels == 2) & reached
    assert (after[written] == DOG).all()
    assert np.array_equal(after[~written], void[~written])


@pytest.mark.parametrize("said", [CAT, DOG])
def test_an_answer_vouches_for_no_more_than_is_reached(store, project, said):
    """By it the network is measured."""
    query_id = add_query(store, project, "b", 2, epsilon=0.5, round_number=2)
    reached = reaches(store, 2, "b", slice(24, 30))
    with store.session() as session:
        asked = session.get_one(Query, query_id)
        recording.record(session, asked, reply(9, said))
        chosen, image_id = {asked.superpixel_id}, asked.superpixel.image_id
    with store.reading() as session:
        maps = LabelMaps(session, store.files(project), project)
    _, superpixels = label_map(store, project, "b")
    assert np.array_equal(maps.judged(image_id, chosen), (superpixels == 2) & reached)


@pytest.mark.parametrize("told", [True, False])
def test_a_question_asked_again_reaches_what_its_star_reached(store, project, told):
    """The later round, whose queue it is in, has not chosen its star."""
    query_id = add_query(store, project, "b", 2, epsilon=0.5, round_number=2)
    add_query(store, project, "c", 2, epsilon=0.5, round_number=3)
    first = reaches(store, 2, "b", slice(24, 30))
    reaches(store, 3, "b", slice(30, 40))
    with store.session() as session:
        asked = session.get_one(Query, query_id)
        later = session.scalar(select(Round).where(Round.number == 3))
        asked.ask_again(later, rank=-1)
        session.flush()
        given = dataclasses.replace(reply(9, DOG), round_number=2 if told else None)
        assert recording.record(session, asked, given).round_number == 2
    after, superpixels = label_map(store, project, "b")
    assert np.array_equal(after == DOG, (superpixels == 2) & first)


def test_an_answer_belongs_to_the_question_that_was_shown(store, project):
    """The round moved on while the task was open in a browser: the star was elsewhere."""
    query_id = add_query(store, project, "c", 2, round_number=2)  # proposes a cat
    with store.session() as session:
        query = session.get_one(Query, query_id)
        before = Round(project_id=project, number=1, state="closed", config=round_config())
        session.add(before)
        session.flush()
        session.add(
            Score(
                round_id=before.id,
                superpixel_id=query.superpixel_id,
                score=1.0,
                row=30,
                col=50,
                pseudo_label=DOG,
                dominant=0,
            )
        )
    with store.session() as session:
        query = session.get_one(Query, query_id)
        shown_before = dataclasses.replace(reply(1, CAT), round_number=1)
        shown_now = dataclasses.replace(reply(2, CAT), round_number=2)
        first, second = (recording.record(session, query, r) for r in (shown_before, shown_now))
        assert (first.kind, first.pseudo_label, first.row) == ("correct", DOG, 30)
        assert (first.round_number, second.round_number) == (1, 2)
        assert (second.kind, second.pseudo_label, second.row) == ("accept", CAT, 25)
