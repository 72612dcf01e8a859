"""The worker process: runs jobs one after another and brings back work that others left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from rq import SimpleWorker
from sqlalchemy.exc import SQLAlchemyError

from alc_backend import rounds
from alc_backend.errors import ServiceError, SettingsError
from alc_backend.jobs.functions import store
from alc_backend.jobs.queues import QUEUES, Jobs, connect
from alc_backend.settings import Settings

log = logging.getLogger(__name__)

RECOVER_EVERY_S = 15.0


def run_worker(settings: Settings, queues: Sequence[str] = QUEUES, *, burst: bool = False) -> None:
    """Work on ``queues``, in their order, until stopped (``burst``: until they are empty).

    Jobs run in this very process: networks stay loaded, and CUDA never meets a fork. Raises
    SettingsError for an unknown queue, ServiceError without Redis.
    """
    unknown = [name for name in queues if name not in QUEUES]
    if unknown:
        raise SettingsError(f"queue {unknown[0]!r} is unknown; choose from {', '.join(QUEUES)}")
    connection = connect(settings)
    jobs = Jobs(settings, connection)
    over = threading.Event()
    watchdog = threading.Thread(target=_watch, args=(jobs, over), name="watchdog", daemon=True)
    watchdog.start()
    try:
        SimpleWorker(list(queues), connection=connection).work(burst=burst, logging_level="WARNING")
    finally:
        over.set()
        watchdog.join()


def _watch(jobs: Jobs, over: threading.Event) -> None:
    """Queue steps again whose worker has died: at the start and every few seconds."""
    while True:
        try:
            rounds.recover(store(), jobs.enqueue_step)
        except (ServiceError, SQLAlchemyError) as error:
            log.warning("looking for left work failed, trying again: %s", error)
        if over.wait(RECOVER_EVERY_S):
            return
