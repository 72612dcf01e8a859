"""Calls that may wait without end, made so that nobody has to wait with them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(limit_s: float, call: Callable[[], T]) -> T:
    """What ``call`` gives or raises, made by a thread; TimeoutError after ``limit_s`` seconds.

    The thread waits on by itself then, until the call ends, or this process.
    """
    given: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            given.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="waiting", daemon=True)
    thread.start()
    thread.join(limit_s)
    for error in failed:
        raise error
    if not given:
        raise TimeoutError
    return given[0]
