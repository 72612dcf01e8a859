"""The worker process: runs jobs one after another and brings back work that others left."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import SimpleWorker

from alc_backend.common import logs
from alc_backend.errors import ServiceError, SettingsError
from alc_backend.loop.rounds import executor
from alc_backend.service.jobs import counters, worker_registry
from alc_backend.service.jobs.functions import enqueue_images, store
from alc_backend.service.jobs.queues import QUEUES, REQUEST, Jobs, connect, is_up
from alc_backend.settings import Settings

log = logging.getLogger(__name__)

RECOVER_EVERY_S = 5.0
RECONNECT_S = 2.0


def run_worker(settings: Settings, queues: Sequence[str] = QUEUES, *, burst: bool = False) -> None:
    """Work on ``queues``, in their order, until stopped (``burst``: until they are empty).

    Jobs run in this very process: networks stay loaded, and CUDA never meets a fork. While Redis
    is away the worker waits for it. Raises SettingsError for an unknown queue, ServiceError when
    ``burst`` finds no Redis.
    """
    unknown = [name for name in queues if name not in QUEUES]
    if unknown:
        raise SettingsError(f"queue {unknown[0]!r} is unknown; choose from {', '.join(QUEUES)}")
    connection = connect(settings)
    if burst and not is_up(connection):
        raise ServiceError(
            "no Redis answers; start `alc serve`, or set REDIS_URL to a running server"
        )
    over, me = threading.Event(), worker_registry.here(queues)
    beside = [
        threading.Thread(target=run, args=given, name=name, daemon=True)
        for name, run, given in (
            ("watchdog", _watch, (Jobs(settings, connection), over)),
            ("presence", _be_there, (settings, connection, me, over)),
        )
    ]
    for thread in beside:
        thread.start()
    try:
        while not _work(settings, queues, burst):
            time.sleep(RECONNECT_S)
    finally:
        over.set()
        for thread in beside:
            thread.join()


class _Worker(SimpleWorker):  # type: ignore[misc]  # rq is not typed
    """Says in every line of a job whose request it serves, and counts how jobs end."""

    def perform_job(self, job: Any, queue: Any, execution: Any) -> bool:
        """Run one job."""
        began = time.monotonic()
        with logs.about(job.meta.get(REQUEST), job.id):
            done = bool(super().perform_job(job, queue, execution))
        counters.note(
            self.connection, queue.name, failed=not done, seconds=time.monotonic() - began
        )
        return done


def _work(settings: Settings, queues: Sequence[str], burst: bool) -> bool:
    """Work until told to stop; False when Redis went away."""
    connection = connect(settings)
    if not is_up(connection):
        log.warning("no Redis answers, waiting for it; is REDIS_URL right, or `alc serve` running?")
        return False
    worker = _Worker(list(queues), connection=connection)
    asked_to_stop = threading.Event()
    stop = worker.request_stop

    def request_stop(number: int, frame: object) -> None:
        asked_to_stop.set()
        with suppress(RedisError):  # this runs in the middle of a job, which must not see it
            stop(number, frame)

    worker.request_stop = request_stop
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        worker.work(burst=burst, logging_level="WARNING")
    except RedisError as error:
        log.warning("Redis went away (%s), waiting for it", error)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return burst or asked_to_stop.is_set()


def _be_there(
    settings: Settings, connection: Redis, me: worker_registry.Present, over: threading.Event
) -> None:
    """Say every few seconds that this worker is there; beside the watchdog, which may wait."""
    while not over.is_set():
        with suppress(RedisError):
            worker_registry.note(connection, me, settings)
        over.wait(RECOVER_EVERY_S)
    with suppress(RedisError):
        worker_registry.leave(connection, me)


def _watch(jobs: Jobs, over: threading.Event) -> None:
    """Queue again what no worker has and no queue may hold: at the start and every few seconds."""
    while True:
        try:
            executor.recover(store(), jobs.enqueue_part)
            enqueue_images(jobs)
        except Exception as error:  # without this thread, what was left would stay for ever
            log.warning("looking for left work failed, trying again: %r", error)
        if over.wait(RECOVER_EVERY_S):
            return
