"""Statements that SQLAlchemy has compiled once serve every database of the test run.

SQLAlchemy keeps compiled statements for each engine, and most tests have a database, so an engine,
of their own. Compiling the same statements again took a sixth of the tests' processor time.
"""

from __future__ import annotations

from sqlalchemy import event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.util import LRUCache

_COMPILED: LRUCache = LRUCache(2000)
"""SQLAlchemy's kind of cache, for many threads, for all engines of this process."""


class OneSQLite(SQLiteDialect_pysqlite):
    """SQLite's dialect, whose instances are equal: what one has compiled the others can use."""

    supports_statement_cache = True

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))


def share() -> None:
    """Let the engines that are made from now on share what they compile."""
    registry.register("sqlite", __name__, OneSQLite.__name__)
    event.listen(Engine, "engine_connect", _use_shared)


def _use_shared(connection: Connection) -> None:
    connection.execution_options(compiled_cache=_COMPILED)
