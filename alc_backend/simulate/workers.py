"""Doing pieces of work one after another, or side by side in processes with a GPU each."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import Manager, get_context
from queue import Queue

from alc_backend.errors import TrainingError
from alc_backend.simulate.work import Piece, Tell

Do = Callable[[Piece, Tell], None]
"""Does a piece of work."""

Workers = Callable[[Sequence[Piece]], Iterator[None]]
"""Do pieces of work; yields None whenever one is done, and raises the error of one that fails."""


def default_jobs() -> int:
    """The number of rows to work on side by side: one per GPU, or else per four cores."""
    import torch

    return torch.cuda.device_count() or max(1, (os.cpu_count() or 1) // 4)


@contextmanager
def workers(jobs: int, do: Do, tell: Tell) -> Iterator[Workers]:
    """Workers for ``jobs`` pieces at a time, in processes of their own unless that is 1."""
    if jobs == 1:
        yield partial(_one_by_one, do, tell)
        return
    with Manager() as manager:
        news, devices = manager.Queue(), manager.Queue()
        gpus = _gpus()
        for number in range(jobs):
            devices.put(gpus[number % len(gpus)] if gpus else "")
        listener = threading.Thread(target=_listen, args=(news, tell), daemon=True)
        listener.start()
        try:
            with ProcessPoolExecutor(
                jobs, get_context("spawn"), _begin, (news, devices, jobs)
            ) as pool:
                yield partial(side_by_side, pool, do)
        finally:
            news.put(None)
            listener.join()


def _one_by_one(do: Do, tell: Tell, pieces: Sequence[Piece]) -> Iterator[None]:
    for piece in pieces:
        do(piece, tell)
        yield


def side_by_side(pool: ProcessPoolExecutor, do: Do, pieces: Sequence[Piece]) -> Iterator[None]:
    """Do pieces of work in a pool; yields None whenever one is done.

    Raises the error of a piece that fails, TrainingError when a process dies; the pieces that no
    process has begun are then left out.
    """
    futures = [pool.submit(do, piece, _tell) for piece in pieces]
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


def _gpus() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = chosen.split(",") if chosen else [str(n) for n in range(torch.cuda.device_count())]
    return every if torch.cuda.is_available() else []


def _listen(news: Queue[str | None], tell: Tell) -> None:
    """Pass on the sentences of the processes, until None arrives."""
    while (message := news.get()) is not None:
        tell(message)


_news: Queue[str | None] | None = None
"""In a process of the pool: where its sentences go."""


def _begin(news: Queue[str | None], devices: Queue[str], jobs: int) -> None:
    """Give a new process its GPU and its share of the cores."""
    global _news
    _news = news
    if gpu := devices.get():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before anything asks CUDA
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _tell(message: str) -> None:
    if _news is not None:
        _news.put(message)
