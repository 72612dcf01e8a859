"""The tables of the database: made, brought to this version's form, emptied for a backup."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, create_engine, event, func, inspect, select
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from alc_backend.errors import DatasetError, SettingsError
from alc_backend.settings import Settings
from alc_backend.store.models import Base, Project

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

_MIGRATION_LOCK = 7_210_301
"""Advisory lock of PostgreSQL that one migrating process holds."""

_VERSION_TABLE = "alembic_version"

_DRIVERS = {
    "sqlite": "begin the address with sqlite:///",
    "postgresql": "run `pip install 'alc-backend[postgres]'`, and begin the address with "
    "postgresql://",
}
"""The databases that are supported, and what to do when the driver is not there."""

_SHOWN = 3
"""Foreign tables that a message names."""


def revisions(settings: Settings) -> tuple[str | None, str]:
    """The revision of the database, and that of this version; nothing is migrated or made.

    The first is None where there are no tables yet. Raises SettingsError when the database cannot
    be opened.
    """
    with opening():
        engine = _plain_engine(address_of(settings))
        newest = str(_scripts(_config()).get_current_head())
        return _revision(engine) if _may_be_there(engine.url) else None, newest


def check_empty(settings: Settings, revision: str) -> None:
    """Raise what :func:`empty` would raise for this database; nothing is made or changed."""
    with opening():
        _check_known(revision)
        engine = _plain_engine(address_of(settings)).execution_options(read_only=True)
        if _may_be_there(engine.url):
            with engine.connect() as connection:
                _check_empty(connection)


@contextmanager
def empty(settings: Settings, revision: str) -> Iterator[Connection]:
    """One transaction in a database of ours without projects, its tables those of ``revision``.

    For restoring a backup; the next Store brings them to this version's form. Raises SettingsError
    when there are projects already, or tables of another program; DatasetError when this version
    does not know the revision.
    """
    from alembic import command

    with ExitStack() as transaction:
        with opening():
            _check_known(revision)
            url = address_of(settings)
            if url.get_backend_name() == "sqlite":
                settings.data_dir.mkdir(parents=True, exist_ok=True)
            connection = transaction.enter_context(_plain_engine(url).begin())
            _check_empty(connection)
            _drop_ours(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
        yield connection


def _check_known(revision: str) -> None:
    """Raise DatasetError unless this version has the migrations up to ``revision``."""
    known = [script.revision for script in _scripts(_config()).walk_revisions()]
    if revision not in known:
        raise DatasetError(
            f"this version of alc-backend does not know the tables of {revision!r}; install the "
            "version that made the backup, or a newer one"
        )


def _check_empty(connection: Connection) -> None:
    """Raise SettingsError unless all that is there are tables of ours, without projects."""
    from alembic.runtime.migration import MigrationContext

    there = set(inspect(connection).get_table_names())
    foreign = sorted(there - _ours())
    if foreign:
        raise SettingsError(
            f"the database has tables of another program ({', '.join(foreign[:_SHOWN])}"
            f"{', …' if len(foreign) > _SHOWN else ''}); give alc-backend a database of its own, "
            "by ALC_DATA_DIR or DATABASE_URL"
        )
    revision = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in _scripts(_config()).walk_revisions()}
    if revision not in known and there - {_VERSION_TABLE}:
        raise SettingsError(
            "the database was made by another program or by another version of alc-backend "
            f"(its revision is {revision}); set ALC_DATA_DIR (or DATABASE_URL) to a new place"
        )
    if "projects" in there and connection.scalar(select(func.count()).select_from(Project)):
        raise SettingsError(
            "there are projects in the database already; set ALC_DATA_DIR to a new place, and so "
            "DATABASE_URL and ALC_FILES_URL where they are set"
        )


def _ours() -> set[str]:
    """The tables of ours; those of earlier revisions had the same names."""
    return {*Base.metadata.tables, _VERSION_TABLE}


def _drop_ours(connection: Connection) -> None:
    """Drop our tables, each after those that refer to it; never what others made of them."""
    there = MetaData()
    there.reflect(connection, only=lambda name, _: name in _ours())
    try:
        there.drop_all(connection)
    except DBAPIError as error:
        reason = str(error.orig).partition("\n")[0]  # PostgreSQL goes on to advise CASCADE
        raise SettingsError(
            f"the empty tables of alc-backend in the database cannot be dropped ({reason}); give "
            "alc-backend a database of its own, by DATABASE_URL"
        ) from error


@contextmanager
def opening() -> Iterator[None]:
    """Errors of the database, or of its migrations, become a SettingsError."""
    from alembic.util import CommandError

    try:
        yield
    except (SQLAlchemyError, CommandError, OSError) as error:
        raise SettingsError(
            f"the database cannot be opened ({error}); check DATABASE_URL or ALC_DATA_DIR"
        ) from error


def address_of(settings: Settings) -> URL:
    """The address in force; SettingsError for a database of another kind than ours."""
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
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _may_be_there(url: URL) -> bool:
    """Whether to look: opening an SQLite database that is not there would make it."""
    here = url.database if url.get_backend_name() == "sqlite" else None
    return here is None or Path(here).exists()


def make_engine(url: URL, **options: Any) -> Engine:
    """SQLAlchemy's engine; SettingsError when the driver of the database is not installed."""
    try:
        return create_engine(url, **options)
    except ImportError as error:
        raise SettingsError(
            f"DATABASE_URL: the driver of {url.drivername}:// is not installed ({error}); "
            f"{_DRIVERS[url.get_backend_name()]}"
        ) from error


def migrate(url: URL) -> None:
    """Bring the tables to this version's form; processes that start together wait for the first.

    Raises SettingsError for a database that a newer version, or another program, has made.
    """
    from alembic import command
    from alembic.runtime.migration import MigrationContext

    config = _config()
    scripts = _scripts(config)
    engine = _plain_engine(url)
    if _revision(engine) == scripts.get_current_head():
        return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        revision = MigrationContext.configure(connection).get_current_revision()
        if revision not in {None, *(script.revision for script in scripts.walk_revisions())}:
            raise SettingsError(
                "the database was made by a newer version of alc-backend; use that version, or "
                "set ALC_DATA_DIR (or DATABASE_URL) to a new place and run `alc init` again"
            )
        config.attributes["connection"] = connection
        if revision is None and inspect(connection).has_table("projects"):
            raise SettingsError(
                "the database was made by another program; set ALC_DATA_DIR (or DATABASE_URL) to a "
                "new place"
            )
        command.upgrade(config, "head")


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def _scripts(config: Config) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config)


def _plain_engine(url: URL) -> Engine:
    """An engine of the migrations' own: SQLite checks no foreign keys."""
    engine = make_engine(url, poolclass=NullPool)
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _wait_for_locks)
        event.listen(engine, "begin", begin)
    return engine


def _revision(engine: Engine) -> str | None:
    from alembic.runtime.migration import MigrationContext

    with engine.execution_options(read_only=True).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _wait_for_locks(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" event starts the transactions
    connection.execute("PRAGMA busy_timeout=30000")


def begin(connection: Any) -> None:
    """Writers take the lock first: a read that turns into a write would fail, not wait."""
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
