"""Connections to the database: SQLite in WAL mode by default, PostgreSQL by address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from alc_backend.errors import SettingsError
from alc_backend.settings import Settings

SQLITE, POSTGRESQL = "sqlite", "postgresql"

_DRIVERS = {
    SQLITE: "begin the address with sqlite:///",
    POSTGRESQL: "run `pip install 'alc-backend[postgres]'`, and begin the address with "
    "postgresql://",
}
"""The databases that are supported, and what to do when the driver is not there."""

_BUSY_TIMEOUT_MS = 30_000
"""How long a writer of SQLite waits for another."""


def database_url(settings: Settings) -> URL:
    """The address in force; SettingsError for one that cannot be read or is not supported."""
    try:
        url = make_url(settings.database)
    except (ArgumentError, ValueError):  # the latter quotes what may be part of a password
        raise SettingsError(
            "DATABASE_URL is no address of a database; write it as "
            "postgresql://USER:PASSWORD@HOST:PORT/NAME, or leave it out for SQLite"
        ) from None
    if url.get_backend_name() not in _DRIVERS:
        raise SettingsError(
            f"DATABASE_URL: {url.drivername}:// is not supported, only SQLite (sqlite:///…) and "
            "PostgreSQL (postgresql://…, with `pip install 'alc-backend[postgres]'`)"
        )
    return url.set(drivername="postgresql+psycopg") if url.drivername == POSTGRESQL else url


def is_sqlite(url: URL) -> bool:
    """Whether the address is that of an SQLite database."""
    return url.get_backend_name() == SQLITE


def may_exist(url: URL) -> bool:
    """False where there is no SQLite file yet, which connecting would create."""
    return not is_sqlite(url) or url.database is None or Path(url.database).exists()


def store_engine(url: URL) -> Engine:
    """The engine of a store, which keeps its connections open.

    Raises SettingsError when the driver is not installed.
    """
    if not is_sqlite(url):
        return _make_engine(url, pool_pre_ping=True)
    engine = _make_engine(url)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def migration_engine(url: URL) -> Engine:
    """An engine that keeps no connection, and with SQLite checks no foreign keys.

    Raises SettingsError when the driver is not installed.
    """
    engine = _make_engine(url, poolclass=NullPool)
    if is_sqlite(url):
        event.listen(engine, "connect", _wait_for_locks)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def database_errors() -> Iterator[None]:
    """Errors of the database, or of its migrations, become a SettingsError."""
    from alembic.util import CommandError

    try:
        yield
    except (SQLAlchemyError, CommandError, OSError) as error:
        raise SettingsError(
            f"the database cannot be opened ({error}); check DATABASE_URL or ALC_DATA_DIR"
        ) from error


def _make_engine(url: URL, **options: Any) -> Engine:
    try:
        return create_engine(url, **options)
    except ImportError as error:
        raise SettingsError(
            f"DATABASE_URL: the driver of {url.drivername}:// is not installed ({error}); "
            f"{_DRIVERS[url.get_backend_name()]}"
        ) from error


def _prepare_sqlite(connection: Any, record: Any) -> None:
    """Let readers go on beside the writer, and check foreign keys."""
    _wait_for_locks(connection, record)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _wait_for_locks(connection: Any, _record: Any) -> None:
    """Let writers wait for each other instead of failing."""
    connection.isolation_level = None  # SQLAlchemy's "begin" event starts the transactions
    connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")


def _begin_sqlite(connection: Connection) -> None:
    """Let a writer take the lock first: a read that turns into a write would fail, not wait."""
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
