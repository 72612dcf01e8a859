"""Files: JSON and CSV, atomic writes and SHA-256 digests, the same on every machine."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from alc_backend.errors import DatasetError

_BLOCK = 2**20
"""Bytes read at a time for a digest, so that a large file never fills the memory."""


def read_json(path: Path) -> Any:
    """The content of a JSON file; DatasetError when it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error}); check the file") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: is not JSON ({error}); export the file again") from error


def read_json_lines(path: Path) -> list[Any]:
    """The values in a file with one JSON value per line; DatasetError as in :func:`read_json`."""
    values: list[Any] = []
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); check the file") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DatasetError(
                    f"{path}: line {number} is not JSON ({error}); export the file again"
                ) from error
    return values


def write_json(path: Path, value: Any, *, compact: bool = False) -> None:
    """Write a value as JSON, keys in their order; with ``compact`` on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json_line(value) if compact else json.dumps(value, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")


def write_json_lines(path: Path, values: list[Any]) -> None:
    """Write values as JSON, one per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json_line(value) + "\n" for value in values), "utf-8")


def json_line(value: Any) -> str:
    """A value as one line of JSON, keys in their order, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write rows of cells; None becomes an empty cell.

    Text that a spreadsheet would run as a formula is prefixed with an apostrophe, since names of
    classes and images come from outside.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([_harmless(cell) for cell in row] for row in rows)


def _harmless(cell: object) -> object:
    risky = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if risky else cell


def write_atomically(
    path: Path, write: Callable[[Path], object], *, name: Callable[[], str] | None = None
) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it to ``path``.

    Readers see the old content or the new one, never a part, even after a power cut. ``name``, if
    given, is called once the file is written and returns the file name to use instead.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        write(part)
        _sync(part)
        part.replace(path if name is None else path.with_name(name()))
    finally:
        part.unlink(missing_ok=True)
    _sync(path.parent)  # the new name is only durable once its folder is synced


def sync_below(root: Path) -> None:
    """Have the disk keep a folder with all that is in it, before it is renamed."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))


def sync_folder(folder: Path) -> None:
    """Have the disk keep which names are in a folder, as after one of them was renamed."""
    _sync(folder)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits; OSError when it is unreadable."""
    with path.open("rb") as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: IO[bytes]) -> str:
    """The SHA-256 of a binary stream from its position to its end, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
