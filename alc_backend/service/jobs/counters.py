"""Counts of ended jobs and the time they took, summed over all workers and kept in Redis."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from alc_backend.service.jobs.queues import QueueName

KEY = "alc:jobs"
DONE, FAILED, SECONDS = "done", "failed", "seconds"


@dataclass(frozen=True)
class QueueCounts:
    """What became of a queue's jobs since Redis was first used, and the seconds they took."""

    queue: QueueName
    done: int
    failed: int
    seconds: float


def count(redis: Redis, queue: str, *, failed: bool, seconds: float) -> None:
    """Count a job that ended after ``seconds``; it is left out when Redis is away."""
    try:
        with redis.pipeline() as pipeline:
            pipeline.hincrby(KEY, f"{queue}:{FAILED if failed else DONE}", 1)
            pipeline.hincrbyfloat(KEY, f"{queue}:{SECONDS}", seconds)
            pipeline.execute()
    except RedisError:
        return


def read(redis: Redis) -> list[QueueCounts]:
    """The counts of every queue; raises RedisError when Redis is away."""
    found = {key.decode(): value for key, value in redis.hgetall(KEY).items()}  # type: ignore[union-attr]
    return [
        QueueCounts(
            name,
            int(found.get(f"{name}:{DONE}", 0)),
            int(found.get(f"{name}:{FAILED}", 0)),
            float(found.get(f"{name}:{SECONDS}", 0)),
        )
        for name in QueueName
    ]
