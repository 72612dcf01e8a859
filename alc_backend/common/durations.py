"""Durations as people read them, and how long what is being done will still take."""

from __future__ import annotations

import time


def duration(seconds: float) -> str:
    """A duration rounded for reading: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Pace:
    """Tells how long work takes whose progress is told again and again."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None

    def left(self, done: int, total: int) -> str:
        """The time until all of ``total`` is done, as ", 12 min left"; empty at the first call."""
        now = time.monotonic()
        if self._began is None:
            self._began = now, done
        began, first = self._began
        if done <= first:
            return ""
        return f", {duration((now - began) / (done - first) * (total - done))} left"
