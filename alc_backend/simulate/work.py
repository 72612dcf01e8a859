"""The pieces of work of a simulation: a row, or what rows with the same first network share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from alc_backend.common.files import write_atomically
from alc_backend.simulate import hours
from alc_backend.simulate.baselines.active import LOOPS
from alc_backend.simulate.examples import examples
from alc_backend.simulate.experiment import Experiment
from alc_backend.simulate.scenes import Scenes

Tell = Callable[[str], None]
"""Called with a sentence about the work that is being done."""

PAUSE_S = 0.2
"""The least time between two sentences."""


@dataclass(frozen=True)
class Data:
    """The folders of a dataset and of its validation images, if there are any."""

    root: Path
    validation: Path | None

    def scenes(self, superpixels: str, count: int) -> Scenes:
        """The dataset with the superpixels asked for, kept for the next piece of work."""
        return read_scenes(self, superpixels, count)


@dataclass(frozen=True)
class Piece:
    """The work for one row; ``cache`` keeps networks and candidates.

    ``target`` is the file for the results of the row; None to only train the first network and
    score with it.
    """

    data: Data
    cache: Path
    experiment: Experiment
    target: Path | None


@lru_cache(maxsize=2)
def read_scenes(data: Data, superpixels: str, count: int) -> Scenes:
    """The dataset, read once by a process."""
    return Scenes(data.root, data.validation, superpixels=superpixels, superpixel_count=count)


def do(piece: Piece, tell: Tell) -> None:
    """Do a piece of work, and write the results of a row to its file."""
    experiment = piece.experiment
    began, last = time.monotonic(), 0.0

    def progress(done: int, total: int, message: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= PAUSE_S:
            last = now
            tell(f"{experiment.acquisition}, seed {experiment.seed}: {message} ({done}/{total})")

    scenes = piece.data.scenes(experiment.superpixels, experiment.superpixel_count)
    loop = LOOPS[experiment.method](scenes, experiment, piece.cache, progress)
    if piece.target is None:
        loop.prepare()
        return
    row = hours.run(loop) if experiment.hours else loop.run()
    content = json.dumps({**row, "examples": examples(loop), "seconds": time.monotonic() - began})
    write_atomically(piece.target, lambda part: part.write_text(content, "utf-8"))
