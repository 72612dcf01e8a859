"""The queues in Redis, and how work gets onto them."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from alc_backend.common.logs import request_id
from alc_backend.common.types import TextEnum
from alc_backend.errors import ServiceError, SettingsError
from alc_backend.service.jobs.private_socket import private_connection
from alc_backend.settings import Settings
from alc_backend.store.models import Part
from alc_backend.store.round_states import Step

log = logging.getLogger(__name__)


class QueueName(TextEnum):
    """The queues, the one that labelers wait for first."""

    PUBLISH = "publish"
    SCORE = "score"
    TRAIN = "train"
    PSEUDO = "pseudo"


STEP_QUEUES = {
    Step.CREATED: QueueName.TRAIN,
    Step.TRAINING: QueueName.TRAIN,
    Step.SCORING: QueueName.SCORE,
    Step.PUBLISHING: QueueName.PUBLISH,
    Step.ASKING: QueueName.PUBLISH,
    Step.PLANNING: QueueName.PUBLISH,
    Step.TIDYING: QueueName.PUBLISH,
}
"""The queue that carries each step of a round."""

RUN_PART = "alc_backend.service.jobs.functions.run_part"
IMPORT_NEW = "alc_backend.service.jobs.functions.import_new"
TAKE_UP = "alc_backend.service.jobs.functions.take_up"
LABEL_IMAGES = "alc_backend.service.jobs.functions.label_images"
"""The functions that jobs run, by their names: whoever queues a job does not import them."""

FUNCTIONS = frozenset({RUN_PART, IMPORT_NEW, TAKE_UP, LABEL_IMAGES})
"""Everything that a job can run. Each takes one id, and finds in the database what to do."""

REQUEST = "request"
"""The key in a job's metadata that holds the id of the request which queued it."""

KEEP_RESULTS_S = 24 * 3600
"""How long Redis remembers a job that ended."""


def connect(settings: Settings, *, patience_s: float = 5.0) -> Redis:
    """A connection to the Redis that carries the jobs; whether it answers is not checked.

    ``patience_s`` is how long it may take to answer. Raises SettingsError when REDIS_URL is not
    an address.
    """
    if settings.redis_url is None:
        return private_connection(settings, timeout_s=patience_s)
    try:
        connection: Redis = Redis.from_url(
            settings.redis_url,
            socket_connect_timeout=min(2.0, patience_s),
            socket_timeout=patience_s,
        )
    except ValueError as error:
        raise SettingsError(
            "REDIS_URL is not the address of a Redis; give one such as "
            "redis://:PASSWORD@host:6379/0"
        ) from error
    return connection


def is_up(connection: Redis) -> bool:
    """Whether Redis answers."""
    try:
        return bool(connection.ping())
    except RedisError:
        return False


class AlcJob(Job):  # type: ignore[misc]  # rq is not typed
    """A job as it is in Redis, which may have been written by anybody who reaches Redis.

    RQ would import and call whatever function such a job names, before, instead of and after it.
    """

    elsewhere = False
    """Whether its work was handed over to a cluster, and is counted where that ends."""

    def restore(self, raw_data: Any) -> None:
        """Read the job from Redis, without the callbacks and web addresses that RQ would call."""
        super().restore(raw_data)
        self._success_callback_name = None
        self._failure_callback_name = None
        self._stopped_callback_name = None
        self.webhooks: list[Any] = []

    @property
    def func(self) -> Any:
        """The function to call; ServiceError when it is not one of :data:`FUNCTIONS`."""
        if self.func_name not in FUNCTIONS or self.instance is not None:
            raise ServiceError(
                f"job {self.id} names {self.func_name!r}, which is no function of a worker; "
                "somebody else writes to this Redis: give it a password"
            )
        return super().func


def queue_of(name: str, connection: Redis) -> Queue:
    """A queue whose jobs are JSON: RQ's default is pickle, which runs code when it is read."""
    return Queue(name, connection=connection, job_class=AlcJob, serializer=JSONSerializer)


def job_of(job_id: str, connection: Redis) -> AlcJob:
    """The job with an id; raises NoSuchJobError."""
    job: AlcJob = AlcJob.fetch(job_id, connection=connection, serializer=JSONSerializer)
    return job


class Jobs:
    """Puts work onto the queues, and never the same work twice.

    Nothing is lost when Redis is away: the work is recorded in the database, where workers look
    for it every few seconds. Every method returns False when Redis did not answer.
    """

    def __init__(self, settings: Settings, connection: Redis) -> None:
        self._timeout = int(settings.job_timeout_hours * 3600)
        self._redis = connection

    def enqueue_part(self, part: Part) -> bool:
        """Queue a part of a round's step, unless it is waiting already."""
        job_id = f"round-{part.round_id}-{part.step}-{part.number}"
        return self._enqueue(STEP_QUEUES[part.step], RUN_PART, part.id, job_id)

    def enqueue_import(self, project_id: int) -> bool:
        """Queue the import of the images that are new in a project in Label Studio."""
        return self._enqueue(QueueName.PSEUDO, IMPORT_NEW, project_id, f"import-{project_id}")

    def enqueue_take_up(self, label_studio_project: int) -> bool:
        """Queue the making of a project for one that was connected in Label Studio."""
        job_id = f"take-up-{label_studio_project}"
        return self._enqueue(QueueName.PSEUDO, TAKE_UP, label_studio_project, job_id)

    def enqueue_images(self, project_id: int, shards: int) -> bool:
        """Queue jobs that label images of a project until ``shards`` of them are waiting."""
        prefix = f"pseudo-{project_id}-"
        try:
            waiting = queue_of(QueueName.PSEUDO.value, self._redis).job_ids
        except RedisError as error:
            log.warning("Redis does not answer (%s); images are queued when it is back", error)
            return False
        shards -= sum(job_id.startswith(prefix) for job_id in waiting)
        return all(
            self._enqueue(QueueName.PSEUDO, LABEL_IMAGES, project_id, prefix + secrets.token_hex(4))
            for _ in range(shards)
        )

    def _enqueue(self, queue: QueueName, function: str, argument: int, job_id: str) -> bool:
        """Queue a job; False, and a line in the log, when Redis does not answer."""
        try:
            if self._forget(job_id):
                queue_of(queue.value, self._redis).enqueue_call(
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
        """Remove an earlier job with this id; False when it is still waiting in its queue."""
        try:
            job = job_of(job_id, self._redis)
        except NoSuchJobError:
            return True
        queue = queue_of(job.origin, self._redis)
        try:
            if job.get_status() == JobStatus.QUEUED and queue.get_job_position(job) is not None:
                return (
                    False  # a worker that is killed while it takes a job leaves this status behind
                )
            job.delete()
        except InvalidJobOperation:  # another process has removed it meanwhile
            return True
        return True
