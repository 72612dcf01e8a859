"""The service's threads: the inbox read into the ledger, lost answers found, rounds started."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from prometheus_client import Counter
from sqlalchemy import select

from alc_backend.errors import AlcError
from alc_backend.labelstudio.client import Client
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.annotations.reconciliation import reconcile
from alc_backend.loop.cvat import answers as cvat_answers
from alc_backend.loop.cvat.projects import projects_in_cvat
from alc_backend.loop.rounds import lifecycle
from alc_backend.loop.rounds.platforms import Cvat
from alc_backend.service.jobs.queues import Jobs
from alc_backend.store.database import Store
from alc_backend.store.models import Project

log = logging.getLogger(__name__)

PAUSE_S = 1.0
"""How long an empty inbox is left alone when nothing arrives."""

FORGET_EVERY_S = 3600.0
"""How often events that were read long ago are deleted."""

QUIET_S, PATIENCE_S = 0.2, 5.0
"""The inbox is read once nothing has arrived for QUIET_S, or after PATIENCE_S in any case."""

STOP_S = 1.0
"""How long stopping waits for each thread; what it leaves undone is done after the next start."""

ANSWERS = Counter(
    "alc_answers", "Annotations that webhooks reported, by what became of them", ["outcome"]
)


class Ingest:
    """Reads the inbox in the background while this context manager is open.

    Reading answers needs Label Studio, which alone is believed, and no Redis. What webhooks lost is
    looked for by a second thread.
    """

    def __init__(self, store: Store, jobs: Jobs) -> None:
        self._store, self._jobs = store, jobs
        self._over, self._arrived = threading.Event(), threading.Event()
        self._last_arrival = float("-inf")
        self._waits_since: float | None = None
        self._threads = [
            threading.Thread(target=self._read, name="inbox", daemon=True),
            threading.Thread(target=self._repair, name="reconcile", daemon=True),
        ]

    def __enter__(self) -> Ingest:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._arrived.set()
        for thread in self._threads:
            thread.join(STOP_S)

    def notice(self) -> None:
        """Wake the reader: something has arrived in the inbox."""
        self._last_arrival = time.monotonic()
        self._arrived.set()

    def _let_pass(self) -> bool:
        """Whether to wait a little, because webhooks are arriving that should be answered first."""
        now = time.monotonic()
        if now - self._last_arrival > QUIET_S:
            self._waits_since = None
            return False
        self._waits_since = self._waits_since or now
        return now - self._waits_since < PATIENCE_S

    def _read(self) -> None:
        forgot = float("-inf")
        with _LazyClient(self._store) as client:
            while not self._over.is_set():
                self._arrived.clear()
                while self._let_pass() and not self._over.wait(QUIET_S / 4):
                    pass
                try:
                    counts = webhooks.drain(
                        self._store, client.get, lambda: self._over.is_set() or self._let_pass()
                    )
                    counts += cvat_answers.read_reported(self._store)
                    for name, count in counts.items():
                        ANSWERS.labels(name).inc(count)
                    if counts and self._store.settings.start_by_itself:
                        lifecycle.start_due(self._store, self._jobs.enqueue_part)
                    if time.monotonic() - forgot > FORGET_EVERY_S:
                        forgot = time.monotonic()
                        webhooks.forget_old(self._store)
                except Exception as error:  # this thread must go on: answers wait for it
                    log.exception("reading the inbox failed, trying again: %r", error)
                self._arrived.wait(PAUSE_S)

    def _repair(self) -> None:
        with _LazyClient(self._store) as client:
            while True:
                try:
                    self._reconcile(client)
                except Exception as error:  # this thread, too, must go on
                    log.exception("looking for lost answers failed, trying again: %r", error)
                if self._over.wait(self._store.settings.reconcile_every_s):
                    return

    def _reconcile(self, client: _LazyClient) -> None:
        cvat = Cvat(self._store)
        connected: list[tuple[int, Callable[[int], Mapping[str, int]]]] = [
            (project_id, cvat.collect) for project_id in projects_in_cvat(self._store)
        ]
        if self._store.settings.label_studio_api_key is not None:  # else it only shows masks

            def read(project_id: int) -> Mapping[str, int]:
                return reconcile(self._store, client.get(), project_id)

            with self._store.reading() as session:
                there = select(Project.id).where(Project.query_project.is_not(None))
                connected += [(project_id, read) for project_id in session.scalars(there)]
        for project_id, collect in connected:
            try:
                found = collect(project_id)
            except AlcError as error:
                log.warning("project %s was not reconciled: %s", project_id, error)
            else:
                log.debug("project %s: %s", project_id, dict(found))
        if connected and self._store.settings.start_by_itself:
            lifecycle.start_due(self._store, self._jobs.enqueue_part)


class _LazyClient:
    """A client of Label Studio, made when it is first needed."""

    def __init__(self, store: Store) -> None:
        self._settings = store.settings
        self._client: Client | None = None

    def __enter__(self) -> _LazyClient:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()

    def get(self) -> Client:
        if self._client is None:
            self._client = Client.from_settings(self._settings)
        return self._client
