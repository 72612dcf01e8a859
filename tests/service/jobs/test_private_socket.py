"""Every client looks at whose folder the socket of the private Redis is in."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as NotConnectedError

from alc_backend.errors import ServiceError
from alc_backend.service.jobs.private_socket import (
    LONGEST_PATH,
    make_socket_folder,
    socket_path,
)
from alc_backend.service.jobs.processes import Processes, start_redis
from alc_backend.service.jobs.queues import Jobs, connect, is_up


@pytest.fixture
def far(settings, tmp_path):
    """Settings whose data folder is too deep for a socket in it."""
    return settings.model_copy(update={"data_dir": tmp_path / "d" / ("x" * LONGEST_PATH)})


class Imposter:
    """Listens where Redis would, and remembers what it is told."""

    def __init__(self, path: Path) -> None:
        self.heard = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                self.heard += connection.recv(4096)
                connection.sendall(b"-ERR\r\n")


@pytest.mark.parametrize("why", ["open", "another user's"])
def test_a_socket_that_others_could_have_made_is_not_spoken_to(settings, monkeypatch, why):
    folder = socket_path(settings).parent
    folder.mkdir(parents=True, mode=0o700)
    imposter = Imposter(socket_path(settings))
    if why == "open":
        folder.chmod(0o777)
    else:
        mine = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(NotConnectedError, match=str(folder)):
        connect(settings).ping()
    assert not is_up(connect(settings))
    assert not Jobs(settings, connect(settings)).enqueue_import(1)
    assert imposter.heard == b""


def test_no_redis_is_started_in_a_folder_that_others_may_enter(settings, tmp_path):
    socket_path(settings).parent.mkdir(parents=True)
    socket_path(settings).parent.chmod(0o755)
    with Processes(tmp_path / "logs") as processes, pytest.raises(ServiceError, match="chmod 700"):
        start_redis(processes, settings)


def test_the_folder_does_not_depend_on_the_environment(settings, monkeypatch, tmp_path):
    before = socket_path(settings)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert socket_path(settings) == before
    assert before.is_relative_to(settings.data_dir)


def test_a_deep_data_folder_leads_to_a_short_one(far, monkeypatch, tmp_path):
    runtime = tmp_path / "r"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with Processes(tmp_path / "logs") as processes:
        start_redis(processes, far)
        monkeypatch.delenv("XDG_RUNTIME_DIR")  # as for a client in another shell
        assert is_up(connect(far))
        path = socket_path(far)
        assert path.parent.parent == runtime
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    make_socket_folder(far)
    assert socket_path(far) == path  # the next start takes the same


def test_a_link_to_a_folder_that_is_gone_is_made_anew(far, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    make_socket_folder(far)
    socket_path(far).parent.rmdir()
    assert not is_up(connect(far))
    make_socket_folder(far)
    assert socket_path(far).parent.is_dir()


def test_without_a_folder_no_redis_answers(far):
    assert not is_up(connect(far))


def test_the_packaged_redis_needs_none_on_the_path(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with Processes(tmp_path / "logs") as processes:
        start_redis(processes, settings)
        assert is_up(connect(settings))
