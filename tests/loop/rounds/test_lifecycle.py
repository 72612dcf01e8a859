"""The state machine, with the real steps on a tiny dataset and without Label Studio."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import delete, select

from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.errors import NotFoundError, RoundError, SettingsError
from alc_backend.loop import leases, query_tasks
from alc_backend.loop.rounds import (
    executor,
    lifecycle,
    plan,
    progress,
    scoring,
    selection,
    work_items,
)
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Image, Part, Query, Round, Score, Superpixel, utc_now
from alc_backend.store.round_config import BATCH_OPTIONS
from alc_backend.store.round_states import RoundState


@pytest.fixture
def settings(tmp_path, database_url) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        preset="cpu",
        iterations=3,
        input_size=64,
        batch_size=2,
        round_size=2,
        acquisition="sim",
        checkpoint_every=1,
        _env_file=None,
    )


@pytest.fixture
def project(store, dataset):
    return import_folder(store, dataset, "pets", validation=dataset).project_id


@pytest.fixture
def queue():
    return []


def work(store, queue, parts_at_most=99):
    """Do queued parts as a worker does."""
    done = 0
    while queue and done < parts_at_most:
        executor.run_part(store, queue.append, queue.pop(0).id)
        done += 1


def only_round(store) -> Round:
    with store.reading() as session:
        return session.scalars(select(Round)).one()


def test_pressing_start_three_times_starts_one_round(store, project, queue):
    answers = [lifecycle.start(store, queue.append, project) for _ in range(3)]
    assert [started for _, started in answers] == [True, False, False]
    assert len({round_.id for round_, _ in answers}) == 1
    assert only_round(store).state == RoundState.CREATED


def test_a_round_trains_scores_and_says_what_is_missing(store, project, queue):
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    round_ = only_round(store)
    assert (round_.state, round_.failed_in) == (RoundState.FAILED, RoundState.PUBLISHING)
    assert "alc init" in round_.error  # this test connects no Label Studio
    assert store.files(project).network(1).is_file()
    assert round_.answers == 0
    assert 0.3 < round_.data_miou < 0.9
    assert 0 <= round_.model_miou <= 1
    with store.reading() as session:
        scores = session.scalars(select(Score)).all()
        assert len(scores) == 6  # three images with two superpixels each
        assert {entry.pseudo_label for entry in scores} == {1}
        assert all(np.isfinite(entry.score) for entry in scores)


def test_a_failed_round_goes_on_where_it_stopped(store, project, queue, monkeypatch):
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    trained = store.files(project).network(1).stat().st_mtime_ns
    round_, started = lifecycle.start(store, queue.append, project)
    assert started
    assert (round_.number, round_.state, round_.error) == (1, RoundState.PUBLISHING, None)
    work(store, queue)
    assert store.files(project).network(1).stat().st_mtime_ns == trained


def test_cancelling_stops_a_training_and_starting_resumes_it(store, project, queue, monkeypatch):
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
    lifecycle.start(store, queue.append, project)
    work(store, queue, 1)
    report = progress.Reporter.__call__
    seen = []

    def cancel_at_two(self, done, total, message):
        seen.append(done)
        if done == 2:
            lifecycle.cancel(store, project)
        report(self, done, total, message)

    monkeypatch.setattr(progress.Reporter, "__call__", cancel_at_two)
    work(store, queue, 1)
    assert only_round(store).state == RoundState.CANCELLED
    assert seen == [1, 2]
    assert not store.files(project).network(1).exists()
    with pytest.raises(RoundError, match="no round"):
        lifecycle.cancel(store, project)

    monkeypatch.setattr(progress.Reporter, "__call__", report)
    lifecycle.start(store, queue.append, project)
    assert only_round(store).state == RoundState.CREATED  # new answers and settings count
    work(store, queue, 2)
    assert store.files(project).network(1).is_file()


def test_settings_that_failed_can_be_mended(store, project, queue):
    sound = store.settings
    store.settings = sound.model_copy(update={"base_rate": 1e30})
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    round_ = only_round(store)
    assert (round_.state, round_.failed_in) == (RoundState.FAILED, RoundState.TRAINING)
    assert "lower base_rate" in round_.error
    store.settings = sound
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    assert only_round(store).failed_in == RoundState.PUBLISHING


def test_a_waiting_round_is_cancelled_at_once(store, project, queue):
    lifecycle.start(store, queue.append, project)
    assert lifecycle.cancel(store, project).state == RoundState.CANCELLED
    work(store, queue)
    assert only_round(store).state == RoundState.CANCELLED


def claim(store, process, age_s=0.0):
    """Let another process have the next part of the round."""
    with store.session() as session:
        part = session.scalars(
            select(Part)
            .join(Round)
            .where(Part.step == Round.state, Part.finished_at.is_(None))
            .order_by(Part.id)
        ).first()
        part.claimed_by = f"{leases.host()}|{process}|x"
        part.heartbeat_at = utc_now() - timedelta(seconds=age_s)


def test_a_step_is_done_by_one_worker_at_a_time(store, project, queue):
    lifecycle.start(store, queue.append, project)
    claim(store, os.getppid())
    work(store, queue)
    assert only_round(store).state == RoundState.CREATED
    assert executor.recover(store, queue.append) == 0


@pytest.mark.parametrize("silent", ["dead process", "old heartbeat"])
def test_the_step_of_a_dead_worker_is_queued_again(store, project, queue, silent):
    lifecycle.start(store, queue.append, project)
    queue.clear()
    if silent == "dead process":
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        claim(store, ended.pid)
    else:
        claim(store, os.getppid(), age_s=3600)
    assert executor.recover(store, queue.append) == 1
    work(store, queue, 1)
    assert only_round(store).state == RoundState.TRAINING


def test_scoring_again_after_a_crash_adds_nothing_twice(store, project, queue, monkeypatch):
    lifecycle.start(store, queue.append, project)
    work(store, queue, 2)
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
    scored = scoring._score_image
    calls = []

    def die_at_two(store, round_, image, *arguments):
        calls.append(image.key)
        if len(calls) == 2:
            raise KeyboardInterrupt
        scored(store, round_, image, *arguments)

    monkeypatch.setattr(scoring, "_score_image", die_at_two)
    work(store, queue, 1)  # it measures the network
    with pytest.raises(KeyboardInterrupt):
        work(store, queue, 1)
    claim(store, os.getppid(), age_s=3600)
    executor.recover(store, queue.append)
    work(store, queue, 1)
    assert calls == ["a", "b", "b", "c"]
    with store.reading() as session:
        assert len(session.scalars(select(Score)).all()) == 6


def test_the_batch_is_the_best_of_what_is_open(store, project, queue):
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    with store.session() as session:
        for image in session.scalars(select(Image).where(Image.split == "train")):
            image.url = f"/data/upload/{image.key}.png"
    round_ = only_round(store)
    selection.choose(store, round_)
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


def asked(store, round_) -> list[tuple[str, int]]:
    """What the queue of a round asks about, best first."""
    return [(item.key.image, item.key.superpixel) for item in query_tasks.items(store, round_)]


def reconfigured(store, **changes) -> Round:
    """The only round, back before scoring, with other settings and its images uploaded."""
    with store.session() as session:
        session.execute(delete(Query))
        session.execute(delete(Score))
        round_ = session.scalars(select(Round)).one()
        round_.config = replace(round_.config, **changes)
        for image in session.scalars(select(Image).where(Image.split == "train")):
            image.url = f"/data/upload/{image.key}.png"
    return only_round(store)


def scored(store, round_) -> str | None:
    with store.session() as session:
        row = session.get_one(Round, round_.id)
        work_items.enter(session, row, RoundState.SCORING, plan.shards(session, row))
    for part in work_items.waiting(store, round_.id):
        with store.session() as session:
            leases.take(session.get_one(Part, part.id))
        with store.reading() as session:
            scoring.score(store, session.get_one(Part, part.id), lambda done, total, message: None)
    return selection.choose(store, round_)


def test_every_acquisition_orders_a_round(store, project, queue):
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    for name in ACQUISITIONS:
        round_ = reconfigured(store, acquisition=name, size=6)
        scored(store, round_)
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


def test_a_batch_can_be_spread_over_images_and_leave_out_small_superpixels(store, project, queue):
    lifecycle.start(store, queue.append, project, per_image=1, min_area=300)
    work(store, queue)
    round_ = reconfigured(store, size=6)
    assert (round_.config.per_image, round_.config.min_area) == (1, 300)
    assert scored(store, round_).startswith("3 superpixels")  # cats: 256 pixels, dogs: 384
    assert sorted(asked(store, round_)) == [("a", 2), ("b", 2), ("c", 2)]


def uploaded(store):
    with store.session() as session:
        for image in session.scalars(select(Image)):
            image.url = f"/data/{image.key}.png"


def test_questions_about_one_image_can_be_kept_apart(store, project, queue):
    lifecycle.start(store, queue.append, project, size=6)
    work(store, queue)
    uploaded(store)
    together, apart = [], []
    for gap, images in ((0, together), (2, apart)):
        store.settings = store.settings.model_copy(update={"gap": gap})
        selection.choose(store, only_round(store))
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
    uploaded(store)
    selection.choose(store, only_round(store))
    with store.reading() as session:
        likely = session.scalars(select(Query.likely)).all()
    assert len(likely) == 6
    for found in likely:
        assert len(found) == len(set(found)) == 10
        assert set(found) <= set(range(40))


def test_the_likely_classes_are_the_most_probable_at_the_pixel():
    probabilities = np.full((12, 2), 0.01, dtype=np.float32)
    probabilities[[3, 7, 5], 0] = 0.5, 0.2, 0.2
    probabilities[11, 1] = 0.9
    assert scoring._likely(probabilities) == [
        [3, 5, 7, 0, 1, 2, 4, 6, 8, 9],
        [11, 0, 1, 2, 3, 4, 5, 6, 7, 8],
    ]


def test_a_round_that_goes_on_keeps_what_it_was_given(store, project, queue):
    lifecycle.start(store, queue.append, project, size=7, min_area=300)
    work(store, queue)  # it fails in publishing: there is no query project
    assert only_round(store).state == RoundState.FAILED
    lifecycle.start(store, queue.append, project, per_image=2)
    config = only_round(store).config
    assert [getattr(config, name) for name in BATCH_OPTIONS] == [7, 2, 300]


def test_the_same_inputs_give_the_same_scores(settings, dataset, tmp_path, queue):
    found = []
    for name in ("one", "two"):
        changes = {"data_dir": tmp_path / name, "database_url": None}
        store = Store(settings.model_copy(update=changes))
        project = import_folder(store, dataset, "pets").project_id
        lifecycle.start(store, queue.append, project)
        work(store, queue)
        with store.reading() as session:
            found.append(
                [
                    (entry.superpixel_id, entry.score, entry.row, entry.col)
                    for entry in session.scalars(select(Score).order_by(Score.superpixel_id))
                ]
            )
        store.close()
    assert len(found[0]) == 6
    assert found[0] == found[1]


def test_with_epsilon_the_reach_of_every_answer_is_kept(settings, dataset, queue):
    store = Store(settings.model_copy(update={"epsilon": 0.9}))
    project = import_folder(store, dataset, "pets").project_id
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    with store.reading() as session:
        for image in session.scalars(select(Image)):
            reached = store.files(project).read_reach(1, image.id)
            superpixels = store.files(project).read_superpixels(image.id)
            assert not reached[superpixels == 0].any()
            assert reached.any()
        for entry, number, image_id in session.execute(
            select(Score, Superpixel.number, Superpixel.image_id).join(
                Superpixel, Superpixel.id == Score.superpixel_id
            )
        ):
            assert store.files(project).read_reach(1, image_id)[entry.row, entry.col]
            assert store.files(project).read_superpixels(image_id)[entry.row, entry.col] == number
    store.close()


def test_wrong_settings_and_projects_are_named(store, project, queue):
    with pytest.raises(NotFoundError, match="project 99"):
        lifecycle.start(store, queue.append, 99)
    store.settings = store.settings.model_copy(update={"acquisition": "best"})
    with pytest.raises(SettingsError, match="ALC_ACQUISITION"):
        lifecycle.start(store, queue.append, project)
    store.settings = store.settings.model_copy(update={"acquisition": "sim", "preset": "huge"})
    with pytest.raises(SettingsError, match="preset"):
        lifecycle.start(store, queue.append, project)
    assert queue == []
