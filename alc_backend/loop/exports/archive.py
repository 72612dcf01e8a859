"""The format of a backup: one tar file with the tables, the files and a manifest.

``tables/NAME.jsonl.gz`` holds a table, one row a line; ``files/NAME`` a file of the storage;
``manifest.json`` comes last and has the SHA-256 of all of them. The format does not depend on the
kind of database or storage: what SQLite and a folder held may be restored into PostgreSQL and S3.

Touches the archive that it is given, nothing else. Called by ``backup`` and ``restore``.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy.types import TypeEngine

from alc_backend.common.files import sha256_of_stream
from alc_backend.common.types import Json
from alc_backend.common.version import __version__
from alc_backend.errors import DatasetError
from alc_backend.store.column_types import UtcDateTime, plain_type
from alc_backend.store.models import utc_now

FORMAT = "alc-backup-1"
TABLES, FILES = "tables/", "files/"
PROJECT_FILES = f"{FILES}projects/"
"""Where the files of projects lie; an archive brings no others."""

MANIFEST = "manifest.json"

MAX_MANIFEST = 2**27
"""Larger manifests, in bytes, are refused: an image has some hundred bytes in it."""

MAX_RATIO, FREE_BYTES = 200, 2**20
"""How many times its size a table may unfold to, beside the first mebibyte. Ours unfold to some
twenty times; gzip could do a thousand."""

MAX_ROW = 2**24
"""Longer rows, in bytes, are refused: of an edit, the longest ones, each superpixel has a hundred
bytes."""

PART_ROWS, PART_BYTES = 1000, 2**22
"""How many rows, and about how many bytes of them, are in memory at once."""


@dataclass
class Summary:
    """What a backup holds or a restore brought; ``missing`` names files that were not there.

    ``path`` is the backup's file, which has another name than was asked for when files are missing;
    ``size`` is in bytes.
    """

    path: Path
    rows: int = 0
    files: int = 0
    size: int = 0
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """What an archive tells about itself.

    ``revision`` is that of the tables, ``sha256`` the digest of each member by its name.
    """

    revision: str
    sha256: dict[str, str]


def archived_type(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type with which a column is read for an archive, and written from it.

    Moments are in UTC; everything else is as the database itself has it.
    """
    return kind if isinstance(kind, UtcDateTime) else plain_type(kind)


def table_member(table: str) -> str:
    """The name that a table has in an archive."""
    return f"{TABLES}{table}.jsonl.gz"


def add_member(archive: tarfile.TarFile, name: str, content: IO[bytes]) -> str:
    """Add ``content``, from where it stands, to an archive; returns its SHA-256."""
    start = content.tell()
    digest = sha256_of_stream(content)
    member = tarfile.TarInfo(name)
    member.size = content.tell() - start
    content.seek(start)
    archive.addfile(member, content)
    return digest


def write_manifest(archive: tarfile.TarFile, manifest: Manifest, networks: dict[str, bool]) -> None:
    """Add the manifest, the last member; ``networks`` tells of each whether it was kept."""
    content = {
        "format": FORMAT,
        "version": __version__,
        "revision": manifest.revision,
        "made_at": utc_now().isoformat(),
        "networks": networks,
        "sha256": manifest.sha256,
    }
    add_member(archive, MANIFEST, io.BytesIO(json.dumps(content, indent=1).encode()))


def pack_rows(rows: Iterable[Json], target: IO[bytes]) -> int:
    """Write rows in the form of a table's member into ``target``, and rewind it; how many."""
    count = 0
    with gzip.GzipFile(fileobj=target, mode="wb", mtime=0) as packed:
        for row in rows:
            values = {name: _plain(value) for name, value in row.items()}
            packed.write(json.dumps(values, separators=(",", ":")).encode() + b"\n")
            count += 1
    target.seek(0)
    return count


class Reader:
    """Reads an opened archive, which may come from anywhere; ``path`` names it in errors.

    Raises DatasetError for members that are not plain files: links and sparse files would unfold to
    any size.
    """

    def __init__(self, tar: tarfile.TarFile, path: Path) -> None:
        self._tar, self._path = tar, path
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in tar:
            if not member.isreg() or member.issparse():
                raise DatasetError(
                    f"{path}: its member {member.name!r} is a link or a sparse file, which no "
                    "backup has; use another backup"
                )
            self._members[member.name] = member

    def open(self, name: str) -> IO[bytes]:
        """A member, to be read; DatasetError when there is none."""
        found = self._members.get(name)
        content = None if found is None else self._tar.extractfile(found)
        if content is None:
            raise DatasetError(f"{self._path}: has no {name}; it is no backup, or a damaged one")
        return content

    def manifest(self) -> Manifest:
        """The manifest.

        Raises DatasetError for what is no backup of this format, or names files that belong to no
        project.
        """
        text = self.open(MANIFEST).read(MAX_MANIFEST + 1)
        if len(text) > MAX_MANIFEST:
            raise DatasetError(f"{self._path}: its manifest is larger than {MAX_MANIFEST:,} bytes")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{self._path}: its manifest cannot be read ({error})") from error
        known = content.get("sha256") if isinstance(content, dict) else None
        if not isinstance(known, dict) or content.get("format") != FORMAT:
            raise DatasetError(
                f"{self._path}: is no backup that this version of alc-backend can read"
            )
        revision = content.get("revision")
        if not isinstance(revision, str):
            raise DatasetError(
                f"{self._path}: its manifest does not tell the revision of its tables; use another "
                "backup"
            )
        for name in known:
            if not name.startswith((TABLES, PROJECT_FILES)):
                raise DatasetError(
                    f"{self._path}: names {name!r}, which belongs to no project; use another backup"
                )
        return Manifest(revision, known)

    def check_rows(self, name: str) -> None:
        """See that a table's member unfolds to what a backup's may; DatasetError otherwise."""
        for _ in self._lines(name):
            pass

    def rows(self, name: str) -> Iterator[list[Json]]:
        """The rows of a table's member, in parts that fit into memory.

        Moments are texts in ISO format. Raises ValueError for a line that is no row.
        """
        part: list[Json] = []
        size = 0
        for line in self._lines(name):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{row!r:.40} is no row")
            part.append(row)
            size += len(line)
            if len(part) == PART_ROWS or size > PART_BYTES:
                yield part
                part, size = [], 0
        if part:
            yield part

    def _lines(self, name: str) -> Iterator[bytes]:
        packed = self.open(name)
        most = MAX_RATIO * self._members[name].size + FREE_BYTES
        with gzip.GzipFile(fileobj=packed, mode="rb") as lines:
            while line := lines.readline(MAX_ROW + 1):
                most -= len(line)
                if len(line) > MAX_ROW or most < 0:
                    raise DatasetError(
                        f"{self._path}: {name} unfolds to far more than a backup's tables do; use "
                        "another backup"
                    )
                yield line


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
