"""Running the rows of a simulation: cached, resumed, side by side where there is room."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache, partial
from multiprocessing import Manager, get_context
from pathlib import Path
from queue import Queue

from alc_backend.common.files import write_atomically
from alc_backend.common.types import Json
from alc_backend.common.version import __version__
from alc_backend.errors import TrainingError
from alc_backend.simulate.examples import examples
from alc_backend.simulate.experiment import Experiment, fingerprint
from alc_backend.simulate.loop import Loop
from alc_backend.simulate.networks import stamp
from alc_backend.simulate.scenes import Scenes

Report = Callable[[int, int, str], None]
"""Called with the pieces of work done, all of them, and what goes on."""

FORM = 2
"""Of the kept rows; a new number makes those of earlier code useless."""

Piece = tuple[Experiment, Path | None]
"""A row and the file for its results; without a file, only what it begins with."""


class Runner:
    """The rows of simulations of one dataset.

    ``cache`` keeps networks and finished rows; ``jobs`` rows are worked on side by side (default:
    one for each GPU; without any, one for each four cores).
    """

    def __init__(
        self,
        root: Path,
        validation: Path | None,
        cache: Path,
        *,
        jobs: int | None = None,
    ) -> None:
        self._data = (root, validation)
        self._cache = cache
        self._jobs = jobs or default_jobs()

    def scenes(self, superpixels: str = "objects", count: int = 100) -> Scenes:
        """The dataset, with its own superpixels or SLIC's."""
        return _scenes(*self._data, superpixels, count)

    def run(self, experiments: Sequence[Experiment], report: Report) -> list[Json]:
        """Do every row that is not done yet; returns all results, in the order given.

        What was finished before an interruption is found again, trainings go on from their
        checkpoints. A row's AlcError is raised when it fails.
        """
        names = [self._name(experiment) for experiment in experiments]
        missing = [place for place, name in enumerate(names) if not (self._rows / name).is_file()]
        networks: dict[str, Experiment] = {}
        for place in missing:
            networks.setdefault(_network(experiments[place]), experiments[place])
        todo = len(missing) + len(networks)
        done = 0

        def told(message: str) -> None:
            report(done, todo, message)

        with self._workers(told) as work:
            for _ in work([(experiment, None) for experiment in networks.values()]):
                done += 1
                told("")
            for _ in work([(experiments[place], self._rows / names[place]) for place in missing]):
                done += 1
                told("")
        return [json.loads((self._rows / name).read_text("utf-8")) for name in names]

    @property
    def _rows(self) -> Path:
        return self._cache / "rows"

    def _name(self, experiment: Experiment) -> str:
        scenes = self.scenes(experiment.superpixels, experiment.superpixel_count)
        given = stamp(experiment) or ""
        return f"{experiment.name(scenes.digest, given, __version__, str(FORM))}.json"

    @contextmanager
    def _workers(
        self, told: Callable[[str], None]
    ) -> Iterator[Callable[[list[Piece]], Iterator[None]]]:
        """A way to do several pieces of work; gives None whenever one is done."""
        if self._jobs == 1:

            def one_by_one(pieces: list[Piece]) -> Iterator[None]:
                for experiment, target in pieces:
                    _work(self._data, self._cache, experiment, target, told)
                    yield

            yield one_by_one
            return
        with Manager() as manager:
            news, devices = manager.Queue(), manager.Queue()
            gpus = _gpus()
            for number in range(self._jobs):
                devices.put(gpus[number % len(gpus)] if gpus else "")
            listener = threading.Thread(target=_listen, args=(news, told), daemon=True)
            listener.start()
            try:
                with ProcessPoolExecutor(
                    self._jobs, get_context("spawn"), _begin, (news, devices, self._jobs)
                ) as pool:
                    yield partial(_together, pool, self._data, self._cache)
            finally:
                news.put(None)
                listener.join()


def _together(
    pool: ProcessPoolExecutor,
    data: tuple[Path, Path | None],
    cache: Path,
    pieces: list[Piece],
) -> Iterator[None]:
    """Do pieces of work side by side; gives None whenever one is done."""
    futures = [pool.submit(_work, data, cache, experiment, target) for experiment, target in pieces]
    try:
        for future in as_completed(futures):
            future.result()
            yield
    except BrokenProcessPool as error:
        raise TrainingError(
            "a process that worked on a row died, probably for want of memory; what was finished "
            "is kept: run the same again, with a smaller --jobs"
        ) from error
    finally:
        for future in futures:
            future.cancel()


def default_jobs() -> int:
    """How many rows are worked on side by side where nothing else is asked."""
    import torch

    return torch.cuda.device_count() or max(1, (os.cpu_count() or 1) // 4)


def _network(experiment: Experiment) -> str:
    """A name that is equal for rows that begin with the same network."""
    first = experiment.budgets[0] if experiment.labels == "random" else None
    values = experiment.as_dict()
    kept = ("training", "folds", "share_iterations", "flip", "labels", "superpixels", "noise")
    return fingerprint({name: values[name] for name in kept}, first, experiment.probabilities)


@lru_cache(maxsize=2)
def _scenes(root: Path, validation: Path | None, superpixels: str, count: int) -> Scenes:
    return Scenes(root, validation, superpixels=superpixels, superpixel_count=count)


def _work(
    data: tuple[Path, Path | None],
    cache: Path,
    experiment: Experiment,
    target: Path | None,
    told: Callable[[str], None] | None = None,
) -> None:
    """Do a row and write it to ``target``; without one, only the first network and its scores."""
    tell = told or _tell
    began, last = time.monotonic(), 0.0

    def progress(done: int, total: int, message: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= 0.2:
            last = now
            tell(f"{experiment.acquisition}, seed {experiment.seed}: {message} ({done}/{total})")

    scenes = _scenes(*data, experiment.superpixels, experiment.superpixel_count)
    loop = Loop(scenes, experiment, cache, progress)
    if target is None:
        loop.prepare()
        return
    row = loop.run()
    content = json.dumps({**row, "examples": examples(loop), "seconds": time.monotonic() - began})
    write_atomically(target, lambda part: part.write_text(content, "utf-8"))


_news: Queue[str | None] | None = None


def _gpus() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = chosen.split(",") if chosen else [str(n) for n in range(torch.cuda.device_count())]
    return every if torch.cuda.is_available() else []


def _begin(news: Queue[str | None], devices: Queue[str], jobs: int) -> None:
    """Make a process ready: its GPU, its share of the cores."""
    global _news
    _news = news
    if gpu := devices.get():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before anything asks CUDA
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _tell(message: str) -> None:
    if _news is not None:
        _news.put(message)


def _listen(news: Queue[str | None], told: Callable[[str], None]) -> None:
    while (message := news.get()) is not None:
        told(message)
