"""How many jobs ended, how, and how long they took: kept in Redis, summed over all workers."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from alc_backend.service.jobs.queues import QUEUES

KEY = "alc:jobs"
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Tally:
    """The jobs of one queue since Redis was first used: how they ended, and their seconds."""

    queue: str
    done: int
    failed: int
    seconds: float


def note(redis: Redis, queue: str, *, failed: bool, seconds: float) -> None:
    """Count a job that ended; not counted when Redis is away."""
    try:
        with redis.pipeline() as together:
            together.hincrby(KEY, f"{queue}:{FAILED if failed else DONE}", 1)
            together.hincrbyfloat(KEY, f"{queue}:seconds", seconds)
            together.execute()
    except RedisError:
        return


def read(redis: Redis) -> list[Tally]:
    """What was counted; raises RedisError when Redis is away."""
    found = {key.decode(): value for key, value in redis.hgetall(KEY).items()}  # type: ignore[union-attr]
    return [
        Tally(
            name,
            int(found.get(f"{name}:{DONE}", 0)),
            int(found.get(f"{name}:{FAILED}", 0)),
            float(found.get(f"{name}:seconds", 0)),
        )
        for name in QUEUES
    ]
