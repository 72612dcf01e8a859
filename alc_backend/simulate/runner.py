"""Running the rows of a simulation: those done before are found again, the others are worked on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from alc_backend.common.types import Json, Progress
from alc_backend.common.version import __version__
from alc_backend.simulate import work
from alc_backend.simulate.experiment import Experiment, fingerprint
from alc_backend.simulate.networks import stamp
from alc_backend.simulate.scenes import Scenes
from alc_backend.simulate.work import Data, Piece
from alc_backend.simulate.workers import Do, default_jobs, workers

FORM = 5
"""The form of saved rows; a new number makes those of earlier code useless."""


class Runner:
    """The rows of simulations of one dataset.

    ``cache`` keeps networks and finished rows; ``jobs`` rows are worked on side by side (by
    default :func:`~alc_backend.simulate.workers.default_jobs`), each by the function ``do``.
    """

    def __init__(
        self,
        root: Path,
        validation: Path | None,
        cache: Path,
        *,
        jobs: int | None = None,
        do: Do = work.do,
    ) -> None:
        self._data = Data(root, validation)
        self._cache, self._rows = cache, cache / "rows"
        self._jobs = jobs or default_jobs()
        self._do = do

    def scenes(self, superpixels: str = "objects", count: int = 100) -> Scenes:
        """The dataset, with its own superpixels or others."""
        return self._data.scenes(superpixels, count)

    def run(self, experiments: Sequence[Experiment], progress: Progress) -> list[Json]:
        """Do every row that is not done yet; returns the results of all, in the order given.

        After an interruption, finished rows are found again and trainings continue from their
        checkpoints. Raises the AlcError of a row that fails.
        """
        targets = [self._target(experiment) for experiment in experiments]
        missing = {
            target: experiment
            for target, experiment in zip(targets, experiments, strict=True)
            if not target.is_file()
        }
        beginnings: dict[str, Experiment] = {}
        for experiment in missing.values():
            beginnings.setdefault(_first_network(experiment), experiment)
        preparations = [self._piece(experiment, None) for experiment in beginnings.values()]
        rows = [self._piece(experiment, target) for target, experiment in missing.items()]
        self._work([preparations, rows], progress)
        return [json.loads(target.read_text("utf-8")) for target in targets]

    def _work(self, stages: Sequence[Sequence[Piece]], progress: Progress) -> None:
        """Do all pieces of one stage, then those of the next."""
        done, total = 0, sum(len(stage) for stage in stages)
        with workers(self._jobs, self._do, lambda message: progress(done, total, message)) as run:
            for stage in stages:
                for _ in run(stage):
                    done += 1
                    progress(done, total, "")

    def _piece(self, experiment: Experiment, target: Path | None) -> Piece:
        return Piece(self._data, self._cache, experiment, target)

    def _target(self, experiment: Experiment) -> Path:
        """The file for the results of a row, whose name follows from all that decides them."""
        scenes = self.scenes(experiment.superpixels, experiment.superpixel_count)
        given = stamp(experiment) or ""
        return self._rows / f"{experiment.name(scenes.digest, given, __version__, str(FORM))}.json"


def _first_network(experiment: Experiment) -> str:
    """A name that is equal for rows that begin with the same network."""
    first = experiment.budgets[0] if experiment.labels == "random" else None
    values = experiment.as_dict()
    kept = (
        "training",
        "folds",
        "share_iterations",
        "flip",
        "labels",
        "superpixels",
        "noise",
        "method",
        "start",
    )
    return fingerprint({name: values[name] for name in kept}, first, experiment.probabilities)
