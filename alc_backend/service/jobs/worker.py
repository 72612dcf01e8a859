"""The worker process: runs jobs one after another, and queues again what others left undone."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from alc_backend.common import logs
from alc_backend.common.loopback import is_loopback
from alc_backend.common.processes import end_hung
from alc_backend.errors import ServiceError, SettingsError
from alc_backend.loop import leases
from alc_backend.loop.rounds import executor, meeting
from alc_backend.loop.rounds.machines import Machines
from alc_backend.service.jobs import counters, worker_registry
from alc_backend.service.jobs.dask_cluster import Cluster
from alc_backend.service.jobs.functions import enqueue_images, store
from alc_backend.service.jobs.queues import REQUEST, AlcJob, Jobs, QueueName, connect, is_up
from alc_backend.settings import Settings

log = logging.getLogger(__name__)

RECOVER_EVERY_S = 5.0
RECONNECT_S = 2.0


def run_worker(
    settings: Settings,
    queues: Sequence[str] = tuple(QueueName),
    *,
    burst: bool = False,
    machines: Machines | None = None,
    cluster: Cluster | None = None,
) -> None:
    """Run the jobs of ``queues``, the first one's first, until stopped or, in a burst, all done.

    Jobs run in this very process, because networks stay loaded then, and CUDA does not survive a
    fork. With ``machines``, whose node 0 it is, this worker trains rounds together with the others;
    what the ``cluster`` can do is handed over to it, and it is closed at the end. Redis and the
    cluster are waited for while they are away. Raises SettingsError for an unknown queue or a place
    to meet that cannot be used, ServiceError when a ``burst`` finds no Redis.
    """
    known = [queue.value for queue in QueueName]
    for name in queues:
        if name not in known:
            raise SettingsError(f"queue {name!r} is unknown; choose from {', '.join(known)}")
    stop = _Stop()
    if machines is not None and machines.nodes > 1:
        with meeting.listen(machines) as listening:
            address = str(listening.getsockname()[0])
        if is_loopback(address) and not is_loopback(machines.host):
            log.warning(
                "--meeting %s stands for %s here, where no other machine can come; give the "
                "address of this machine in your private network instead of its name",
                machines.meeting, address,
            )  # fmt: skip
        executor.train_with(machines, lambda: stop.asked)
    connection = connect(settings)
    if burst and not is_up(connection):
        raise ServiceError(
            "no Redis answers; start `alc serve`, or set REDIS_URL to a running server"
        )
    over, me = threading.Event(), worker_registry.this_process(queues)
    threads = [
        threading.Thread(target=run, args=given, name=name, daemon=True)
        for name, run, given in (
            ("watchdog", _recover_regularly, (Jobs(settings, connection), over)),
            ("registry", _stay_signed_in, (settings, connection, me, over)),
        )
    ]
    for thread in threads:
        thread.start()
    try:
        while not _work(settings, queues, burst, stop, cluster):
            time.sleep(RECONNECT_S)
    finally:
        over.set()
        if cluster is not None:
            cluster.close()
        for thread in threads:
            thread.join()


@dataclass
class _Stop:
    """Whether this process was asked to stop.

    No Event: another signal meanwhile would wait for its lock for ever.
    """

    asked: bool = False


class _Worker(SimpleWorker):  # type: ignore[misc]  # rq is not typed
    """Marks a job's log lines with the request that queued it, and counts how jobs end."""

    def perform_job(self, job: Any, queue: Any, execution: Any) -> bool:
        """Run one job; whether it succeeded."""
        began = time.monotonic()
        with logs.about(job.meta.get(REQUEST), job.id):
            done = bool(super().perform_job(job, queue, execution))
        if not job.elsewhere:
            counters.count(
                self.connection, queue.name, failed=not done, seconds=time.monotonic() - began
            )
        return done


def _work(
    settings: Settings, queues: Sequence[str], burst: bool, told: _Stop, cluster: Cluster | None
) -> bool:
    """Run jobs until told to stop, which gives True; False when Redis went away."""
    connection = connect(settings)
    if not is_up(connection):
        log.warning("no Redis answers, waiting for it; is REDIS_URL right, or `alc serve` running?")
        return False
    worker = _Worker(
        [str(name) for name in queues],
        connection=connection,
        job_class=AlcJob if cluster is None else cluster.job_class(),
        serializer=JSONSerializer,
    )
    stop = worker.request_stop

    def request_stop(number: int, frame: object) -> None:
        told.asked = True
        if cluster is not None:
            cluster.stopping = True
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
    if burst and not told.asked and cluster is not None and cluster.finish():
        return False  # what the cluster has done may have more jobs follow
    return burst or told.asked


def _stay_signed_in(
    settings: Settings,
    connection: Redis,
    me: worker_registry.RegisteredWorker,
    over: threading.Event,
) -> None:
    """Sign this worker in every few seconds, and out at the end; end its process if it hangs.

    It has a thread of its own, because the watchdog may have to wait for the database.
    """
    while not over.is_set():
        if leases.is_hung():
            end_hung(settings.hung_after_minutes)
        with suppress(RedisError):
            worker_registry.sign_in(connection, me, settings)
        over.wait(RECOVER_EVERY_S)
    with suppress(RedisError):
        worker_registry.sign_out(connection, me)


def _recover_regularly(jobs: Jobs, over: threading.Event) -> None:
    """Queue again what other workers or Redis have lost, at once and then every few seconds."""
    while True:
        try:
            executor.recover(store(), jobs.enqueue_part)
            enqueue_images(jobs)
        except Exception as error:  # this thread must go on: nobody else queues lost work
            log.warning("looking for lost work failed, trying again: %r", error)
        if over.wait(RECOVER_EVERY_S):
            return
