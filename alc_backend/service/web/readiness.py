"""`/ready`: whether the service can take answers, for whatever starts and balances services."""

from __future__ import annotations

import threading
import time

from sqlalchemy import text

from alc_backend.common.disk import free_gib
from alc_backend.service.jobs.queues import connect, is_up
from alc_backend.store.database import Store

FRESH_S = 1.0
"""How long a result is given again before anything is checked anew."""

REDIS_PATIENCE_S = 0.5
"""How long Redis may take to answer: those who ask for readiness wait only a few seconds."""


class Readiness:
    """Checks whether answers can be kept: the database takes writes, the disk has room.

    Redis and Label Studio may be away: answers are kept meanwhile, and taking the service out of
    use for that would lose them. A Redis that is away is reported as ``degraded``.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._redis = connect(store.settings, patience_s=REDIS_PATIENCE_S)
        self._known: tuple[float, dict[str, bool]] = (float("-inf"), {})
        self._turn = threading.Lock()

    def checks(self) -> dict[str, bool]:
        """Whether database, disk and redis work, by name; looked at once a second at most.

        One caller looks; the others get what was known before, and wait only for the first look.
        """
        if time.monotonic() - self._known[0] > FRESH_S and self._turn.acquire(
            blocking=not self._known[1]
        ):
            try:
                if time.monotonic() - self._known[0] > FRESH_S:
                    found = {
                        "database": self._database(),
                        "disk": self._disk(),
                        "redis": is_up(self._redis),
                    }
                    self._known = time.monotonic(), found
            finally:
                self._turn.release()
        return self._known[1]

    def _database(self) -> bool:
        try:
            with self._store.session() as session:  # takes the writer's lock
                session.execute(text("SELECT 1"))
        except Exception:  # whatever it is, answers cannot be kept
            return False
        return True

    def _disk(self) -> bool:
        settings = self._store.settings
        try:
            return free_gib(settings.data_dir) >= settings.min_free_gb
        except OSError:
            return False
