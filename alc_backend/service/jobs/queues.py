"""The queues and how a round's steps get onto them."""

from __future__ import annotations

import hashlib
import logging
import secrets
import tempfile
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus

from alc_backend.common.logs import request_id
from alc_backend.errors import SettingsError
from alc_backend.settings import Settings
from alc_backend.store.models import Part
from alc_backend.store.round_states import Step

log = logging.getLogger(__name__)

QUEUES = ("publish", "score", "train", "pseudo")
"""All queues, the one that labelers wait for first."""

STEP_QUEUES = {
    Step.CREATED: "train",
    Step.TRAINING: "train",
    Step.SCORING: "score",
    Step.PUBLISHING: "publish",
    Step.ASKING: "publish",
    Step.TIDYING: "publish",
}

RUN_PART = "alc_backend.service.jobs.functions.run_part"
IMPORT_NEW = "alc_backend.service.jobs.functions.import_new"
TAKE_UP = "alc_backend.service.jobs.functions.take_up"
LABEL_IMAGES = "alc_backend.service.jobs.functions.label_images"
REQUEST = "request"
"""Where a job's meta data says which request it was queued by."""

KEEP_RESULTS_S = 24 * 3600


def socket_path(settings: Settings) -> Path:
    """Where the private Redis of a data folder listens (socket paths must be short).

    Raises SettingsError when no folder for temporary files can be written to.
    """
    digest = hashlib.sha256(str(settings.data_dir.absolute()).encode()).hexdigest()[:16]
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise SettingsError(f"{error}; make /tmp writable, set TMPDIR, or set REDIS_URL") from error
    return folder / f"alc-redis-{digest}" / "redis.sock"


def connect(settings: Settings, *, patience_s: float = 5.0) -> Redis:
    """The Redis that carries the jobs, whether it answers or not.

    ``patience_s`` is how long an answer is waited for. Raises SettingsError when REDIS_URL is no
    address.
    """
    url = settings.redis_url or f"unix://{socket_path(settings)}"
    try:
        connection: Redis = Redis.from_url(
            url, socket_connect_timeout=min(2.0, patience_s), socket_timeout=patience_s
        )
    except ValueError as error:
        raise SettingsError(
            "REDIS_URL is no address of a Redis, such as redis://:PASSWORD@host:6379/0"
        ) from error
    return connection


def is_up(connection: Redis) -> bool:
    """Whether Redis answers."""
    try:
        return bool(connection.ping())
    except RedisError:
        return False


class Jobs:
    """Puts work onto the queues; the same work is never queued twice.

    Nothing is lost when Redis is away: what is to be done stands in the database, and workers look
    there every few seconds.
    """

    def __init__(self, settings: Settings, connection: Redis) -> None:
        self._timeout = int(settings.job_timeout_hours * 3600)
        self._redis = connection

    def enqueue_part(self, part: Part) -> bool:
        """Queue a part of a round's step, unless it waits there already."""
        job_id = f"round-{part.round_id}-{part.step}-{part.number}"
        return self._enqueue(STEP_QUEUES[part.step], RUN_PART, part.id, job_id)

    def enqueue_import(self, project_id: int) -> bool:
        """Queue a look for images that are new in Label Studio."""
        return self._enqueue("pseudo", IMPORT_NEW, project_id, f"import-{project_id}")

    def enqueue_take_up(self, label_studio_project: int) -> bool:
        """Queue the taking up of a project that was connected in Label Studio."""
        job_id = f"take-up-{label_studio_project}"
        return self._enqueue("pseudo", TAKE_UP, label_studio_project, job_id)

    def enqueue_images(self, project_id: int, shards: int) -> bool:
        """Queue so many jobs that label images of a project, less those that wait already."""
        prefix = f"pseudo-{project_id}-"
        try:
            waiting = Queue("pseudo", connection=self._redis).job_ids
        except RedisError as error:
            log.warning("Redis does not answer (%s); images are queued when it is back", error)
            return False
        shards -= sum(job_id.startswith(prefix) for job_id in waiting)
        return all(
            self._enqueue("pseudo", LABEL_IMAGES, project_id, prefix + secrets.token_hex(4))
            for _ in range(shards)
        )

    def _enqueue(self, queue: str, function: str, argument: int, job_id: str) -> bool:
        """Queue a job; False when Redis does not answer, which is logged."""
        try:
            if self._forget(job_id):
                Queue(queue, connection=self._redis).enqueue_call(
                    function,
                    args=(argument,),
                    job_id=job_id,
                    meta={REQUEST: request_id()},
                    timeout=self._timeout,
                    result_ttl=KEEP_RESULTS_S,
                    failure_ttl=KEEP_RESULTS_S,
                )
        except RedisError as error:
            log.warning("Redis does not answer (%s); %s is queued when it is back", error, job_id)
            return False
        return True

    def _forget(self, job_id: str) -> bool:
        """Remove an earlier job of this name; False when it still waits in its queue."""
        try:
            job = Job.fetch(job_id, connection=self._redis)
        except NoSuchJobError:
            return True
        queue = Queue(job.origin, connection=self._redis)
        try:
            if job.get_status() == JobStatus.QUEUED and queue.get_job_position(job) is not None:
                return False  # a worker killed while taking a job leaves its status behind
            job.delete()
        except InvalidJobOperation:  # somebody else has removed it meanwhile
            return True
        return True
