"""The simulated loop against one written plainly, and against the product's own rounds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.core import acquisition, metrics, pool
from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.core.expansion import expand
from alc_backend.core.statistics import ImageStatistics
from alc_backend.loop.rounds import executor, lifecycle, scoring, status, training
from alc_backend.simulate import oracle
from alc_backend.simulate.loop import Loop
from alc_backend.simulate.scenes import Scenes
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Image, Query, Superpixel
from alc_backend.store.round_states import Step
from tests.loop.rounds.running import choose_batch
from tests.networks import without_features
from tests.simulate.worlds import CLASSES, TRAINING, experiment, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    data, given = write_world(tmp_path_factory.mktemp("world"))
    return data, given, Scenes(data)


def nothing(done, total, message):
    pass


def run(world, folder, **changes):
    _, given, scenes = world
    loop = Loop(scenes, experiment(given, **changes), folder, nothing)
    return loop, loop.run()


def plainly(world, budgets, *, kind, reach=lambda image, found, index: None):
    """One round of SIM, replayed with whole arrays; the same figures as the loop's points."""
    _, given, scenes = world
    labels = {key: scenes.labels(key).copy() for key in scenes.keys}
    first = {key: scenes.labels(key) for key in scenes.keys}
    asked = []
    for key in scenes.keys:
        image = ImageStatistics(np.load(given / f"{key}.npy"), labels[key], scenes.superpixels(key))
        found = pool.representative_pixels(image)
        scores = acquisition.measure(image, found, "sim")
        asked += [(-scores[index], key, int(found.ids[index]), found, index, image)
                  for index in range(len(found))]  # fmt: skip
    asked.sort(key=lambda item: item[:3])
    selected = {key: np.zeros(first[key].shape, dtype=bool) for key in scenes.keys}
    points = []
    for number, (_, key, superpixel, found, index, image) in enumerate(asked, start=1):
        mask = scenes.superpixels(key) == superpixel
        row, col, pseudo = found.rows[index], found.cols[index], int(found.pseudo[index])
        said = oracle.answer(kind, scenes.truth(key), labels[key], mask, row, col, pseudo)
        part = reach(image, found, index)
        part = mask if part is None else part
        selected[key] |= part
        if said != pseudo or labels[key][row, col] != said:
            labels[key][part] = said
        if number in budgets:
            confusion = scenes.confusion(labels.__getitem__)
            counts = metrics.SelectionCounts(0, 0, 0)
            for name in scenes.keys:
                counts = counts.plus(
                    metrics.selection_counts(selected[name], first[name], scenes.truth(name))
                )
            points.append((number, metrics.mean_iou(confusion), counts.precision, counts.recall))
    return points, labels


def figures(row):
    names = ("answers", "data_miou", "precision", "recall")
    return [tuple(point[name] for name in names) for point in row["rounds"][1:]]


@pytest.mark.parametrize("kind", ["object", "pixel"])
def test_label_maps_and_figures_are_those_of_a_plain_replay(world, tmp_path, kind):
    loop, row = run(world, tmp_path, oracle=kind, budgets=(5, 20, 60))
    points, labels = plainly(world, (5, 20, 60), kind=kind)
    assert np.array(figures(row)) == pytest.approx(np.array(points))
    for key in loop.scenes.keys:
        assert np.array_equal(loop.labels(key), labels[key])
    assert row["rounds"][0]["data_miou"] < row["rounds"][-1]["data_miou"]
    assert np.array(row["confusion_after"]).tolist() == loop.scenes.confusion(loop.labels).tolist()


def similar(image, found, index):
    """What an answer reaches with ε = 0.9 (eq. 12)."""
    row, col = int(found.rows[index]), int(found.cols[index])
    return expand(image, int(found.ids[index]), row, col, 0.9)


def test_an_accept_of_what_has_no_label_spreads_as_far_as_a_correction(tmp_path):
    data, given = write_world(tmp_path / "void")
    for path in (data / "pseudo_labels").iterdir():
        labels = np.asarray(Picture.open(path)).copy()
        labels[:, 8:24] = 255
        Picture.fromarray(labels).save(path)
    bare = data, given, Scenes(data)
    loop, row = run(bare, tmp_path, epsilon=0.9, oracle="pixel", budgets=(60,))
    assert row["rounds"][-1]["accept_rate"] > 0
    _, labels = plainly(bare, (60,), kind="pixel", reach=similar)
    for key in loop.scenes.keys:
        assert np.array_equal(loop.labels(key), labels[key])


def test_similarity_decides_how_far_an_answer_spreads(world, tmp_path):
    _, _, scenes = world
    loop, row = run(world, tmp_path, epsilon=0.9, budgets=(60,))
    assert row["rounds"][-1]["answers"] == 60
    _, whole = run(world, tmp_path, budgets=(60,))
    assert row["rounds"][-1]["data_miou"] < whole["rounds"][-1]["data_miou"]
    # everything is asked, so that the order does not matter
    _, labels = plainly(world, (60,), kind="object", reach=similar)
    for key in scenes.keys:
        assert np.array_equal(loop.labels(key), labels[key])
    again, _ = run(world, tmp_path, epsilon=0.9, budgets=(60,))  # from the kept candidates
    assert all(np.array_equal(again.labels(key), labels[key]) for key in scenes.keys)


def test_without_expansion_an_answer_changes_one_pixel(world, tmp_path):
    loop, row = run(world, tmp_path, expansion=False, oracle="pixel", budgets=(12,))
    changed = sum(
        int((loop.labels(key) != loop.scenes.labels(key)).sum()) for key in loop.scenes.keys
    )
    corrected = round(12 * (1 - row["rounds"][-1]["accept_rate"]))
    assert changed == corrected > 0


@pytest.mark.parametrize("name", sorted(ACQUISITIONS))
def test_the_order_is_that_of_the_products_rounds(world, tmp_path, store, name, monkeypatch):
    """The store's rounds, fed with the same probabilities, ask the same questions in turn."""
    data, given, scenes = world
    store.settings = store.settings.model_copy(
        update={"acquisition": name, "round_size": 25, "holdout": 0.0, "preset": "sample",
                "iterations": 1, "input_size": 64, "batch_size": 2}
    )  # fmt: skip
    monkeypatch.setattr(training, "train_networks", lambda *arguments: None)

    def load(files, round_, fold):
        return lambda image: without_features(np.load(given / f"{image.key}.npy"))

    monkeypatch.setitem(executor.STEPS, Step.SCORING, partial(scoring.score, load=load))
    project = import_folder(store, data, "world").project_id
    queue: list = []
    lifecycle.start(store, queue.append, project)
    while queue:
        executor.run_part(store, queue.append, queue.pop(0).id)
    round_ = status.latest_round(store, project)
    with store.session() as session:
        for image in session.scalars(select(Image)):
            image.url = "/data/x.png"
    choose_batch(store, round_)
    with store.reading() as session:
        product = session.execute(
            select(Image.key, Superpixel.number, Query.row, Query.col, Query.pseudo_label)
            .join(Superpixel, Superpixel.id == Query.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .order_by(Query.rank)
        ).all()
    row = experiment(given, acquisition=name, budgets=(25,))
    loop = Loop(scenes, replace(row, training=round_.config.training), tmp_path, nothing)
    candidates = loop.candidates(25, first=True)
    simulated = [
        (scenes.keys[candidates.image[index]], candidates.superpixel[index],
         candidates.row[index], candidates.col[index], candidates.pseudo[index])
        for index in candidates.order(scenes, row, 25)
    ]  # fmt: skip
    assert simulated == [tuple(query) for query in product]


def test_later_rounds_ask_about_what_is_left_with_labels_as_they_are(world, tmp_path):
    asked = []
    _, row = run(world, tmp_path, budgets=(60,), rounds=3)
    assert [point["round"] for point in row["rounds"]] == [0, 3]
    assert row["rounds"][-1]["answers"] == 60  # every superpixel once
    _, given, scenes = world

    class Watched(Loop):
        def ask(self, candidates, index):
            asked.append((int(candidates.image[index]), int(candidates.superpixel[index])))
            super().ask(candidates, index)

    Watched(scenes, experiment(given, budgets=(59,), rounds=3), tmp_path, nothing).run()
    assert len(set(asked)) == len(asked) == 59


def test_answers_may_be_wrong(world, tmp_path):
    _, perfect = run(world, tmp_path, budgets=(60,))
    _, tired = run(world, tmp_path, budgets=(60,), noise=0.3)
    _, never = run(world, tmp_path, budgets=(60,), noise=1.0)
    qualities = [row["rounds"][-1]["data_miou"] for row in (perfect, tired, never)]
    assert qualities[0] > qualities[1] > qualities[2]
    _, again = run(world, tmp_path, budgets=(60,), noise=0.3)
    assert again["rounds"] == tired["rounds"]


def test_blunders_come_at_the_rate_asked_for_and_never_name_the_right_class():
    said = [oracle.blunder(2, len(CLASSES), 0.25, f"q{n}", 0) for n in range(2000)]
    assert 0.22 < np.mean([class_id != 2 for class_id in said]) < 0.28
    assert {oracle.blunder(2, len(CLASSES), 1.0, f"q{n}", 0) for n in range(100)} == {0, 1, 3}


def test_time_is_that_of_the_papers_user_study(world, tmp_path):
    _, row = run(world, tmp_path, budgets=(40,))
    last = row["rounds"][-1]
    accepted = round(40 * last["accept_rate"])
    assert last["hours"] == pytest.approx((accepted * 3.21 + (40 - accepted) * 6.31) / 3600)
    assert last["hours_classifying"] == pytest.approx(40 * 6.31 / 3600)
    # log2 of four classes is 2
    assert last["normalised_clicks"] == pytest.approx(accepted / 2 + (40 - accepted))


def test_pixelpick_asks_equally_in_every_image(world, tmp_path):
    _, given, scenes = world
    loop = Loop(scenes, experiment(given, pool="pixelpick", budgets=(20,)), tmp_path, nothing)
    candidates = loop.candidates(20, first=True)
    for count, each in ((5, [1] * 5), (20, [4] * 5)):
        chosen = candidates.order(scenes, loop.experiment, count)
        assert np.bincount(candidates.image[chosen]).tolist() == each
    assert loop.run()["rounds"][-1]["answers"] == 20


def test_without_diversity_the_best_pixels_of_all_are_asked_about(world, tmp_path):
    _, given, scenes = world
    for name in ("sim", "cil"):
        row = experiment(given, pool="pixel", acquisition=name, budgets=(9,))
        loop = Loop(scenes, row, tmp_path / name, nothing)
        candidates = loop.candidates(9, first=True)
        chosen = candidates.order(scenes, row, 9)
        every = []
        for index, key in enumerate(scenes.keys):
            image = ImageStatistics(
                np.load(given / f"{key}.npy"), scenes.labels(key), scenes.superpixels(key)
            )
            values = image.pixel_sims() if name == "sim" else image.doubt
            every += [(value, index, pixel) for pixel, value in enumerate(values)]
        best = sorted(every, reverse=True)[:9]
        width = scenes.labels("p0").shape[1]
        found = {
            (int(candidates.image[at]), int(candidates.row[at]) * width + int(candidates.col[at]))
            for at in chosen
        }
        assert found == {(index, pixel) for _, index, pixel in best}


def test_first_labels_of_a_network_trained_on_random_answers(world, tmp_path):
    """Figure 6: real trainings, as small as they can be."""
    _, _, scenes = world
    changes = {"probabilities": None, "train": True, "labels": "random", "model_at": "none"}
    loop, row = run(world, tmp_path, budgets=(12, 24), **changes)
    assert [point["answers"] for point in row["rounds"]] == [12, 24]
    right = wrong = 0
    for key, numbers in loop.answered.items():
        for number in numbers:
            inside = (scenes.superpixels(key) == number) & (scenes.truth(key) != 255)
            right += int((loop.labels(key) == scenes.truth(key))[inside].sum())
            wrong += int((loop.labels(key) != scenes.truth(key))[inside].sum())
    assert right > 5 * wrong
    assert sum(len(numbers) for numbers in loop.answered.values()) == 24


def test_networks_and_their_quality(world, tmp_path):
    """Two rounds with real trainings; the second finds the first's networks again."""
    data, _, _ = world
    scenes = Scenes(data, data)
    row = replace(
        experiment(tmp_path), probabilities=None, train=True, model_at="all", rounds=2, folds=2,
        budgets=(6, 12),
    )  # fmt: skip
    first = Loop(scenes, row, tmp_path, nothing).run()
    assert [point["model_miou"] is not None for point in first["rounds"]] == [True] * 3
    networks = sorted((tmp_path / "networks").glob("*.safetensors"))
    assert len(networks) == 7  # three of each round, one to measure the last label maps
    before = [path.stat().st_mtime_ns for path in networks]
    assert Loop(scenes, row, tmp_path, nothing).run() == first
    assert [path.stat().st_mtime_ns for path in networks] == before


def test_training_configuration_is_part_of_a_rows_name(tmp_path):
    row = experiment(tmp_path)
    assert row.name("x") == experiment(tmp_path).name("x")
    others = [row.name("y"), replace(row, noise=0.1).name("x"),
              replace(row, training=replace(TRAINING, seed=1)).name("x")]  # fmt: skip
    assert len({row.name("x"), *others}) == 4
