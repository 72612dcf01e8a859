"""A cluster under Dask scores images and makes first label maps in place of a worker.

:class:`Cluster` belongs to a worker (``alc worker --dask``): it hands over ids of rows, a bounded
number at a time, and queues what follows. What the cluster does is :mod:`.dask_work`. What becomes
of a task is in the database: when the scheduler, this worker or a process of the cluster dies,
another worker finds what was left, as ever.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from alc_backend.common import logs
from alc_backend.common.loopback import is_loopback
from alc_backend.common.types import Json
from alc_backend.common.version import __version__
from alc_backend.errors import SettingsError
from alc_backend.service.jobs import counters, functions
from alc_backend.service.jobs.dask_work import IMAGES, PART, PAUSE_S, mark_of, work
from alc_backend.service.jobs.queues import LABEL_IMAGES, RUN_PART, AlcJob, Jobs, QueueName, connect
from alc_backend.settings import Settings
from alc_backend.store.models import Part, Project
from alc_backend.store.round_states import Step

log = logging.getLogger(__name__)

PER_THREAD = 2
"""Tasks that are handed over for each thread of the cluster: one that runs, and the next."""

CONNECT_S = 5.0
LOOK_EVERY_S = 0.2
SAY_EVERY_S = 60.0

QUEUES = {PART: QueueName.SCORE, IMAGES: QueueName.PSEUDO}
"""The queue from which each kind of task comes."""

_ADDRESS = re.compile(r"(tls|tcp)://(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}", re.ASCII)
_TLS = "DASK_DISTRIBUTED__COMM__TLS__"
_FILES = {"ca-file": "CA_FILE", "client.cert": "CLIENT__CERT", "client.key": "CLIENT__KEY"}
"""What Dask calls the files that our end of TLS needs, in its settings and in the environment."""


class Cluster:
    """The cluster of the Dask scheduler at ``address``: ``tls://host:8786``, or ``tcp://…``.

    Raises SettingsError for another address, for one without TLS that is not this machine's unless
    ``without_tls``, for files of TLS that are missing, and where Dask is not installed.
    """

    def __init__(self, settings: Settings, address: str, *, without_tls: bool = False) -> None:
        _check_address(address, without_tls)
        try:
            from distributed import Security
            from distributed.utils import LoopRunner
        except ImportError as error:
            raise SettingsError(
                f"--dask needs Dask, which cannot be imported ({error}); run `pip install "
                "'alc-backend[dask]'`"
            ) from error
        self._address, self._security = address, Security()
        if address.startswith("tls:"):
            _check_certificates(self._security)
        # Dask tells of each connection that ends, with a traceback, which is no news here.
        logging.getLogger("distributed.batched").setLevel(logging.WARNING)
        self._redis = connect(settings)
        self._jobs = Jobs(settings, self._redis)
        self._loop = LoopRunner()  # one for all tries: a client that fails leaves its own running
        self._client: Any = None
        self._in_flight: dict[str, Any] = {}
        self._said = "", 0.0
        self._not_before = 0.0
        self.stopping = False
        """Set, from a signal's handler too, for waiting to end and nothing to be handed over."""

    def job_class(self) -> type[AlcJob]:
        """Jobs that hand over to the cluster what it can do, and end then."""
        taken: dict[tuple[str, str], Callable[[int], None]] = {
            (QUEUES[PART], RUN_PART): self._take_part,
            (QUEUES[IMAGES], LABEL_IMAGES): self._take_images,
        }

        class ClusterJob(AlcJob):
            @property
            def func(self) -> Any:
                own = super().func
                take = taken.get((self.origin, self.func_name))
                self.elsewhere = take is not None
                return take or own

        return ClusterJob

    def finish(self) -> bool:
        """Wait until everything that was handed over is done; whether there was anything."""
        had = bool(self._in_flight)
        while self._in_flight and self._threads():
            time.sleep(LOOK_EVERY_S)
        return had

    def close(self) -> None:
        """Leave the cluster: what runs there is finished, what has not begun is left to others."""
        self.stopping = True
        if self._client is not None:
            with suppress(OSError):
                self._client.close(timeout=CONNECT_S)
        if self._loop.is_started():
            self._loop.stop()

    def _take_part(self, part_id: int) -> None:
        """Hand a part of the scoring over, unless it is gone or the cluster has it already."""
        with functions.store().reading() as session:
            part = session.get(Part, part_id)
            project = None if part is None or part.step != Step.SCORING else part.round.project
        if project is not None:
            self._hand_over(PART, part_id, project, f"alc-{PART}-{part_id}")

    def _take_images(self, project_id: int) -> None:
        """Hand some waiting images of a project over."""
        with functions.store().reading() as session:
            project = session.get_one(Project, project_id)
        name = f"alc-{IMAGES}-{project_id}-{secrets.token_hex(4)}"
        self._hand_over(IMAGES, project_id, project, name)

    def _hand_over(self, kind: str, row_id: int, project: Project, name: str) -> None:
        if name in self._in_flight or not self._has_room():
            return
        storage, mark = functions.store().storage, mark_of(project)
        if not storage.exists(mark):
            storage.write(mark, b"The processes of a cluster see by this file that they share it.")
        # Another key for each try: for one that it knows, Dask gives the result that it has.
        key = f"{name}-{secrets.token_hex(4)}"
        future = self._client.submit(
            work, kind, row_id, project.id, mark, __version__, key=key, pure=False
        )
        self._in_flight[name] = future
        future.add_done_callback(lambda ended: self._done(kind, name, ended))

    def _has_room(self) -> bool:
        """Wait until the cluster can take another task; False once this worker is to stop."""
        while not self.stopping:
            room = PER_THREAD * self._threads() - len(self._in_flight)
            if room > 0 and time.monotonic() >= self._not_before:
                return True
            time.sleep(LOOK_EVERY_S)
        return False

    def _threads(self) -> int:
        """The threads of the cluster; 0, and a line in the log, while it has none or is away."""
        try:
            if self._client is None or self._client.status == "closed":
                self._connect()
            ask = self._client.scheduler.ncores
            threads = sum(self._client.sync(ask, callback_timeout=CONNECT_S).values())
        except (OSError, asyncio.TimeoutError) as error:
            why = error or type(error).__name__
            self._say(
                f"no Dask scheduler answers at {self._address}, waiting for it ({why}); is the "
                "address right, and is `dask scheduler` running?"
            )
            return 0
        if not threads:
            self._say(
                f"the Dask scheduler at {self._address} has no workers, waiting for one; start "
                f"`dask worker {self._address} --nthreads 1` (one that has no alc-backend ends at "
                "its first task; its log says so)"
            )
        return int(threads)

    def _connect(self) -> None:
        from distributed import Client

        self._in_flight.clear()
        if not self._loop.is_started():
            self._loop.start()
        self._client = Client(
            self._address,
            loop=self._loop.loop,
            timeout=CONNECT_S,
            security=self._security,
            set_as_default=False,
        )
        log.info("connected to the Dask scheduler at %s", self._address)

    def _say(self, text: str) -> None:
        """Log a warning; the same one once a minute."""
        now = time.monotonic()
        if text != self._said[0] or now - self._said[1] >= SAY_EVERY_S:
            log.warning("%s", text)
            self._said = text, now

    def _done(self, kind: str, name: str, future: Any) -> None:
        """Count a task that has ended, and queue what follows; called in a thread of Dask's."""
        try:
            if future.status != "cancelled":  # as when the scheduler goes away, or this worker ends
                error = future.exception()
                self._take_result(kind, name, future.result() if error is None else _failed(error))
        except OSError as error:  # every worker looks for what was left
            log.warning("what became of %s was not heard, as Dask went away: %s", name, error)
        except Exception:
            log.exception("what follows %s was not queued", name)
        finally:
            if self._in_flight.get(name) is future:  # not that of another try
                del self._in_flight[name]

    def _take_result(self, kind: str, name: str, said: Json) -> None:
        problem, seconds = said["problem"], said.get("seconds", 0.0)
        counters.count(self._redis, QUEUES[kind], failed=problem is not None, seconds=seconds)
        if problem is not None:
            self._not_before = time.monotonic() + said.get("pause", 0.0)
            log.error("%s is still to be done: %s", name, logs.one_line(problem))
        elif kind == IMAGES:
            functions.enqueue_images(self._jobs)
        else:
            self._enqueue(said["following"])

    def _enqueue(self, part_ids: list[int]) -> None:
        with functions.store().reading() as session:
            parts = [session.get(Part, part_id) for part_id in part_ids]
        for part in parts:
            if part is not None:
                self._jobs.enqueue_part(part)


def _failed(error: BaseException) -> Json:
    """What :func:`work` would have said, had it been found or its process gone on."""
    needed = f"see the logs of the Dask workers, each of which needs alc-backend {__version__}"
    return {"problem": f"{error!r}; {needed}", "pause": PAUSE_S}


def _check_address(address: str, without_tls: bool) -> None:
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise SettingsError(
            f"--dask {address!r} is not the address of a Dask scheduler; give one such as "
            "tls://host:8786"
        )
    if found[1] == "tcp" and not (without_tls or is_loopback(found[2].strip("[]"))):
        raise SettingsError(
            f"--dask {address}: whoever reaches a Dask scheduler without TLS can run programs on "
            "its machines and on this one; use tls://, or add --dask-without-tls where nobody else "
            "is in that network"
        )


def _check_certificates(security: Any) -> None:
    """Raise SettingsError when Dask's settings name no files for TLS, or some of no use."""
    import dask

    missing = [
        _TLS + variable
        for name, variable in _FILES.items()
        if not dask.config.get(f"distributed.comm.tls.{name}", None)
    ]
    if missing:
        raise SettingsError(
            f"--dask tls://… needs files for TLS; name them in {', '.join(missing)}"
        )
    try:
        security.get_connection_args("client")
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"the files that {_TLS}… name cannot be used ({error})") from error
