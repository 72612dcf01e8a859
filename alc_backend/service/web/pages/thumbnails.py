"""Thumbnails that were made lately, kept in memory and in a folder, both up to a limit."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

log = logging.getLogger(__name__)

KEPT_BYTES = 32 * 2**20
"""What all kept thumbnails may take in memory; one takes 10 to 100 kB."""

ON_DISK_BYTES = 2**30
"""What they may take in their folder."""

LEFT = 0.9
"""The share of that which is left when the oldest are removed, so that this happens seldom."""

Key = tuple[object, ...]


class Thumbnails:
    """Keeps the files of thumbnails.

    Of those in memory, what was not asked for longest is forgotten first; of those in ``folder``,
    what was made first is removed first. Several processes may use one folder. What cannot be
    written is kept in memory alone.
    """

    def __init__(
        self, folder: Path, *, most: int = KEPT_BYTES, most_on_disk: int = ON_DISK_BYTES
    ) -> None:
        self._folder, self._most, self._most_on_disk = folder, most, most_on_disk
        self._size = 0
        self._on_disk: int | None = None  # not counted yet
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """The bytes that all thumbnails in memory take."""
        return self._size

    def get(self, key: Key, make: Callable[[], bytes]) -> bytes:
        """The thumbnail with this key, which ``make`` makes if it is not kept.

        ``key`` must change when the thumbnail would, also when a project is made anew: texts and
        numbers alone.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        name = hashlib.sha256(repr(key).encode()).hexdigest()
        path = self._folder / name[:2] / name
        try:
            made = path.read_bytes()
        except OSError:
            made = b""
        if not made:
            made = make()
            self._write(path, made)
        with self._lock:
            self._size += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._size > self._most:
                self._size -= len(self._kept.popitem(last=False)[1])
        return made

    def _write(self, path: Path, made: bytes) -> None:
        """Write a thumbnail, whole or not at all; the oldest give way to it."""
        part = path.with_name(f".{uuid4().hex}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(made)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            with self._lock:
                if self._on_disk is None:
                    self._on_disk = sum(size for _, size, _ in self._files())
                else:
                    self._on_disk += len(made)
                if self._on_disk > self._most_on_disk:
                    self._on_disk = self._remove_oldest()
        except OSError as error:
            log.warning("a thumbnail is not kept in %s: %s", self._folder, error)

    def _files(self) -> list[tuple[int, int, Path]]:
        """The files in the folder, the oldest first: when each was made, its bytes, its path."""
        found = []
        for path in self._folder.glob("*/*"):
            try:
                state = path.stat()
            except FileNotFoundError:  # another process has removed it
                continue
            found.append((state.st_mtime_ns, state.st_size, path))
        return sorted(found)

    def _remove_oldest(self) -> int:
        """Remove the oldest files until LEFT of the limit is taken; returns the bytes left."""
        files = self._files()
        left = sum(size for _, size, _ in files)
        for _, size, path in files:
            if left <= LEFT * self._most_on_disk:
                break
            path.unlink(missing_ok=True)
            left -= size
        return left
