"""The rounds of active learning: what is asked, what it costs, and what is trained on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from alc_backend.core.arrays import VOID
from alc_backend.errors import SettingsError
from alc_backend.simulate.baselines.active import LOOPS
from alc_backend.simulate.scenes import Scenes
from tests.simulate.worlds import experiment, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    data, given = write_world(tmp_path_factory.mktemp("world"))
    return given, Scenes(data)


def nothing(done, total, message):
    pass


def run(world, folder, method, **changes):
    given, scenes = world
    row = experiment(given, method=method, **{"budgets": (8, 24), "rounds": 3, **changes})
    loop = LOOPS[method](scenes, row, folder, nothing)
    return loop, loop.run()


@pytest.mark.parametrize("method", ["spx", "merspx", "mulspx"])
@pytest.mark.parametrize("start", ["cold", "warm"])
def test_a_budget_is_spent_and_measured(world, tmp_path, method, start):
    loop, row = run(world, tmp_path, method, start=start, budgets=(4, 12))
    points = {point["answers"]: point for point in row["rounds"]}
    assert list(points) == [0, 4, 12]
    assert (points[0]["data_miou"] == 0) == (start == "cold")
    if method != "merspx" or start == "cold":  # these classes lie beside each other at random
        assert points[12]["data_miou"] > points[4]["data_miou"] > points[0]["data_miou"]
    assert points[12]["normalised_clicks"] == 12  # each class that is named is a classification
    assert LOOPS[method](loop.scenes, loop.experiment, tmp_path, nothing).run() == row


def test_a_superpixel_gets_the_class_that_most_of_it_is(world, tmp_path):
    loop, _ = run(world, tmp_path, "spx", start="cold")
    _, scenes = world
    for key in scenes.keys:
        labels, truth, superpixels = loop.labels(key), scenes.truth(key), scenes.superpixels(key)
        for number in range(1, 13):
            mask = superpixels == number
            if number not in loop.answered.get(key, ()):
                assert set(labels[mask]) == {VOID}
                continue
            known = truth[mask & (truth != VOID)]
            assert set(labels[mask]) == {Counter(known.tolist()).most_common(1)[0][0]}


def test_merged_superpixels_spend_one_click_and_are_sieved(world, tmp_path):
    loop, _ = run(world, tmp_path, "merspx", start="warm")
    assert sum(len(numbers) for numbers in loop.answered.values()) > 24
    left_out = sum(int((loop.trained_on(key) == VOID).sum()) for key in loop.scenes.keys)
    assert left_out > 0
    for key in loop.scenes.keys:
        trained = loop.trained_on(key)
        assert np.array_equal(trained[trained != VOID], loop.labels(key)[trained != VOID])


def test_every_class_in_a_superpixel_is_named_and_paid_for(world, tmp_path):
    loop, _ = run(world, tmp_path, "mulspx", start="cold")
    _, scenes = world
    clicks = several = 0
    for key, numbers in loop.answered.items():
        for number in numbers:
            mask = scenes.superpixels(key) == number
            present = set(scenes.truth(key)[mask]) - {VOID}
            clicks += len(present)
            several += len(present) > 1
            assert set(loop.labels(key)[mask]) <= present
    assert clicks == 24
    assert several > 0


def test_mistakes_name_other_classes(world, tmp_path):
    right, _ = run(world, tmp_path, "spx")
    wrong, _ = run(world, tmp_path, "spx", noise=1.0)
    assert wrong.data_miou < right.data_miou


def test_real_trainings_with_partial_labels(world, tmp_path):
    changes = {"probabilities": None, "train": True, "rounds": 2, "budgets": (10, 20)}
    loop, row = run(world, tmp_path, "mulspx", start="cold", **changes)
    assert row["rounds"][-1]["answers"] == 20
    assert len(list((tmp_path / "networks").glob("*.safetensors"))) >= 2
    assert loop.data_miou > 0


def test_the_supervised_row_knows_the_truth(world, tmp_path):
    _, row = run(world, tmp_path, "supervised")
    (point,) = row["rounds"]
    assert (point["answers"], point["data_miou"]) == (0, 1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "spx", "pool": "pixelpick"},
        {"method": "merspx", "epsilon": 0.4},
        {"method": "mulspx", "hours": (1.0,)},
        {"method": "spx", "probabilities": None, "train": False},
        {"method": "alc", "start": "cold"},
        {"method": "guess"},
        {"start": "tepid", "method": "spx"},
    ],
)
def test_what_does_not_go_together_is_refused(world, changes):
    with pytest.raises(SettingsError):
        experiment(world[0], **changes)
