"""Opening the database: SQLite in WAL mode by default, PostgreSQL by address."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker

from alc_backend.settings import Settings
from alc_backend.store.files import ProjectFiles
from alc_backend.store.migrate import address_of, begin, make_engine, migrate, opening
from alc_backend.store.models import Image, Project
from alc_backend.store.storage import Storage

if TYPE_CHECKING:
    pass

SEEN_S = 5.0
"""How long a project is taken as it was last read, where that is said."""


class Store:
    """The database and the array files of one installation."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._seen: dict[int, tuple[float, Project]] = {}
        self.storage = Storage(settings.files, settings.data_dir / "cache")
        self.engine = _engine(settings)
        # SQLite has one writer; its threads would wait for each other by sleeping and trying again.
        sqlite = self.engine.dialect.name == "sqlite"
        self._turn: AbstractContextManager[Any] = threading.Lock() if sqlite else nullcontext()
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        reading: dict[str, Any] = {"read_only": True}
        if self.engine.dialect.name == "postgresql":
            reading["isolation_level"] = "REPEATABLE READ"
        self._reading = sessionmaker(
            self.engine.execution_options(**reading), expire_on_commit=False
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back when an exception leaves it."""
        with self._turn, self._writing.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A consistent view for reading; never makes a writer wait."""
        with self._reading.begin() as session:
            yield session

    def project_of(self, label_studio_project: int) -> Project | None:
        """The project that a Label Studio project belongs to, as it was a few seconds ago."""
        found = self._seen.get(label_studio_project)
        if found is not None and time.monotonic() - found[0] < SEEN_S:
            return found[1]
        with self.reading() as session:
            project = session.scalars(
                select(Project).where(
                    (Project.dataset_project == label_studio_project)
                    | (Project.query_project == label_studio_project)
                )
            ).first()
        if project is not None:
            self._seen[label_studio_project] = time.monotonic(), project
        return project

    def images(self, project_id: int, split: str) -> list[Image]:
        """The images of one split, by image key."""
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
        return ProjectFiles(self.storage, project_id, self.settings.data_dir / "work")

    def close(self) -> None:
        """Close the database connections."""
        self.engine.dispose()


def _engine(settings: Settings) -> Engine:
    with opening():
        url = address_of(settings)
        sqlite = url.get_backend_name() == "sqlite"
        if sqlite:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        migrate(url)
        engine = make_engine(url, pool_pre_ping=not sqlite)
        if sqlite:
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", begin)
    return engine


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
