"""Backup and restore: one file with the database, the arrays and images, and the networks.

A tar file: ``tables/NAME.jsonl.gz`` holds a table, one row a line; ``files/NAME`` a file of the
storage; ``manifest.json`` comes last and has the SHA-256 of all of them. It does not depend on the
kind of database or storage: what SQLite and a folder held may be restored into PostgreSQL and S3.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, DateTime, MetaData, Table, event, func, insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from alc_backend.common.files import sha256_of, sha256_of_stream, write_atomically
from alc_backend.common.types import Json, Progress
from alc_backend.common.version import __version__
from alc_backend.errors import DatasetError, NotFoundError, SettingsError, StorageError
from alc_backend.settings import Settings
from alc_backend.store import migrate
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.models import (
    TRAIN,
    VAL,
    Base,
    EntryKind,
    Image,
    LedgerEntry,
    Project,
    Round,
    Score,
    Superpixel,
    UtcDateTime,
    plain_type,
    utc_now,
)
from alc_backend.store.round_states import RoundState
from alc_backend.store.storage import Storage

FORMAT = "alc-backup-1"
TABLES, FILES = "tables/", "files/projects/"
MANIFEST = "manifest.json"
BLOCK = 2**20
ROWS = 1000
"""Rows written into a database at once."""

LAST, ALL, NONE = "last", "all", "none"
"""Which rounds' networks a backup holds."""

_UNTRAINED = (RoundState.CREATED, RoundState.TRAINING)


@dataclass
class Summary:
    """What a backup holds or a restore brought; ``missing`` names files that were not there.

    ``path`` is the backup's file, which has another name than was asked for when files are missing.
    """

    path: Path
    rows: int = 0
    files: int = 0
    size: int = 0
    missing: list[str] = field(default_factory=list)


def backup(
    store: Store,
    path: Path,
    *,
    networks: str = LAST,
    progress: Progress = lambda done, total, message: None,
) -> Summary:
    """Write everything into ``path``, which appears once it is complete.

    The tables are those of one moment; work may go on meanwhile. ``networks``: those of each
    project's LAST trained round, of ALL, or of NONE; the manifest lists all in any case. When files
    are missing, ``path`` stays as it is and the rest is written beside it, as NAME.incomplete.tar.
    Raises StorageError when the file cannot be written.
    """
    if path.is_dir():
        raise StorageError(
            f"{path}: is a folder; give a file in it, for example {path / 'alc.tar'}"
        )
    summary = Summary(path)

    def write(part: Path) -> None:
        with tarfile.open(part, "w") as archive:
            _write(store, archive, summary, networks, progress)
        if summary.missing:
            summary.path = path.with_name(f"{path.stem}.incomplete{path.suffix}")

    try:
        write_atomically(path.absolute(), write, name=lambda: summary.path.name)
    except OSError as error:
        raise StorageError(f"{path}: the backup cannot be written ({error})") from error
    summary.size = summary.path.stat().st_size
    return summary


def restore(
    settings: Settings,
    path: Path,
    *,
    progress: Progress = lambda done, total, message: None,
) -> Summary:
    """Bring back what :func:`backup` wrote, into a place without projects.

    Every file is compared with its hash, and with what the storage has under its name, before
    anything is written. The database comes last: what was interrupted is simply repeated. Raises
    DatasetError for a file that is damaged or no backup, or whose tables this version does not
    know; SettingsError when there are projects already, or other files; StorageError when the
    disk, the storage or the database fails.
    """
    summary = Summary(path)
    try:
        with tarfile.open(path, "r:") as archive:
            manifest = _manifest(archive, path)
            revision: str = manifest["revision"]
            known: dict[str, str] = manifest["sha256"]
            migrate.check_empty(settings, revision)
            storage = Storage(settings.files, settings.data_dir / "cache")
            there = set()
            for done, (name, wanted) in enumerate(known.items()):
                progress(done, 2 * len(known), f"checking {name}")
                if sha256_of_stream(_member(archive, name, path)) != wanted:
                    raise DatasetError(f"{path}: {name} is damaged; use another backup")
                if name.startswith(FILES) and _is_there(storage, name, wanted):
                    there.add(name)
            for done, name in enumerate(known):
                progress(len(known) + done, 2 * len(known), f"restoring {name}")
                if name.startswith(FILES):
                    if name not in there:
                        _put(storage, name, _member(archive, name, path))
                    summary.files += 1
            _fill(settings, revision, archive, summary)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path}: is no backup, or a damaged one ({error})") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from error
    Store(settings).close()  # brings the tables to this version's form
    summary.size = path.stat().st_size
    return summary


def _fill(settings: Settings, revision: str, archive: tarfile.TarFile, summary: Summary) -> None:
    """Put the tables into the database, all or none."""
    path = summary.path
    try:
        with migrate.empty_tables(settings, revision) as connection:
            for table in _tables(connection):
                rows = _read_rows(_member(archive, f"tables/{table.name}.jsonl.gz", path))
                summary.rows += _insert(connection, table, rows)
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


def _write(
    store: Store, archive: tarfile.TarFile, summary: Summary, networks: str, progress: Progress
) -> None:
    digests: dict[str, str] = {}
    with store.reading() as session:
        for table in Base.metadata.sorted_tables:
            name = f"tables/{table.name}.jsonl.gz"
            progress(0, 1, f"reading the table {table.name}")
            with tempfile.TemporaryFile() as rows:
                summary.rows += _write_rows(session, table, rows)
                digests[name] = _add(archive, name, rows)
        names, index = _files(session, store, networks)
    for done, (name, needed) in enumerate(names):
        progress(done, len(names), name)
        try:
            local = store.storage.local(name)
        except NotFoundError:
            summary.missing += [name] * needed
            continue
        with local.open("rb") as content:
            digests[f"files/{name}"] = _add(archive, f"files/{name}", content)
        summary.files += 1
    manifest = {
        "format": FORMAT,
        "version": __version__,
        "revision": migrate.revisions(store.settings)[1],
        "made_at": utc_now().isoformat(),
        "networks": index,
        "sha256": digests,
    }
    _add(archive, MANIFEST, io.BytesIO(json.dumps(manifest, indent=1).encode()))


def _files(
    session: Session, store: Store, networks: str
) -> tuple[list[tuple[str, bool]], dict[str, bool]]:
    """The files in force, each with whether it must be there; all networks: whether kept."""
    names: list[tuple[str, bool]] = []
    index: dict[str, bool] = {}
    for project in session.scalars(select(Project).order_by(Project.id)):
        files = store.files(project.id)
        of_project = select(Image).where(Image.project_id == project.id).order_by(Image.id)
        images = session.scalars(of_project).all()
        for image in images:
            photo, superpixels, initial, truth = files.of_image(image.id, image.suffix)
            # An image under correction comes with both maps; only true ones may be unknown.
            needed = image.split == TRAIN
            names += [(photo, True), (superpixels, needed), (initial, needed)]
            names.append((truth, image.split == VAL))
        edits = select(LedgerEntry).where(
            LedgerEntry.project_id == project.id, LedgerEntry.kind == EntryKind.EDIT
        )
        for edit in session.scalars(edits.order_by(LedgerEntry.id)):
            names.append((files.of_edit(edit.annotation_id, edit.revision), True))
        rounds = session.scalars(
            select(Round).where(Round.project_id == project.id).order_by(Round.number)
        ).all()
        trained: dict[int, list[str]] = {}
        for round_ in rounds:
            if round_.config.epsilon > 0:
                scored = _scored(session, round_)
                for image in images:
                    (reached,) = files.of_round(round_.number, [image.id])
                    names.append((reached, image.id in scored))
            of_round = files.of_networks(round_.number, round_.config.folds)
            trained[round_.number] = [name for name in of_round if store.storage.exists(name)]
        last = _last_trained(files, rounds, trained)
        for number, present in trained.items():
            kept = networks == ALL or (networks == LAST and number == last)
            index.update(dict.fromkeys(present, kept))
            names += [(name, False) for name in present if kept]
    return names, index


def _scored(session: Session, round_: Round) -> set[int]:
    """The images (ids) for which the round has noted what its answers reach."""
    scored = (
        select(Superpixel.image_id)
        .join(Score, Score.superpixel_id == Superpixel.id)
        .where(Score.round_id == round_.id)
    )
    corrected = select(LedgerEntry.image_id).where(  # their scores go after the next round
        LedgerEntry.project_id == round_.project_id,
        LedgerEntry.round_number == round_.number,
        LedgerEntry.kind == EntryKind.CORRECT,
    )
    return {*session.scalars(scored.distinct()), *session.scalars(corrected.distinct())}


def _last_trained(
    files: ProjectFiles, rounds: Sequence[Round], present: dict[int, list[str]]
) -> int | None:
    """The number of the last round whose training has ended and whose network is ``present``.

    Where there is none, that of the last round that has any network.
    """
    having = [round_ for round_ in rounds if present[round_.number]]
    ended = [
        round_
        for round_ in having
        if round_.state not in _UNTRAINED
        and round_.failed_in not in _UNTRAINED
        and files.of_networks(round_.number, 1)[0] in present[round_.number]
    ]
    return max((round_.number for round_ in ended or having), default=None)


def _write_rows(session: Session, table: Table, target: IO[bytes]) -> int:
    count = 0
    keys = list(table.primary_key.columns)
    with gzip.GzipFile(fileobj=target, mode="wb", mtime=0) as packed:
        result = session.execute(
            select(table).order_by(*keys), execution_options={"yield_per": ROWS}
        )
        for row in result.mappings():
            values = {name: _plain(value) for name, value in row.items()}
            packed.write(json.dumps(values, separators=(",", ":")).encode() + b"\n")
            count += 1
    target.seek(0)
    return count


def _read_rows(source: IO[bytes]) -> Iterator[Json]:
    with gzip.GzipFile(fileobj=source, mode="rb") as lines:
        for line in lines:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{row!r:.40} is no row")
            yield row


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _tables(connection: Connection) -> list[Table]:
    """The tables as they are, with the types that ours have where we have them still."""
    metadata = MetaData()

    def typed(_: Any, name: str, column: Json) -> None:
        ours = Base.metadata.tables.get(name)
        if ours is not None and column["name"] in ours.c:
            found = ours.c[column["name"]].type
            column["type"] = found if isinstance(found, UtcDateTime) else plain_type(found)

    event.listen(
        metadata, "column_reflect", lambda found, table, column: typed(found, table.name, column)
    )
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def _insert(connection: Connection, table: Table, rows: Iterable[Json]) -> int:
    moments = [c.name for c in table.c if isinstance(c.type, DateTime | UtcDateTime)]
    count = 0
    part: list[Json] = []

    def flush() -> None:
        if part:
            connection.execute(insert(table), part)
            part.clear()

    for row in rows:
        for name in moments:
            if row.get(name) is not None:
                row[name] = datetime.fromisoformat(str(row[name]))
        part.append(row)
        count += 1
        if len(part) == ROWS:
            flush()
    flush()
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


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes]) -> str:
    """Add a file; returns its SHA-256."""
    digest = sha256_of_stream(content)
    entry = tarfile.TarInfo(name)
    entry.size = content.tell()
    content.seek(0)
    archive.addfile(entry, content)
    return digest


def _member(archive: tarfile.TarFile, name: str, path: Path) -> IO[bytes]:
    try:
        content = archive.extractfile(name)
    except KeyError:
        content = None
    if content is None:
        raise DatasetError(f"{path}: has no {name}; it is no backup, or a damaged one")
    return content


def _manifest(archive: tarfile.TarFile, path: Path) -> Json:
    try:
        manifest = json.load(_member(archive, MANIFEST, path))
    except ValueError as error:
        raise DatasetError(f"{path}: its manifest cannot be read ({error})") from error
    known = manifest.get("sha256") if isinstance(manifest, dict) else None
    if not isinstance(known, dict) or manifest.get("format") != FORMAT:
        raise DatasetError(f"{path}: is no backup that this version of alc-backend can read")
    if not isinstance(manifest.get("revision"), str):
        raise DatasetError(
            f"{path}: its manifest does not tell the revision of its tables; use another backup"
        )
    for name in known:
        if not name.startswith((TABLES, FILES)):
            raise DatasetError(
                f"{path}: names {name!r}, which belongs to no project; use another backup"
            )
    return dict(manifest)


def _is_there(storage: Storage, name: str, wanted: str) -> bool:
    """Whether the storage has a file of the archive already; SettingsError when it has another."""
    target = name.removeprefix("files/")
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
    try:
        with tempfile.NamedTemporaryFile() as local:
            shutil.copyfileobj(content, local, BLOCK)
            local.flush()
            storage.put(Path(local.name), name.removeprefix("files/"))
    except OSError as error:
        raise StorageError(
            f"{name} cannot be copied ({error}); make room in the folder for temporary files, or "
            "set TMPDIR to a larger one, then restore again"
        ) from error
