"""Workers whose network is made up: no PyTorch, no training, and it waits as long as a test wants.

``dask worker`` calls ``dask_setup`` of a module that it is told to load first.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np

from alc_backend.core.pooling import Prediction
from alc_backend.datasets.images import read_image
from alc_backend.loop.rounds import executor, scoring
from alc_backend.settings import settings
from alc_backend.store.round_states import Step
from tests.networks import without_features

HELD_S = 120.0
"""How long an image is held at most: a test that fails leaves its file behind."""


def held(project_id: int) -> Path:
    """While this file is there, the network waits before each image of a project."""
    return settings().data_dir / f"held-{project_id}"


def load(files, round_, fold):
    """A network that takes an image's colours for its classes."""

    def predict(image) -> Prediction:
        limit = time.monotonic() + HELD_S
        while held(round_.project_id).exists() and time.monotonic() < limit:
            time.sleep(0.02)
        pixels = read_image(files.image(image.id, image.suffix)).transpose(2, 0, 1) / 64.0
        likely = np.exp(pixels)
        return without_features((likely / likely.sum(axis=0)).astype(np.float32))

    return predict


def use() -> None:
    """Let this process use that network."""
    executor.STEPS[Step.TRAINING] = lambda store, part, report: None
    executor.STEPS[Step.SCORING] = partial(scoring.score, load=load)


def dask_setup(worker) -> None:
    """Let a process of a cluster use it."""
    use()
