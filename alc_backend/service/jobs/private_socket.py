"""The socket of a data folder's private Redis, in a folder that only the present user may enter.

Whoever reaches Redis can start and remove jobs, so every connection first looks at whose folder
the socket is in: a socket that somebody else has put there is never spoken to.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from redis import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as NotConnectedError
from redis.retry import Retry

from alc_backend.common.private import make_private_folder, why_not_private
from alc_backend.errors import ServiceError
from alc_backend.settings import Settings

LONGEST_PATH = 100
"""Bytes of a socket's path that every system takes (Linux 107, macOS 103)."""

RUNTIME_FOLDER = Path("/run/alc")
"""What systemd makes for a service with ``RuntimeDirectory=alc``."""

_FOLDER, _SOCKET = "run", "redis.sock"


class PrivateSocketConnection(UnixDomainSocketConnection):
    """A connection through a socket in a folder of the present user; refused in any other."""

    def _connect(self) -> Any:
        problem = why_not_private(Path(self.path).parent)
        if problem is not None:
            raise NotConnectedError(problem)
        return super()._connect()  # type: ignore[no-untyped-call]


def socket_path(settings: Settings) -> Path:
    """The socket of the data folder's private Redis, whether or not it is there.

    It is in ``run`` in the data folder. Where that path is too long for a socket, ``run`` is a
    link to a folder elsewhere, which :func:`make_socket_folder` makes.
    """
    folder = settings.data_dir.absolute() / _FOLDER
    return (folder if _fits(folder) else Path(os.path.realpath(folder))) / _SOCKET


def make_socket_folder(settings: Settings) -> None:
    """Make the folder of the socket; ServiceError when others may enter it, or none can be made."""
    folder = settings.data_dir.absolute() / _FOLDER
    try:
        make_private_folder(folder.parent)
        if _fits(folder):
            make_private_folder(folder)
        elif not (folder.is_dir() and _fits(socket_path(settings).parent)):
            folder.unlink(missing_ok=True)  # a link whose folder is gone
            folder.symlink_to(_short_folder())
    except OSError as error:
        raise ServiceError(
            f"{folder}: no folder for Redis's socket can be made ({error}); make ALC_DATA_DIR "
            "writable, or set REDIS_URL"
        ) from error
    problem = why_not_private(folder)
    if problem is not None:
        raise ServiceError(problem)


def private_connection(
    settings: Settings, *, timeout_s: float, retry: Retry | None = None
) -> Redis:
    """A connection to the private Redis; a call to it fails with redis' ConnectionError.

    That is so when Redis does not answer within ``timeout_s`` seconds, and when others than the
    present user may enter the folder of its socket. ``retry`` replaces redis' own policy.
    """
    options: dict[str, Any] = {} if retry is None else {"retry": retry}
    pool: ConnectionPool = ConnectionPool(
        connection_class=PrivateSocketConnection,
        path=str(socket_path(settings)),
        socket_timeout=timeout_s,
        socket_connect_timeout=min(2.0, timeout_s),
        **options,
    )
    return Redis(connection_pool=pool)


def _short_folder() -> str:
    """A new folder with a short path and a name that nobody can guess; OSError without one."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    for base in (*([Path(given)] if given else []), RUNTIME_FOLDER):
        if os.access(base, os.W_OK | os.X_OK) and _fits(base / "alc-12345678"):
            return tempfile.mkdtemp(prefix="alc-", dir=base)
    return tempfile.mkdtemp(prefix="alc-")


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _SOCKET)) <= LONGEST_PATH
