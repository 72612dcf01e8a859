"""What `alc serve` runs: the web service and, without REDIS_URL, a private Redis and a worker."""

from __future__ import annotations

import logging
import threading

import uvicorn

from alc_backend.errors import ServiceError
from alc_backend.service.jobs.processes import Processes, start_redis, start_worker
from alc_backend.service.web.app import create_app
from alc_backend.service.web.connections import Connection
from alc_backend.settings import Settings

log = logging.getLogger(__name__)

CHECK_EVERY_S = 1.0

FINISH_S = 3
"""How long requests may go on when the service stops, in seconds."""


def run_service(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; every process started here ends with it."""
    with Processes(settings.data_dir / "logs") as processes:
        if settings.redis_url is None:
            start_redis(processes, settings)
            start_worker(processes)
        server = server_of(settings)
        over = threading.Event()
        threading.Thread(
            target=_watch, args=(processes, server, over), name="processes", daemon=True
        ).start()
        try:
            server.run()
        finally:
            over.set()


def server_of(settings: Settings) -> uvicorn.Server:
    """The server of the web application, to be run; raises SettingsError as create_app does."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            http=Connection,
            ws="none",
            proxy_headers=False,  # ForwardedFor reads them, from trusted proxies
            server_header=False,
            log_level="error",  # its warnings are about clients, which may send any number
            log_config=None,  # logs as the rest of this program does
            access_log=False,
            timeout_graceful_shutdown=FINISH_S,
        )
    )


def _watch(processes: Processes, server: uvicorn.Server, over: threading.Event) -> None:
    """Restart the worker and Redis when they die; end the service when that is not possible."""
    while not over.wait(CHECK_EVERY_S):
        try:
            processes.check()
        except ServiceError as error:
            log.error("%s; stopping", error)
            server.should_exit = True
            return
