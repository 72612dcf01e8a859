"""What the scoring pass keeps of superpixels, where pages of look-alikes are asked."""

from __future__ import annotations

import os
from functools import partial, wraps

import numpy as np
import pytest
from sqlalchemy import select, update

from alc_backend.core import acquisition, pool
from alc_backend.core.acquisition import ACQUISITIONS, Acquisition
from alc_backend.core.pooling import pooled
from alc_backend.core.statistics import ImageStatistics
from alc_backend.errors import NotFoundError
from alc_backend.loop.questions import round_traits
from alc_backend.loop.rounds import executor, lifecycle, progress, scoring
from alc_backend.store.derived import ImageState
from alc_backend.store.importing import import_folder
from alc_backend.store.kinds import Removal
from alc_backend.store.models import TRAIN, Image, Score, Superpixel
from alc_backend.store.round_states import Step
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds.running import hand_to_another_process, only_round, work
from tests.traits import are_equal, some_traits


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"questions": "mixed"})


@pytest.fixture
def project(store, dataset):
    return import_folder(store, dataset, "pets").project_id


def kept(store, project):
    """What the first round keeps of its only shard, the second part of its scoring."""
    return store.files(project).read_traits(1, 1)


@BOTH_DATABASES
def test_what_the_network_saw_of_every_superpixel_is_kept(store, project, queue):
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    traits, files = kept(store, project), store.files(project)
    predict = scoring.load_network(files, only_round(store), None)
    place, pixels = 0, np.zeros(3, dtype=np.int64)
    for image in store.images(project, TRAIN):
        prediction, labels = predict(image), files.read_label_map("initial", image.id)
        statistics = ImageStatistics(
            prediction.probabilities, labels, files.read_superpixels(image.id)
        )
        chosen = pool.representative_pixels(statistics)
        here = slice(place, place + len(chosen))
        place += len(chosen)
        with store.reading() as session:
            numbers = [session.get_one(Superpixel, int(n)).number for n in traits.superpixels[here]]
        assert numbers == chosen.ids.tolist()
        features = pooled(prediction, statistics.index, statistics.shape, len(statistics))
        assert np.allclose(traits.features[here], features, rtol=1e-3, atol=1e-3)
        means = statistics.mean_probabilities()
        assert np.allclose(traits.predicted[here], means, rtol=1e-3, atol=1e-3)
        doubt = acquisition.measure(statistics, chosen, "sim") / chosen.sizes
        assert np.allclose(traits.doubt[here], doubt, rtol=1e-3, atol=1e-3)
        for name in ("rows", "cols", "sizes", "dominant"):
            assert getattr(traits, name)[here].tolist() == getattr(chosen, name).tolist()
        assert traits.labels[here].tolist() == labels[chosen.rows, chosen.cols].tolist()
        pixels += np.bincount(labels.ravel(), minlength=256)[:3]
        wrong = 1.0 - statistics.self_confidence[statistics.index > 0]
        with store.reading() as session:
            noted = session.get_one(ImageState, image.id).doubt
        assert noted == pytest.approx(1e6 * wrong.sum() / labels.size, rel=1e-3)
    assert place == len(traits.superpixels) == 6
    assert traits.features.shape[1] > 0
    assert traits.class_pixels.tolist() == pixels.tolist()


def test_features_beyond_half_precision_are_cut_off(store, project, queue, monkeypatch):
    def load(files, round_, fold):
        predict = scoring.load_network(files, round_, fold)

        def glaring(image):
            prediction = predict(image)
            return prediction._replace(features=prediction.features * 0 + 1e6)

        return glaring

    monkeypatch.setitem(executor.STEPS, Step.SCORING, partial(scoring.score, load=load))
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    assert (kept(store, project).features == np.finfo(np.float16).max).all()


def test_single_questions_need_no_traits(store, project, queue):
    store.settings = store.settings.model_copy(update={"questions": "single"})
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    with pytest.raises(NotFoundError):
        kept(store, project)


@BOTH_DATABASES
def test_a_shard_that_was_interrupted_is_seen_anew_and_scored_once(
    store, project, queue, monkeypatch
):
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
    calls = []

    def fragile(files, round_, fold):
        predict = scoring.load_network(files, round_, fold)

        def die_at_three(image):
            calls.append(image.key)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return predict(image)

        return die_at_three

    monkeypatch.setitem(executor.STEPS, Step.SCORING, partial(scoring.score, load=fragile))
    lifecycle.start(store, queue.append, project)
    work(store, queue, 3)  # prepared, trained and measured
    with pytest.raises(KeyboardInterrupt):
        work(store, queue, 1)
    with pytest.raises(NotFoundError):
        kept(store, project)
    hand_to_another_process(store, os.getppid(), age_s=3600)
    executor.recover(store, queue.append)
    work(store, queue, 1)
    assert calls == ["a", "b", "c", "a", "b", "c"]
    assert len(kept(store, project).superpixels) == 6
    with store.reading() as session:
        assert len(session.scalars(select(Score)).all()) == 6


def test_what_another_network_saw_is_replaced(store, project, queue):
    files, stale = store.files(project), some_traits([99])
    files.write_traits(1, 1, stale)
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    assert 99 not in kept(store, project).superpixels


def test_nothing_is_kept_of_images_that_are_out_of_the_dataset(store, project, queue):
    files = store.files(project)
    files.write_traits(1, 1, some_traits([99]))
    lifecycle.start(store, queue.append, project)
    work(store, queue, 3)
    with store.session() as session:
        session.execute(update(Image).values(removed=Removal.BY_HAND))
    work(store, queue, 1)
    assert len(kept(store, project).superpixels) == 0


def test_sim_is_measured_once(store, project, queue, monkeypatch):
    measured = []

    @wraps(acquisition.sim)
    def counted(scene):
        measured.append(scene)
        return acquisition.sim(scene)

    monkeypatch.setitem(ACQUISITIONS, "sim", Acquisition(counted))
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    assert len(measured) == len(store.images(project, TRAIN)) == 3


@pytest.mark.parametrize("changes", [{"epsilon": 0.9}, {"acquisition": "entropy"}])
def test_doubt_is_the_same_whatever_ranks_the_queries(store, dataset, project, queue, changes):
    found = []
    for number, given in enumerate(({}, changes)):
        store.settings = store.settings.model_copy(update=given)
        each = import_folder(store, dataset, f"pets {number}").project_id
        lifecycle.start(store, queue.append, each)
        work(store, queue)
        found.append(kept(store, each))
    assert found[0].doubt.tolist() == found[1].doubt.tolist()


def test_a_damaged_file_leaves_out_its_superpixels_alone(
    store, project, queue, monkeypatch, caplog
):
    monkeypatch.setattr("alc_backend.loop.rounds.plan.SHARD_IMAGES", 1)
    lifecycle.start(store, queue.append, project)
    work(store, queue)
    files, round_ = store.files(project), only_round(store)
    whole = [files.read_traits(1, shard) for shard in (1, 3)]
    store.storage.write(files.of_traits(1, [2])[0], b"?")
    found = round_traits.plannable(store, round_, lambda done, total, message: None).traits
    assert are_equal(found, type(found).joined(whole, 3))
    assert "traits/2.npz: cannot be read" in caplog.text
