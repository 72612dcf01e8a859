"""The store: the database, in transactions, and the array files of each project."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, sessionmaker

from alc_backend.common.private import make_private_folder
from alc_backend.settings import Settings
from alc_backend.store.connections import (
    POSTGRESQL,
    SQLITE,
    database_errors,
    database_url,
    is_sqlite,
    store_engine,
)
from alc_backend.store.files import ProjectFiles
from alc_backend.store.migrate import upgrade
from alc_backend.store.models import Image, Project
from alc_backend.store.storage import Storage


class NestedSessionError(RuntimeError):
    """A second session was asked for while the same thread has one open.

    Whoever holds a connection while it waits for another one can keep all of them from everybody,
    and a second writer of SQLite waits for the first for ever.
    """


SEEN_S = 5.0
"""How long :meth:`Store.project_of` gives a project as it was last read, in seconds."""


class Store:
    """The database and the array files of one installation.

    Opening it creates the tables, or brings them to this version's form. Raises SettingsError for
    a database or a storage that cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._seen: dict[int, tuple[float, Project]] = {}
        self._here = threading.local()
        self.storage = Storage(settings.files, settings.data_dir / "cache")
        self.engine = _engine(settings)
        kind = self.engine.dialect.name
        # SQLite has one writer; its threads would wait for each other by sleeping and trying again.
        self._turn: AbstractContextManager[Any] = (
            threading.Lock() if kind == SQLITE else nullcontext()
        )
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        reading: dict[str, Any] = {"read_only": True}
        if kind == POSTGRESQL:
            reading["isolation_level"] = "REPEATABLE READ"
        self._reading = sessionmaker(
            self.engine.execution_options(**reading), expire_on_commit=False
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back when an exception leaves it.

        Raises NestedSessionError in a thread that has a session of this store open.
        """
        with self._only_one(), self._turn, self._writing.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction for reading: a consistent view that never makes a writer wait.

        Raises NestedSessionError in a thread that has a session of this store open.
        """
        with self._only_one(), self._reading.begin() as session:
            yield session

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Refuse a second session of one thread, for as long as the context lasts."""
        if getattr(self._here, "busy", False):
            raise NestedSessionError(
                "this thread has a database session open already; pass that one on, or end it first"
            )
        self._here.busy = True
        try:
            yield
        finally:
            self._here.busy = False

    def project_of(self, label_studio_project: int) -> Project | None:
        """The project that a Label Studio project belongs to, as it was up to 5 seconds ago."""
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

    def images(self, project_id: int, split: str, *, with_truth: bool = False) -> list[Image]:
        """The images of one split, TRAIN or VAL, that are in the dataset, ordered by key.

        ``with_truth``: only those whose true label map is known.
        """
        wanted = select(Image).where(
            Image.project_id == project_id, Image.split == split, Image.removed.is_(None)
        )
        if with_truth:
            wanted = wanted.where(Image.has_truth)
        with self.reading() as session:
            return list(session.scalars(wanted.order_by(Image.key)))

    def files(self, project_id: int) -> ProjectFiles:
        """The array files of a project."""
        return ProjectFiles(self.storage, project_id, self.settings.data_dir / "work")

    def close(self) -> None:
        """Close the database connections."""
        self.engine.dispose()


def _engine(settings: Settings) -> Engine:
    """The engine of the database, whose tables it brings to this version's form."""
    with database_errors():
        url = database_url(settings)
        if is_sqlite(url):
            make_private_folder(settings.data_dir)
        upgrade(url)
        return store_engine(url)
