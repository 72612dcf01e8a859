"""Restore: bringing back what a backup holds, into a place without projects.

Reads the file; writes the storage, then the database. Called by commands.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, DateTime, MetaData, Table, event, func, insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from alc_backend.common.files import sha256_of, sha256_of_stream
from alc_backend.common.types import Json, Progress
from alc_backend.errors import DatasetError, NotFoundError, SettingsError, StorageError
from alc_backend.loop.exports import archive
from alc_backend.loop.exports.archive import FILES, TABLES, Reader, Summary
from alc_backend.settings import Settings
from alc_backend.store import migrate
from alc_backend.store.column_types import UtcDateTime
from alc_backend.store.database import Store
from alc_backend.store.models import Base
from alc_backend.store.storage import Storage

BLOCK = 2**20
"""Bytes copied at once."""


def restore_backup(
    settings: Settings,
    path: Path,
    *,
    progress: Progress = lambda done, total, message: None,
) -> Summary:
    """Bring back what ``alc backup`` wrote, into a place without projects.

    Every file is compared with its hash, and with what the storage has under its name, before
    anything is written. The database comes last: what was interrupted is simply repeated. Raises
    DatasetError for a file that is damaged or no backup, or whose tables this version does not
    know; SettingsError when there are projects already, or other files; StorageError when the
    disk, the storage or the database fails.
    """
    summary = Summary(path)
    try:
        with tarfile.open(path, "r:") as tar:
            reader = Reader(tar, path)
            manifest = reader.manifest()
            migrate.check_empty(settings, manifest.revision)
            storage = Storage(settings.files, settings.data_dir / "cache")
            known, steps = manifest.sha256, 2 * len(manifest.sha256)
            there = set()
            for done, (name, wanted) in enumerate(known.items()):
                progress(done, steps, f"checking {name}")
                if sha256_of_stream(reader.open(name)) != wanted:
                    raise DatasetError(f"{path}: {name} is damaged; use another backup")
                if name.startswith(TABLES):
                    reader.check_rows(name)
                if name.startswith(FILES) and _is_there(storage, name, wanted):
                    there.add(name)
            for done, name in enumerate(known, start=len(known)):
                progress(done, steps, f"restoring {name}")
                if name.startswith(FILES):
                    if name not in there:
                        _put(storage, name, reader.open(name))
                    summary.files += 1
            _fill(settings, manifest.revision, reader, summary)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path}: is no backup, or a damaged one ({error})") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from error
    Store(settings).close()  # brings the tables to this version's form
    summary.size = path.stat().st_size
    return summary


def insert_rows(connection: Connection, table: Table, parts: Iterable[list[Json]]) -> int:
    """Insert rows as an archive has them, their ids included, part by part; how many.

    On PostgreSQL the ids that it gives later come after them. Raises ValueError for what is no
    moment, SQLAlchemyError.
    """
    moments = [c.name for c in table.c if isinstance(c.type, DateTime | UtcDateTime)]
    count = 0
    for part in parts:
        for row in part:
            for name in moments:
                if row.get(name) is not None:
                    row[name] = datetime.fromisoformat(str(row[name]))
        connection.execute(insert(table), part)
        count += len(part)
    if connection.dialect.name == "postgresql" and "id" in table.c:
        highest = select(func.coalesce(func.max(table.c.id), 0) + 1)
        connection.execute(
            select(
                func.setval(
                    func.pg_get_serial_sequence(table.name, text("'id'")),
                    highest.scalar_subquery(),
                    text("false"),
                )
            )
        )
    return count


def _fill(settings: Settings, revision: str, reader: Reader, summary: Summary) -> None:
    """Put the tables into the database, all or none."""
    path = summary.path
    try:
        with migrate.empty_tables(settings, revision) as connection:
            for table in _tables(connection):
                rows = reader.rows(archive.table_member(table.name))
                summary.rows += insert_rows(connection, table, rows)
            if connection.dialect.name == "postgresql":  # else the first questions are slow
                connection.execute(text("ANALYZE"))
    except OperationalError as error:
        raise StorageError(
            f"the database cannot be written ({error.orig}), and is as it was; look at its disk "
            "and its log, then restore again"
        ) from error
    except (SQLAlchemyError, ValueError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise DatasetError(
            f"{path}: its rows do not fit the tables of revision {revision} ({reason}); use "
            "another backup"
        ) from error


def _tables(connection: Connection) -> list[Table]:
    """The tables as they are, with the types that ours have where we have them still."""
    metadata = MetaData()

    def typed(_: Any, name: str, column: Json) -> None:
        ours = Base.metadata.tables.get(name)
        if ours is not None and column["name"] in ours.c:
            column["type"] = archive.archived_type(ours.c[column["name"]].type)

    event.listen(
        metadata, "column_reflect", lambda found, table, column: typed(found, table.name, column)
    )
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def _is_there(storage: Storage, name: str, wanted: str) -> bool:
    """Whether the storage has a file of the archive already; SettingsError when it has another."""
    target = name.removeprefix(FILES)
    try:
        found = sha256_of(storage.local(target))
    except NotFoundError:
        return False
    except ValueError as error:
        raise DatasetError(f"the backup names a file that cannot be ({error})") from error
    except OSError as error:
        raise StorageError(f"{storage.address}/{target}: cannot be read ({error})") from error
    if found != wanted:
        raise SettingsError(
            f"{storage.address} has another {target} already, perhaps that of a project at work; "
            "set ALC_FILES_URL, or ALC_DATA_DIR where that is not set, to a new place"
        )
    return True


def _put(storage: Storage, name: str, content: IO[bytes]) -> None:
    """Copy a file of the archive into the storage; StorageError without room for it."""
    try:
        with tempfile.NamedTemporaryFile() as local:
            shutil.copyfileobj(content, local, BLOCK)
            local.flush()
            storage.put(Path(local.name), name.removeprefix(FILES))
    except OSError as error:
        raise StorageError(
            f"{name} cannot be copied ({error}); make room in the folder for temporary files, or "
            "set TMPDIR to a larger one, then restore again"
        ) from error
