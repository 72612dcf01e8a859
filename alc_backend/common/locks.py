"""Work that one process at a time may do."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.5


@contextmanager
def only_one(path: Path, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of a file, which is made where it does not exist, while the context lasts.

    While another holder has it, on this machine or one that shares the folder, ``wait`` is called
    every POLL_S, and may raise to give up. The lock ends with its process, however that ends; the
    file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                wait()
                time.sleep(POLL_S)
        yield
