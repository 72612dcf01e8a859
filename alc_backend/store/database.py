"""Opening the database: SQLite in WAL mode by default, PostgreSQL by address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine, event, inspect, select
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from alc_backend.errors import SettingsError
from alc_backend.settings import Settings
from alc_backend.store.files import ProjectFiles
from alc_backend.store.models import Base, Image


class Store:
    """The database and the array files of one installation."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = _engine(settings)
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        self._reading = sessionmaker(
            self.engine.execution_options(read_only=True), expire_on_commit=False
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back when an exception leaves it."""
        with self._writing.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A consistent view for reading; never makes a writer wait."""
        with self._reading.begin() as session:
            yield session

    def images(self, project_id: int, split: str) -> list[Image]:
        """The pictures of one split, by image key."""
        with self.reading() as session:
            return list(
                session.scalars(
                    select(Image)
                    .where(Image.project_id == project_id, Image.split == split)
                    .order_by(Image.key)
                )
            )

    def files(self, project_id: int) -> ProjectFiles:
        """The array files of a project."""
        return ProjectFiles(self.settings.data_dir, project_id)

    def close(self) -> None:
        """Close the database connections."""
        self.engine.dispose()


def _engine(settings: Settings) -> Engine:
    try:
        url = make_url(settings.database)
        sqlite = url.get_backend_name() == "sqlite"
        if sqlite:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, pool_pre_ping=not sqlite)
        if sqlite:
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin)
        Base.metadata.create_all(engine)
        _check_columns(engine)
    except (ArgumentError, SQLAlchemyError, OSError) as error:
        raise SettingsError(
            f"the database cannot be opened ({error}); check DATABASE_URL or ALC_DATA_DIR"
        ) from error
    return engine


def _check_columns(engine: Engine) -> None:
    """Raise SettingsError for a database that another version has made."""
    present = inspect(engine)
    for table in Base.metadata.sorted_tables:
        missing = {column.name for column in table.columns} - {
            column["name"] for column in present.get_columns(table.name)
        }
        if missing:
            raise SettingsError(
                f"the database was made by another version of alc-backend: its table {table.name} "
                f"has no {', '.join(sorted(missing))}; use that version, or set ALC_DATA_DIR (or "
                "DATABASE_URL) to a new place and run `alc init` again"
            )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Readers do not wait for the writer; writers wait for each other instead of failing."""
    connection.isolation_level = None  # SQLAlchemy's "begin" event starts the transactions
    for pragma in (
        "busy_timeout=30000",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    """Writers take the lock first: a read that turns into a write would fail, not wait."""
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
