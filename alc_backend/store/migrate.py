"""The tables of the database: created, brought to this version's form, emptied for a backup."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import MetaData, func, inspect, select
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError

from alc_backend.common.private import make_private_folder
from alc_backend.errors import DatasetError, SettingsError
from alc_backend.settings import Settings
from alc_backend.store import cvat, derived, incoming, pages
from alc_backend.store.connections import (
    POSTGRESQL,
    database_errors,
    database_url,
    is_sqlite,
    may_exist,
    migration_engine,
)
from alc_backend.store.models import Base, Project

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

MIGRATIONS = Path(__file__).with_name("migrations")
"""The folder of Alembic's ``env.py`` and of the migrations, one file each."""

_TABLES = {
    *Base.metadata.tables,
    *(table.__tablename__ for table in (incoming.Arrival, incoming.Attempt, incoming.Event)),
    *(table.__tablename__ for table in (incoming.UnreadTask, pages.Page, pages.Tile)),
    *(table.__tablename__ for table in (cvat.CvatProject, cvat.CvatFrame, cvat.CvatTask)),
    *(table.__tablename__ for table in (cvat.CvatJob, cvat.CvatQuestion)),
    *(table.__tablename__ for table in (derived.ImageState, derived.Standing, derived.Tally)),
}
"""The names of our tables."""

_MIGRATION_LOCK = 7_210_301
"""Advisory lock of PostgreSQL that one migrating process holds."""

_VERSION_TABLE = "alembic_version"

_SHOWN = 3
"""Tables of another program that a message names."""


def revisions(settings: Settings) -> tuple[str | None, str]:
    """The revision of the database's tables, and that of this version of alc-backend.

    The first is None where there are no tables yet. Nothing is created or changed. Raises
    SettingsError when the database cannot be opened.
    """
    with database_errors():
        url = database_url(settings)
        engine = migration_engine(url).execution_options(read_only=True)
        newest = _newest(_scripts())
        if not may_exist(url):
            return None, newest
        with engine.connect() as connection:
            return _revision_of(connection), newest


def upgrade(url: URL) -> None:
    """Bring the tables to this version's form; processes that start together wait for the first.

    Raises SettingsError for a database that a newer version, or another program, has created.
    """
    scripts = _scripts()
    engine = migration_engine(url)
    with engine.execution_options(read_only=True).connect() as connection:
        if _revision_of(connection) == _newest(scripts):
            return
    with engine.begin() as connection:
        if connection.dialect.name == POSTGRESQL:
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        revision = _revision_of(connection)
        if revision is None:
            _refuse_taken_names(connection)
        elif revision not in _known(scripts):
            raise SettingsError(
                "the database was made by a newer version of alc-backend; use that version, or "
                "set ALC_DATA_DIR (or DATABASE_URL) to a new place and run `alc init` again"
            )
        _migrate(connection, "head")


def check_empty(settings: Settings, revision: str) -> None:
    """Raise what :func:`empty_tables` would raise; nothing is created or changed."""
    with database_errors():
        _check_known(revision)
        url = database_url(settings)
        engine = migration_engine(url).execution_options(read_only=True)
        if may_exist(url):
            with engine.connect() as connection:
                _check_empty(connection)


@contextmanager
def empty_tables(settings: Settings, revision: str) -> Iterator[Connection]:
    """A transaction in which our tables, those of ``revision``, exist and are empty.

    For restoring a backup; the next Store brings them to this version's form. Raises SettingsError
    when there are projects already, or tables of another program; DatasetError when this version
    does not know the revision.
    """
    with ExitStack() as transaction:
        with database_errors():
            _check_known(revision)
            url = database_url(settings)
            if is_sqlite(url):
                make_private_folder(settings.data_dir)
            connection = transaction.enter_context(migration_engine(url).begin())
            _check_empty(connection)
            _drop_ours(connection)
            _migrate(connection, revision)
        yield connection


def _check_known(revision: str) -> None:
    """Raise DatasetError unless this version has the migrations up to ``revision``."""
    if revision not in _known(_scripts()):
        raise DatasetError(
            f"this version of alc-backend does not know the tables of {revision!r}; install the "
            "version that made the backup, or a newer one"
        )


def _check_empty(connection: Connection) -> None:
    """Raise SettingsError unless all tables, if there are any, are ours and without projects."""
    there = set(inspect(connection).get_table_names())
    foreign = there - _ours()
    if foreign:
        raise SettingsError(
            f"the database has tables of another program ({_named(foreign)}); give alc-backend a "
            "database of its own, by ALC_DATA_DIR or DATABASE_URL"
        )
    revision = _revision_of(connection)
    no_tables = there <= {_VERSION_TABLE}
    if revision not in _known(_scripts()) and not (no_tables and revision is None):
        raise SettingsError(
            "the database was made by another program or by another version of alc-backend "
            f"(its revision is {revision}); set ALC_DATA_DIR (or DATABASE_URL) to a new place"
        )
    if "projects" in there and connection.scalar(select(func.count()).select_from(Project)):
        raise SettingsError(
            "there are projects in the database already; set ALC_DATA_DIR to a new place, and so "
            "DATABASE_URL and ALC_FILES_URL where they are set"
        )


def _refuse_taken_names(connection: Connection) -> None:
    """Raise SettingsError when another program has tables with the names of ours."""
    taken = set(inspect(connection).get_table_names()) & _TABLES
    if taken:
        raise SettingsError(
            f"the database was made by another program, whose tables ({_named(taken)}) have the "
            "names of ours; set ALC_DATA_DIR (or DATABASE_URL) to a new place"
        )


def _named(tables: set[str]) -> str:
    return ", ".join([*sorted(tables)[:_SHOWN], *(["…"] if len(tables) > _SHOWN else [])])


def _ours() -> set[str]:
    """The names of our tables, in every revision."""
    return {*_TABLES, _VERSION_TABLE}


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


def _migrate(connection: Connection, revision: str) -> None:
    """Run the migrations up to ``revision`` in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, revision)


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(MIGRATIONS)


def _newest(scripts: ScriptDirectory) -> str:
    return str(scripts.get_current_head())


def _known(scripts: ScriptDirectory) -> set[str]:
    """The revisions that this version has migrations for."""
    return {script.revision for script in scripts.walk_revisions()}


def _revision_of(connection: Connection) -> str | None:
    """The revision of the tables; None where there are none, or they are another program's."""
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()
