"""Measuring a round's network and scoring its images, with the real networks."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
import pytest
from sqlalchemy import select

from alc_backend.errors import CancelledError
from alc_backend.loop import leases
from alc_backend.loop.rounds import executor, lifecycle, progress, scoring
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Image, Part, Score, Superpixel
from alc_backend.store.round_states import Step
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds.running import hand_to_another_process, work


@pytest.fixture
def project(store, dataset):
    return import_folder(store, dataset, "pets", validation=dataset).project_id


@BOTH_DATABASES
def test_scoring_again_after_a_crash_adds_nothing_twice(store, project, queue, monkeypatch):
    lifecycle.start(store, queue.append, project)
    work(store, queue, 2)
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
    calls = []

    def fragile(files, round_, fold):
        predict = scoring.load_network(files, round_, fold)

        def die_at_two(image):
            if image.split == "train":
                calls.append(image.key)
                if len(calls) == 2:
                    raise KeyboardInterrupt
            return predict(image)

        return die_at_two

    monkeypatch.setitem(executor.STEPS, Step.SCORING, partial(scoring.score, load=fragile))
    work(store, queue, 1)  # it measures the network
    with pytest.raises(KeyboardInterrupt):
        work(store, queue, 1)
    hand_to_another_process(store, os.getppid(), age_s=3600)
    executor.recover(store, queue.append)
    work(store, queue, 1)
    assert calls == ["a", "b", "b", "c"]
    with store.reading() as session:
        assert len(session.scalars(select(Score)).all()) == 6


def test_the_likely_classes_are_the_most_probable_at_the_pixel():
    probabilities = np.full((12, 2), 0.01, dtype=np.float32)
    probabilities[[3, 7, 5], 0] = 0.5, 0.2, 0.2
    probabilities[11, 1] = 0.9
    assert scoring.likely_classes(probabilities) == [
        [3, 5, 7, 0, 1, 2, 4, 6, 8, 9],
        [11, 0, 1, 2, 3, 4, 5, 6, 7, 8],
    ]


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


def test_a_worker_that_was_paused_writes_no_reach_and_no_scores(settings, dataset, queue):
    store = Store(settings.model_copy(update={"epsilon": 0.9}))
    project = import_folder(store, dataset, "pets").project_id
    lifecycle.start(store, queue.append, project)
    work(store, queue, 3)  # prepared, trained and measured
    (part,) = queue
    with store.session() as session:
        leases.claim(session.get_one(Part, part.id))
    with store.reading() as session:
        claimed = session.get_one(Part, part.id)
    hand_to_another_process(store, 1)
    with pytest.raises(CancelledError):
        scoring.score(store, claimed, lambda done, total, message: None)
    assert not list((settings.data_dir / "projects").rglob("reach/*"))
    with store.reading() as session:
        assert session.scalars(select(Score)).all() == []
    store.close()


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
