"""The queues and how a round's steps get onto them."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus

from alc_backend import rounds
from alc_backend.errors import ServiceError
from alc_backend.settings import Settings
from alc_backend.store.models import Round

QUEUES = ("publish", "score", "train", "pseudo")
"""All queues, the one that labelers wait for first."""

STEP_QUEUES = {
    rounds.CREATED: "train",
    rounds.TRAINING: "train",
    rounds.SCORING: "score",
    rounds.PUBLISHING: "publish",
}

RUN_STEP = "alc_backend.jobs.functions.run_step"
PRUNE = "alc_backend.jobs.functions.prune"
IMPORT_NEW = "alc_backend.jobs.functions.import_new"
KEEP_RESULTS_S = 24 * 3600


def socket_path(settings: Settings) -> Path:
    """Where the private Redis of a data folder listens (socket paths must be short)."""
    digest = hashlib.sha256(str(settings.data_dir.absolute()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"alc-redis-{digest}" / "redis.sock"


def connect(settings: Settings) -> Redis:
    """The Redis that carries the jobs. Raises ServiceError when it does not answer."""
    url = settings.redis_url or f"unix://{socket_path(settings)}"
    try:
        connection: Redis = Redis.from_url(url)
        connection.ping()
    except (RedisError, ValueError) as error:
        where = "REDIS_URL" if settings.redis_url else "the private Redis of `alc serve`"
        raise ServiceError(
            f"no Redis answers at {where} ({error}); start `alc serve`, or set REDIS_URL to a "
            "running server"
        ) from error
    return connection


class Jobs:
    """Puts work onto the queues; the same work is never queued twice."""

    def __init__(self, settings: Settings, connection: Redis) -> None:
        self._timeout = int(settings.job_timeout_hours * 3600)
        self._redis = connection

    def enqueue_step(self, round_: Round) -> None:
        """Queue the present step of a round, unless it waits there already."""
        if round_.state in rounds.RUNNING:
            job_id = f"round-{round_.id}-{round_.state}"
            self._enqueue(STEP_QUEUES[round_.state], RUN_STEP, round_.id, job_id)

    def enqueue_prune(self, project_id: int) -> None:
        """Queue the clean-up after a round was published."""
        self._enqueue("publish", PRUNE, project_id, f"prune-{project_id}")

    def enqueue_import(self, project_id: int) -> None:
        """Queue the import of pictures that are new in Label Studio."""
        self._enqueue("pseudo", IMPORT_NEW, project_id, f"import-{project_id}")

    def status(self, job_id: str) -> str | None:
        """The state of a job as RQ calls it, None for an unknown one."""
        try:
            return str(Job.fetch(job_id, connection=self._redis).get_status().value)
        except NoSuchJobError:
            return None

    def _enqueue(self, queue: str, function: str, argument: int, job_id: str) -> None:
        try:
            if self._forget(job_id):
                Queue(queue, connection=self._redis).enqueue_call(
                    function,
                    args=(argument,),
                    job_id=job_id,
                    timeout=self._timeout,
                    result_ttl=KEEP_RESULTS_S,
                    failure_ttl=KEEP_RESULTS_S,
                )
        except RedisError as error:
            raise ServiceError(
                f"Redis does not answer ({error}); what was asked for is noted, and a worker takes "
                "it up once Redis is back"
            ) from error

    def _forget(self, job_id: str) -> bool:
        """Remove an earlier job of this name; False when it still waits in its queue."""
        try:
            job = Job.fetch(job_id, connection=self._redis)
        except NoSuchJobError:
            return True
        waiting = Queue(job.origin, connection=self._redis).get_job_ids()
        if job.get_status() == JobStatus.QUEUED and job_id in waiting:
            return False  # a worker killed while taking a job leaves its status behind
        job.delete()
        return True
