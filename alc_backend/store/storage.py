"""Named files that all workers share: in a folder, or in an object store (S3, Google, Azure).

The object stores are reached through fsspec. What is asked of it is little: a new content appears
at once (true of these stores, where an upload that breaks off leaves no object), and the calls
``info``, ``pipe_file``, ``put_file``, ``get_file`` and ``rm_file``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Any, TypeVar
from urllib.parse import unquote

from alc_backend.common.files import write_atomically
from alc_backend.errors import NotFoundError, SettingsError, StorageError

KEEP_S = 600.0
"""A copy that was used in the last ten minutes stays: somebody may be about to open it."""

_EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure"}
"""The object stores by the scheme of their addresses, and our extra that installs the client."""

_ONE_REQUEST = 4 * 2**20
"""Bytes; a larger file may come in several requests, between which another can take its name."""

_ACCESS_TIME = "last_accessed_on"
"""Azure tells it, and it changes when a file is read."""

T = TypeVar("T")


class Storage:
    """Named files under one address; names are like ``projects/3/initial/17.png``.

    ``url`` is a folder, or a URL that begins with file://, s3://, gs:// or az://; ``cache`` is a
    local folder of its own for copies of remote files, which any number of processes may share.
    The copies take up to ``cache_bytes``, except those of the last ten minutes.
    Raises SettingsError for another URL, and where the package of the store is not installed.
    Methods raise NotFoundError for a file that is not there, StorageError when the disk or the
    network fails, ValueError for a name that is absolute, hidden or has ``..``.
    """

    def __init__(self, url: str, cache: Path, *, cache_bytes: int = 20 * 2**30) -> None:
        scheme, found, rest = url.partition("://")
        self._url, self._cache, self._cache_bytes = url, cache, cache_bytes
        self._scheme = scheme if found else "file"
        if self._scheme == "file":
            self.address = unquote(rest) if found else url
            return
        private = [*re.findall("//(.*)@", url), url.partition("?")[2]]
        parts = {part for text in private for part in (text, *re.split("[:&=]", text)) if part}
        self._secrets = sorted(parts | {unquote(part) for part in parts}, key=len, reverse=True)
        self.address = re.sub("//.*@", "//", url).partition("?")[0].rstrip("/")
        self._kind = _filesystem(scheme, self.address)

    def read(self, name: str) -> bytes:
        """The whole content."""
        return self._call(name, "read", lambda files, path: self._copy(files, path).read_bytes())

    def write(self, name: str, content: bytes) -> None:
        """Create the file or replace its content; readers see the old or the new one, whole."""
        self._call(name, "written", lambda files, path: files.pipe_file(path, content))

    def put(self, path: Path, name: str) -> None:
        """Copy a local file into the storage, as :meth:`write` does, without holding it whole."""
        self._call(name, "written", lambda files, target: files.put_file(str(path), target))

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._call(name, "looked up", _info) is not None

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens when there is none."""
        self._call(name, "removed", lambda files, path: _info(files, path) and files.rm_file(path))

    def local(self, name: str) -> Path:
        """The path of a local file with the content, to be read only: the file itself, or a copy.

        A copy is fetched again, under a new path, once the remote file has changed.
        """
        return self._call(name, "read", self._copy)

    def path_in_folder(self, name: str) -> Path | None:
        """Where the file lies, or would lie, in the folder; None for an object store."""
        return Path(self.address, name) if self._scheme == "file" else None

    def _copy(self, files: Any, path: str) -> Path:
        info = _info(files, path)
        if info is None:
            raise FileNotFoundError(path)
        if self._scheme == "file":
            return Path(path)
        key = hashlib.sha256(f"{self.address}\n{path}\n{_stamp(info)}".encode()).hexdigest()[:32]
        copy = self._cache / f"{key}-{path.rpartition('/')[2]}"
        with suppress(FileNotFoundError):
            os.utime(copy)  # marks it as used
            return copy

        def fetch(part: Path) -> None:
            files.get_file(path, str(part))
            whole = part.stat().st_size == info["size"]
            if whole and info["size"] > _ONE_REQUEST:
                files.invalidate_cache()
                whole = _stamp(_info(files, path)) == _stamp(info)
            if not whole:
                raise OSError("it was replaced, or the connection ended, while it was fetched")

        write_atomically(copy, fetch)
        # By chance, once in a hundredth of the cache on average: processes of short jobs, which
        # fetch little each, need not count together. (A fork would copy the state of random().)
        if SystemRandom().random() * self._cache_bytes < 100 * info["size"]:
            self._sweep()
        return copy

    def _sweep(self) -> None:
        """Remove the least recently used copies until a tenth of the cache is free."""
        copies = []
        for path in self._cache.iterdir():
            with suppress(FileNotFoundError):  # another process sweeps too
                copies.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in copies)
        for used, size, path in sorted(copies):
            if total <= 0.9 * self._cache_bytes or used > time.time() - KEEP_S:
                break
            with suppress(FileNotFoundError):
                if path.stat().st_mtime == used:
                    path.unlink()
            total -= size

    def _call(self, name: str, done: str, act: Callable[[Any, str], T]) -> T:
        """Call ``act(filesystem, path)``; when the network fails, once more, connected anew."""
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", name, re.ASCII):
            raise ValueError(f"{name!r} is not the name of a file in the storage")
        where = f"{self.address}/{name}"
        try:
            if self._scheme == "file":
                return act(_Disk(), where)
            try:
                return act(*self._connected(name))
            except FileNotFoundError:
                raise
            except Exception:  # each protocol has exceptions of its own
                self._kind.clear_instance_cache()
                return act(*self._connected(name))
        except Exception as error:
            if done == "read" and isinstance(error, FileNotFoundError):
                raise NotFoundError(f"{where}: there is no such file") from None
            if self._scheme == "file":
                raise StorageError(f"{where}: cannot be {done} ({error})") from error
            reason = f"{type(error).__name__}: {error}"
            for secret in self._secrets:
                reason = reason.replace(secret, "…")
            # Not "from error": what is behind it may show the URL with its credentials.
            raise StorageError(f"{where}: cannot be {done} ({reason})") from None

    def _connected(self, name: str) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(self._url)  # each time: some connections are one thread's own
        files.invalidate_cache()
        return files, f"{root.rstrip('/')}/{name}"


class _Disk:
    """A local disk, with those of fsspec's calls that are made here."""

    def info(self, path: str) -> dict[str, Any]:
        if not Path(path).is_file():
            raise FileNotFoundError(path)
        return {"type": "file"}

    def pipe_file(self, path: str, content: bytes) -> None:
        write_atomically(Path(path), lambda part: part.write_bytes(content))

    def put_file(self, source: str, path: str) -> None:
        write_atomically(Path(path), lambda part: shutil.copyfile(source, part))

    def rm_file(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)


def _filesystem(scheme: str, address: str) -> Any:
    """fsspec's class for an object store; SettingsError when there is none, or no package."""
    if scheme not in _EXTRAS:
        raise SettingsError(
            f"ALC_FILES_URL ({address}): {scheme}:// is not supported; give a folder, or an "
            "address that begins with file://, s3://, gs:// or az://"
        )
    from fsspec.registry import get_filesystem_class

    try:
        return get_filesystem_class(scheme)
    except ImportError as error:
        raise SettingsError(
            f"ALC_FILES_URL ({address}): the package for {scheme}:// is not installed; run "
            f"`pip install 'alc-backend[{_EXTRAS[scheme]}]'`"
        ) from error


def _info(files: Any, path: str) -> dict[str, Any] | None:
    """What fsspec tells about a file; None when there is none, or a folder."""
    try:
        info: dict[str, Any] = files.info(path)
    except FileNotFoundError:
        return None
    return info if info["type"] == "file" else None


def _stamp(info: dict[str, Any] | None) -> str:
    """A text that differs between two contents of a file, and stays when the file is read."""
    facts = {name: repr(value) for name, value in (info or {}).items() if name != _ACCESS_TIME}
    return repr(sorted(facts.items()))
