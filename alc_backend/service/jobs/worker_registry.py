"""Which workers are there: each says so every few seconds, and is forgotten when it stops to.

RQ's own list keeps a worker that was killed in a job for as long as that job might have taken.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from redis import Redis

from alc_backend.settings import Settings

KEYS = "alc:worker:"
LEAST_S = 15.0
"""A worker is not forgotten sooner, however impatient the settings are."""


@dataclass(frozen=True)
class Present:
    """A worker: the machine and process it is, and the queues that it serves."""

    host: str
    pid: int
    queues: tuple[str, ...]

    @property
    def key(self) -> str:
        """Where it is noted."""
        return f"{KEYS}{self.host}:{self.pid}"


def here(queues: Sequence[str]) -> Present:
    """This process as a worker."""
    return Present(socket.gethostname(), os.getpid(), tuple(queues))


def note(redis: Redis, worker: Present, settings: Settings) -> None:
    """Say that a worker is there, for as long as one may be silent (ALC_STALE_AFTER_S)."""
    life = max(settings.stale_after_s, LEAST_S)
    redis.set(worker.key, json.dumps(asdict(worker)), px=int(1000 * life))


def leave(redis: Redis, worker: Present) -> None:
    """Say that a worker has ended."""
    redis.delete(worker.key)


def workers(redis: Redis) -> list[Present]:
    """The workers that are there, by machine and process. Raises RedisError."""
    found = (redis.get(key) for key in redis.scan_iter(match=f"{KEYS}*"))
    known = [json.loads(text) for text in found if isinstance(text, bytes)]
    present = [Present(each["host"], each["pid"], tuple(each["queues"])) for each in known]
    return sorted(present, key=lambda worker: (worker.host, worker.pid))
