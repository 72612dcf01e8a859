"""What processes of their own do with a storage; few imports, so that they start fast."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from alc_backend.errors import StorageError
from alc_backend.store.storage import Storage

NAME = "projects/3/initial/17.png"
SIZE = 2**20


def write(url: str, cache: Path, digit: int, times: int) -> None:
    """Write the same large content again and again, made of one digit.

    Of two that write one object at the same moment, moto's server answers one with 500 now and
    then; whoever writes tries again.
    """
    files = Storage(url, cache)
    content = str(digit).encode() * SIZE
    for _ in range(times):
        try:
            files.write(NAME, content)
        except StorageError:
            files.write(NAME, content)


def read(url: str, cache: Path, times: int) -> None:
    """Read again and again; fail unless each content is whole, and of one writer."""
    files = Storage(url, cache)
    for _ in range(times):
        content = files.read(NAME)
        assert len(content) == SIZE
        assert len(set(content)) == 1


def run(*tasks: tuple) -> list[int | None]:
    """Run functions in processes of their own, all at once; returns their exit codes."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=task, args=given) for task, *given in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]
