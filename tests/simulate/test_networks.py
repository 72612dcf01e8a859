"""Networks of simulations, which several processes may want at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from alc_backend.simulate.networks import Networks, digest_of
from alc_backend.simulate.scenes import Scenes
from tests.simulate.worlds import experiment, write_world


def test_two_simulations_in_one_cache_train_a_network_once(tmp_path):
    data, given = write_world(tmp_path)
    row = replace(experiment(given), probabilities=None)
    both = threading.Barrier(2)
    trained = []

    def predict(name):
        scenes = Scenes(data)

        def progress(done, total, message):
            if message.startswith("training, loss"):
                trained.append(name)

        networks = Networks(scenes, row, tmp_path / "networks", progress)
        both.wait()
        return networks.predictor(scenes.labels, digest_of(scenes, scenes.labels))("p0")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(predict, "ab")
    assert len(trained) == row.training.iterations
    assert len(set(trained)) == 1
    assert np.array_equal(first.probabilities, second.probabilities)
