"""The workers that are running: each signs in every few seconds, and is forgotten when it stops.

RQ's own list keeps a worker that was killed during a job for as long as that job might have taken.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from redis import Redis

from alc_backend.loop import leases
from alc_backend.settings import Settings

KEY_PREFIX = "alc:worker:"
MIN_LIFETIME_S = 15.0
"""A worker is remembered for at least so long after it signed in, whatever ALC_STALE_AFTER_S is."""


@dataclass(frozen=True)
class RegisteredWorker:
    """A worker: its machine, its process, and the queues that it serves.

    ``process`` names it, unlike any other, where two machines have the same name.
    """

    host: str
    pid: int
    queues: tuple[str, ...]
    process: str

    @property
    def key(self) -> str:
        """The key in Redis that stands for this worker."""
        return f"{KEY_PREFIX}{self.process}"


def this_process(queues: Sequence[str]) -> RegisteredWorker:
    """This process as a worker for ``queues``."""
    return RegisteredWorker(socket.gethostname(), os.getpid(), tuple(queues), leases.this_process())


def sign_in(redis: Redis, worker: RegisteredWorker, settings: Settings) -> None:
    """Remember a worker until ALC_STALE_AFTER_S have passed; raises RedisError."""
    lifetime = max(settings.stale_after_s, MIN_LIFETIME_S)
    redis.set(worker.key, json.dumps(asdict(worker)), px=int(1000 * lifetime))


def sign_out(redis: Redis, worker: RegisteredWorker) -> None:
    """Forget a worker that has ended; raises RedisError."""
    redis.delete(worker.key)


def workers(redis: Redis) -> list[RegisteredWorker]:
    """The workers that are signed in, by machine and process; raises RedisError."""
    found = (redis.get(key) for key in redis.scan_iter(match=f"{KEY_PREFIX}*"))
    known = [json.loads(text) for text in found if isinstance(text, bytes)]
    present = [RegisteredWorker(**{**each, "queues": tuple(each["queues"])}) for each in known]
    return sorted(present, key=lambda worker: (worker.host, worker.pid, worker.process))
