"""Choosing the batch of a round from what it scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import delete, select, update

from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.errors import RoundError
from alc_backend.loop import leases, query_tasks
from alc_backend.loop.rounds import candidates, lifecycle, plan, scoring, work_items
from alc_backend.store import pixel_counts, recording
from alc_backend.store.importing import import_folder
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, Image, Part, Query, Round, Score, Superpixel
from alc_backend.store.round_states import RoundState, Step
from tests.annotations import NOON
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds.running import choose_batch, only_round, upload, work, working


@pytest.fixture
def project(store, dataset):
    return import_folder(store, dataset, "pets", validation=dataset).project_id


@BOTH_DATABASES
def test_the_batch_is_the_best_of_what_is_open(store, project, queue):
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    upload(store)
    round_ = only_round(store)
    choose_batch(store, round_)
    with store.reading() as session:
        best = session.execute(
            select(Score.score, Image.key, Superpixel.number)
            .join(Superpixel, Superpixel.id == Score.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
        ).all()
        best = sorted(best, key=lambda row: (-row.score, row.key, row.number))[:2]
        chosen = session.scalars(select(Query).order_by(Query.rank)).all()
    assert [entry.score for entry in chosen] == [row.score for row in best]
    assert asked(store, round_) == [(row.key, row.number) for row in best]


@BOTH_DATABASES
def test_a_question_that_is_chosen_anew_audits_nothing(store, project, queue):
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    upload(store)
    choose_batch(store, only_round(store))
    with store.session() as session:
        session.execute(update(Query).values(audited=1))
    choose_batch(store, only_round(store))
    with store.reading() as session:
        assert set(session.scalars(select(Query.audited))) == {None}


def asked(store, round_) -> list[tuple[str, int]]:
    """What the queue of a round asks about, best first."""
    return [
        (item.key.image, item.key.superpixel) for item in query_tasks.queue_items(store, round_)
    ]


def reconfigured(store, **changes) -> Round:
    """The only round, back before scoring, with other settings and its images uploaded."""
    with store.session() as session:
        session.execute(delete(Query))
        session.execute(delete(Score))
        round_ = session.scalars(select(Round)).one()
        round_.config = replace(round_.config, **changes)
    upload(store)
    return only_round(store)


def rescored(store, round_) -> str | None:
    """Score a round anew, and choose its batch."""
    with store.session() as session:
        row = session.get_one(Round, round_.id)
        work_items.begin_step(session, row, RoundState.SCORING, plan.scoring_works(session, row))
    for part in work_items.ready_parts(store, round_.id):
        with store.session() as session:
            leases.claim(session.get_one(Part, part.id))
        with store.reading() as session:
            claimed = session.get_one(Part, part.id)
        scoring.score(store, claimed, lambda done, total, message: None)
    return choose_batch(store, round_)


def test_every_acquisition_orders_a_round(store, project, queue):
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    for name in ACQUISITIONS:
        round_ = reconfigured(store, acquisition=name, size=6)
        rescored(store, round_)
        with store.reading() as session:
            queries = session.scalars(select(Query).order_by(Query.rank)).all()
            measured = {row.superpixel_id: row for row in session.scalars(select(Score))}
        found = [entry.score for entry in queries]
        assert found == sorted(found, reverse=True)
        assert len(found) == 6
        if name == "default":  # places in the order, from the end
            assert found == pytest.approx([6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
        elif name == "simiou":
            pixels = [np.count_nonzero(label == cats_and_background()) for label in range(3)]
            for entry in queries:
                raw = measured[entry.superpixel_id].score
                assert entry.score == pytest.approx(raw / max(pixels[entry.pseudo_label], 1))
        elif name == "classbal":
            raw = np.array([measured[entry.superpixel_id].score for entry in queries])
            share = [
                np.mean([row.dominant == measured[entry.superpixel_id].dominant
                         for row in measured.values()])
                for entry in queries
            ]  # fmt: skip
            normalised = (raw - raw.min()) / (raw.max() - raw.min())
            assert found == pytest.approx((normalised * np.exp(-np.array(share))).tolist())
        else:
            assert found == [measured[entry.superpixel_id].score for entry in queries]


def cats_and_background():
    """The three pseudo label maps that ``write_dataset`` makes."""
    truth = np.zeros((48, 64), dtype=np.uint8)
    truth[8:24, 8:24] = truth[24:40, 32:56] = 1
    return np.stack([truth] * 3)


@BOTH_DATABASES
def test_the_pixels_of_each_class_are_those_of_the_label_maps_as_they_are(store, project, queue):
    lifecycle.start(store, queue.append, project)
    work(store, queue)  # which has counted what it scored
    upload(store)
    round_ = only_round(store)
    choose_batch(store, round_)
    with store.session() as session:
        query = session.scalars(select(Query).order_by(Query.rank).limit(1)).one()
        reply = recording.Reply(1, 2, "1", 1.0, NOON, NOON)
        assert recording.record(session, query, reply) is not None
        maps = LabelMaps(session, store.files(project), project)
    expected = sum(
        np.bincount(maps.read(image.id).ravel(), minlength=3)
        for image in store.images(project, TRAIN)
    )
    assert expected[2] > 0
    with working(store, round_, Step.PUBLISHING) as report:
        for _ in range(2):  # counted anew, then known
            counted = candidates.class_pixels(store, round_, report)
            assert counted.tolist() == expected.tolist()
    with store.reading() as session:
        assert pixel_counts.read(session, project)[1] == []


@BOTH_DATABASES
def test_a_batch_can_be_spread_over_images_and_leave_out_small_superpixels(store, project, queue):
    lifecycle.start(store, queue.append, project, per_image=1, min_area=300)
    work(store, queue)
    round_ = reconfigured(store, size=6)
    assert (round_.config.per_image, round_.config.min_area) == (1, 300)
    assert rescored(store, round_).startswith("3 superpixels")  # cats: 256 pixels, dogs: 384
    assert sorted(asked(store, round_)) == [("a", 2), ("b", 2), ("c", 2)]


def test_questions_about_one_image_can_be_kept_apart(store, project, queue):
    lifecycle.start(store, queue.append, project, size=6)
    work(store, queue)
    upload(store)
    together, apart = [], []
    for gap, images in ((0, together), (2, apart)):
        store.settings = store.settings.model_copy(update={"gap": gap})
        choose_batch(store, only_round(store))
        with store.reading() as session:
            images += session.scalars(
                select(Image.key)
                .join(Superpixel, Superpixel.image_id == Image.id)
                .join(Query, Query.superpixel_id == Superpixel.id)
                .order_by(Query.rank)
            ).all()
    assert sorted(together) == sorted(apart)
    assert len(apart) == 6
    assert all(len(set(apart[first : first + 3])) == 3 for first in range(4))


def test_where_classes_are_many_queries_know_the_likely_ones(store, dataset, queue):
    names = ["background", "cat", "dog", *(f"class {number}" for number in range(37))]
    (dataset / "classes.txt").write_text("\n".join(names))
    project = import_folder(store, dataset, "many").project_id
    lifecycle.start(store, queue.append, project, size=6)
    work(store, queue)
    upload(store)
    choose_batch(store, only_round(store))
    with store.reading() as session:
        likely = session.scalars(select(Query.likely)).all()
    assert len(likely) == 6
    for found in likely:
        assert len(found) == len(set(found)) == 10
        assert set(found) <= set(range(40))


def test_an_image_that_is_not_in_label_studio_is_named(store, project, queue):
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    with pytest.raises(RoundError, match=r"image [abc] is not where annotators see it.*alc init"):
        choose_batch(store, only_round(store))
    with store.reading() as session:
        assert session.scalars(select(Query)).all() == []
