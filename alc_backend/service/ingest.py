"""The service's own thread: the inbox into the ledger, lost webhooks repaired, rounds started."""

from __future__ import annotations

import logging
import threading
import time

from prometheus_client import Counter
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from alc_backend import inbox, rounds
from alc_backend.errors import AlcError, SettingsError
from alc_backend.jobs.queues import Jobs
from alc_backend.labelstudio.client import Client
from alc_backend.reconcile import reconcile
from alc_backend.store.database import Store
from alc_backend.store.models import Project

log = logging.getLogger(__name__)

PAUSE_S = 1.0
"""How long the inbox is left alone when nothing arrives in it."""

TIDY_EVERY_S = 3600.0

ANSWERS = Counter(
    "alc_answers", "Annotations that webhooks reported, by what became of them", ["outcome"]
)


class Ingest:
    """Reads the inbox in the background; use as a context manager.

    It needs neither Redis nor, for answers, Label Studio: both may be away.
    """

    def __init__(self, store: Store, jobs: Jobs) -> None:
        self._store, self._jobs = store, jobs
        self._over, self._arrived = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._client: Client | None = None
        self._reconcile_at = self._tidy_at = float("-inf")

    def __enter__(self) -> Ingest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._arrived.set()
        self._thread.join(10)
        if self._client is not None:
            self._client.close()

    def notice(self) -> None:
        """Something is in the inbox."""
        self._arrived.set()

    def _run(self) -> None:
        while not self._over.is_set():
            self._arrived.clear()
            try:
                self.work()
            except (AlcError, SQLAlchemyError) as error:
                log.warning("reading the inbox failed, trying again: %s", error)
            self._arrived.wait(PAUSE_S)

    def work(self) -> None:
        """One turn: read what waits; now and then look for what webhooks lost."""
        counts = inbox.drain(self._store, self._connect, self._over.is_set)
        for name, count in counts.items():
            ANSWERS.labels(name).inc(count)
        now = time.monotonic()
        if now >= self._reconcile_at:
            self._reconcile_at = now + self._store.settings.reconcile_every_s
            self._reconcile()
        elif not counts:
            return
        if self._store.settings.start_by_itself:
            rounds.start_due(self._store, self._jobs.enqueue_part)
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_EVERY_S
            inbox.forget_old(self._store)

    def _reconcile(self) -> None:
        with self._store.reading() as session:
            connected = session.scalars(
                select(Project.id).where(Project.query_project.is_not(None))
            ).all()
        for project_id in connected:
            try:
                found = reconcile(self._store, self._connect(), project_id)
            except SettingsError:
                return  # no token: an installation that only shows masks
            except AlcError as error:
                log.warning("project %s was not reconciled: %s", project_id, error)
            else:
                log.debug("project %s: %s", project_id, dict(found))

    def _connect(self) -> Client:
        if self._client is None:
            self._client = Client.from_settings(self._store.settings)
        return self._client
