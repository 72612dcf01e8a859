"""Starting, failing, cancelling and going on, with the real steps and without Label Studio."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from alc_backend.core import metrics
from alc_backend.errors import NotFoundError, RoundError, SettingsError
from alc_backend.loop.rounds import executor, lifecycle, progress
from alc_backend.store.importing import import_folder
from alc_backend.store.models import TRAIN, Score
from alc_backend.store.round_config import BATCH_OPTIONS
from alc_backend.store.round_states import RoundState, Step
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds.running import Told, only_round, work


@pytest.fixture
def project(store, dataset):
    return import_folder(store, dataset, "pets", validation=dataset).project_id


@BOTH_DATABASES
def test_pressing_start_three_times_starts_one_round(store, project, queue):
    answers = [lifecycle.start(store, queue.append, project) for _ in range(3)]
    assert [started for _, started in answers] == [True, False, False]
    assert len({round_.id for round_, _ in answers}) == 1
    assert only_round(store).state == RoundState.CREATED


@BOTH_DATABASES
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


@pytest.mark.parametrize("known", [0, 1])
def test_label_maps_are_measured_where_the_truth_is_known(store, dataset, queue, known):
    for truth in sorted((dataset / "ground_truth").iterdir())[known:]:
        truth.unlink()
    project = import_folder(store, dataset, "pets").project_id
    images = store.images(project, TRAIN, with_truth=True)
    assert [image.key for image in images] == ["a"][:known]
    lifecycle.start(store, queue.append, project)
    work(store, queue, 1)
    measured = only_round(store).data_miou
    if not known:
        assert measured is None
        return
    files = store.files(project)
    truth, labels = (files.read_label_map(k, images[0].id) for k in ("ground_truth", "initial"))
    assert measured == pytest.approx(metrics.mean_iou(metrics.confusion_matrix(truth, labels, 3)))


def test_an_image_whose_truth_is_lost_is_not_measured(store, project, queue, caplog):
    files, images = store.files(project), store.images(project, TRAIN)
    for image in images[:2]:
        store.storage.delete(files.of_image(image.id, image.suffix)[3])
    lifecycle.start(store, queue.append, project)
    work(store, queue, 1)
    truth, labels = (files.read_label_map(k, images[2].id) for k in ("ground_truth", "initial"))
    right = metrics.mean_iou(metrics.confusion_matrix(truth, labels, 3))
    assert only_round(store).data_miou == pytest.approx(right)
    assert "a is not compared with its ground truth, which is lost" in caplog.text


def test_a_failed_round_goes_on_where_it_stopped(store, project, queue):
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    trained = store.files(project).network(1).stat().st_mtime_ns
    round_, started = lifecycle.start(store, queue.append, project)
    assert started
    assert (round_.number, round_.state, round_.error) == (1, RoundState.PUBLISHING, None)
    work(store, queue)
    assert store.files(project).network(1).stat().st_mtime_ns == trained


@BOTH_DATABASES
def test_cancelling_stops_a_training_and_starting_resumes_it(store, project, queue, monkeypatch):
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
    lifecycle.start(store, queue.append, project)
    work(store, queue, 1)
    train = executor.STEPS[Step.TRAINING]
    seen = []

    def cancelled_at_two(store, part, report):
        def told(done, total, message):
            seen.append(done)
            if done == 2:
                lifecycle.cancel(store, project)

        train(store, part, Told(store, part, told))

    with monkeypatch.context() as patched:
        patched.setitem(executor.STEPS, Step.TRAINING, cancelled_at_two)
        work(store, queue, 1)
    assert only_round(store).state == RoundState.CANCELLED
    assert seen == [1, 2]
    assert not store.files(project).network(1).exists()
    with pytest.raises(RoundError, match="no round"):
        lifecycle.cancel(store, project)

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


def test_a_round_that_goes_on_keeps_what_it_was_given(store, project, queue):
    lifecycle.start(store, queue.append, project, size=7, min_area=300)
    work(store, queue)  # it fails in publishing: there is no query project
    assert only_round(store).state == RoundState.FAILED
    lifecycle.start(store, queue.append, project, per_image=2)
    config = only_round(store).config
    assert [getattr(config, name) for name in BATCH_OPTIONS] == [7, 2, 300]


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
