from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

from alc_backend.common.files import write_atomically
from alc_backend.errors import NotFoundError, SettingsError, StorageError
from alc_backend.store import storage
from alc_backend.store.storage import Storage

PASSWORD = "pass:word@1"
NAME = "projects/3/initial/17.png"
MB = 2**20


class _Server:
    """An FTP server on this machine, as far as a worker can tell on any."""

    def __init__(self, root: Path) -> None:
        users = DummyAuthorizer()
        users.add_user("worker", PASSWORD, str(root), perm="elradfmw")
        handler = type("Handler", (FTPHandler,), {"authorizer": users, "auth_failed_timeout": 0})
        self._server = FTPServer(("127.0.0.1", 0), handler)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def url(self, password: str = PASSWORD) -> str:
        port = self._server.address[1]
        return f"ftp://worker:{password}@127.0.0.1:{port}/shared"

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            self._server.serve_forever(timeout=0.05, blocking=False)
        self._server.close_all()


@pytest.fixture
def server(tmp_path) -> Iterator[_Server]:
    (tmp_path / "served").mkdir()
    running = _Server(tmp_path / "served")
    yield running
    running.stop()


@pytest.fixture(params=["folder", "file", "memory", "ftp"])
def url(request, tmp_path) -> str:
    if request.param == "ftp":
        return request.getfixturevalue("server").url()
    if request.param == "memory":
        return f"memory://{tmp_path}"
    folder = tmp_path / "a folder"
    return str(folder) if request.param == "folder" else f"file://{quote(str(folder))}"


@pytest.fixture
def files(url, tmp_path) -> Storage:
    return Storage(url, tmp_path / "cache")


def on_disk(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_one_worker_writes_another_reads(files, url, tmp_path):
    files.write(NAME, b"one")
    other = Storage(url, tmp_path / "another machine")
    assert other.exists(NAME)
    assert other.read(NAME) == b"one"
    other.write(NAME, b"")
    assert files.read(NAME) == b""


def test_a_file_that_is_not_there(files):
    files.write(NAME, b"one")
    assert not files.exists("projects/3/initial/18.png")
    assert not files.exists("projects/3/initial")
    for absent in ("projects/3/initial/18.png", "projects/4/initial/17.png", "projects/3/initial"):
        with pytest.raises(NotFoundError, match=rf"{absent}: there is no such file"):
            files.read(absent)
        with pytest.raises(NotFoundError, match=absent):
            files.local(absent)


def test_deleting_twice(files):
    files.write(NAME, b"one")
    files.delete(NAME)
    files.delete(NAME)
    files.delete("projects/4/never.png")
    assert not files.exists(NAME)
    with pytest.raises(NotFoundError):
        files.read(NAME)


def test_a_large_file_is_put_and_comes_back_whole(files, tmp_path):
    content = os.urandom(5 * MB)
    network = tmp_path / "network.safetensors"
    network.write_bytes(content)
    files.put(network, "projects/3/rounds/1/model.safetensors")
    assert network.exists()
    found = files.local("projects/3/rounds/1/model.safetensors")
    assert found.read_bytes() == content
    assert found.name.endswith("model.safetensors")


def test_a_failed_put_leaves_the_old_content_and_nothing_else(files, tmp_path):
    files.write(NAME, b"old")
    with pytest.raises(StorageError, match=rf"{NAME}: cannot be written"):
        files.put(tmp_path / "absent", NAME)
    assert files.read(NAME) == b"old"
    for folder in (tmp_path / "a folder", tmp_path / "served"):
        assert on_disk(folder) in ([], ["17.png"])


def test_a_stale_copy_is_fetched_again(files, url, tmp_path):
    files.write(NAME, b"one")
    first = files.local(NAME)
    inode = first.stat().st_ino
    assert files.local(NAME) == first
    assert first.stat().st_ino == inode, "an unchanged file is not fetched again"
    Storage(url, tmp_path / "another machine").write(NAME, b"two")
    assert files.local(NAME).read_bytes() == b"two"
    assert files.read(NAME) == b"two"


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../other", "a/../../b", "a//b", "a/", ".", ".hidden", "a\\b", "a?b"],
)
def test_bad_names_are_refused(files, name, tmp_path):
    for call in (files.read, files.exists, files.delete, files.local):
        with pytest.raises(ValueError, match="is not the name of a file"):
            call(name)
    with pytest.raises(ValueError, match="is not the name of a file"):
        files.write(name, b"")
    with pytest.raises(ValueError, match="is not the name of a file"):
        files.put(tmp_path, name)


def test_a_file_in_the_place_of_a_folder_is_named(files):
    files.write("projects/3", b"")
    with pytest.raises(StorageError, match=r"projects/3/a\.png: cannot be written"):
        files.write("projects/3/a.png", b"")


@pytest.mark.parametrize("url", ["folder", "ftp"], indirect=True)
def test_a_folder_in_the_place_of_a_file_is_named_and_nothing_is_left(files, tmp_path):
    files.write(NAME, b"")
    with pytest.raises(StorageError, match=r"projects/3: cannot be written"):
        files.write("projects/3", b"")
    for folder in (tmp_path / "a folder", tmp_path / "served"):
        assert on_disk(folder) in ([], ["17.png"])


def _write(url: str, cache: Path, digit: int, times: int) -> None:
    files = Storage(url, cache)
    for _ in range(times):
        files.write(NAME, str(digit).encode() * MB)


def _read(url: str, cache: Path, times: int) -> None:
    files = Storage(url, cache)
    for _ in range(times):
        content = files.read(NAME)
        assert len(content) == MB
        assert len(set(content)) == 1


def _run(*tasks: tuple) -> list[int | None]:
    """Run functions in processes of their own, all at once; returns their exit codes."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=task, args=given) for task, *given in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("url", ["folder", "ftp"], indirect=True)
def test_readers_see_whole_files_while_two_processes_write_one(files, url, tmp_path):
    cache = tmp_path / "cache"
    files.write(NAME, b"0" * MB)
    codes = _run(
        *((_write, url, cache, digit, 20) for digit in (1, 2)), *[(_read, url, cache, 40)] * 2
    )
    assert codes == [0, 0, 0, 0]
    assert set(files.read(NAME)) <= {ord("1"), ord("2")}
    for folder in (tmp_path / "a folder", tmp_path / "served", cache):
        assert not [name for name in on_disk(folder) if name.endswith(".part")]


@pytest.mark.parametrize("url", ["folder", "ftp"], indirect=True)
def test_processes_that_write_and_fetch_first_at_once_make_one_folder(files, url, tmp_path):
    assert _run(*[(_write, url, tmp_path / "cache", 7, 1)] * 3) == [0, 0, 0]
    assert _run(*[(_read, url, tmp_path / "cache", 1)] * 3) == [0, 0, 0]
    if "ftp" in url:
        assert len(on_disk(tmp_path / "cache")) == 1


def test_threads_that_write_one_local_file_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "file"
    both = threading.Barrier(2)

    def write(part: Path, content: bytes) -> None:
        part.write_bytes(content)
        both.wait(30)

    with ThreadPoolExecutor(2) as pool:
        for done in [
            pool.submit(write_atomically, path, lambda part, byte=byte: write(part, byte * 9))
            for byte in (b"a", b"b")
        ]:
            done.result()
    assert path.read_bytes() in (b"a" * 9, b"b" * 9)
    assert on_disk(tmp_path) == ["file"]


def _age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


@pytest.mark.parametrize("url", ["memory", "ftp"], indirect=True)
def test_the_least_recently_used_copies_go_first(url, tmp_path):
    cache = tmp_path / "cache"
    files = Storage(url, cache, cache_bytes=1000)
    for name in ("a.png", "b.png", "c.png"):
        files.write(name, name.encode() * 80)  # 400 bytes
    _age(files.local("a.png"), hours=2)
    _age(files.local("b.png"), hours=1)
    files.local("c.png")
    assert [name[33:] for name in on_disk(cache)].count("a.png") == 0
    assert len(on_disk(cache)) == 2

    files.local("b.png")  # used again: now c is the older one
    _age(files.local("c.png"), hours=1)
    files.local("a.png")
    assert sorted(name[33:] for name in on_disk(cache)) == ["a.png", "b.png"]
    assert files.read("c.png") == b"c.png" * 80


@pytest.mark.parametrize("url", ["memory", "ftp"], indirect=True)
def test_copies_used_lately_stay_though_they_take_too_much(url, tmp_path):
    files = Storage(url, tmp_path / "cache", cache_bytes=10)
    for name in ("a.png", "b.png", "c.png"):
        files.write(name, name.encode() * 80)
        files.local(name)
    assert len(on_disk(tmp_path / "cache")) == 3


class _Replaced(MemoryFileSystem):
    """A store where somebody replaces the file while it is fetched for the first time."""

    protocol = "replaced"
    fetched = 0

    def get_file(self, rpath, lpath, **kwargs):
        content = self.cat_file(rpath)
        type(self).fetched += 1
        if self.fetched == 1:
            self.pipe_file(rpath, b"2" * len(content))
            content = content[: len(content) // 2] + b"2" * (len(content) // 2)
        Path(lpath).write_bytes(content)


def test_a_large_file_replaced_while_it_is_fetched_is_fetched_again(tmp_path):
    fsspec.register_implementation("replaced", _Replaced, clobber=True)
    files = Storage(f"replaced://{tmp_path}", tmp_path / "cache")
    files.write("model.safetensors", b"1" * 5 * MB)
    assert files.read("model.safetensors") == b"2" * 5 * MB
    assert _Replaced.fetched == 2


class _Crowded(MemoryFileSystem):
    """A store without atomic uploads, where another process makes each folder a moment earlier."""

    protocol = "crowded"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    def mkdir(self, path, create_parents=True, **kwargs):
        super().mkdir(path, create_parents, **kwargs)
        raise FileExistsError(path)


def test_a_folder_that_another_process_makes_first_is_used(tmp_path):
    fsspec.register_implementation("crowded", _Crowded, clobber=True)
    files = Storage(f"crowded://{tmp_path}", tmp_path / "cache")
    files.write(NAME, b"one")
    assert files.read(NAME) == b"one"


class _Remembering(MemoryFileSystem):
    """A store whose client remembers what it was told about a file."""

    protocol = "remembering"

    def info(self, path, **kwargs):
        if path not in self.dircache:
            self.dircache[path] = [super().info(path, **kwargs)]
        return self.dircache[path][0]

    def invalidate_cache(self, path=None):
        self.dircache.clear()


def test_what_a_client_remembers_about_a_file_is_not_believed(tmp_path):
    fsspec.register_implementation("remembering", _Remembering, clobber=True)
    files = Storage(f"remembering://{tmp_path}", tmp_path / "cache")
    files.write(NAME, b"one")
    assert files.read(NAME) == b"one"
    Storage(f"remembering://{tmp_path}", tmp_path / "another machine").write(NAME, b"two")
    assert files.read(NAME) == b"two"


class _Leaky(MemoryFileSystem):
    """A store whose errors show the address with its credentials, as those of HTTP clients do."""

    protocol = "leaky"

    @staticmethod
    def _get_kwargs_from_urls(path):
        return {"url": path}

    def info(self, path, **kwargs):
        try:
            raise ConnectionError(f"GET {self.storage_options['url']} refused")
        except ConnectionError as error:
            raise RuntimeError(f"no answer for key s3cr3t/pw and {error}") from error


@pytest.mark.parametrize(
    "url",
    [
        "leaky://worker:s3cr3t%2Fpw@store.example/bucket",
        "leaky://worker:s3cr3t/pw@store.example/bucket",
        "leaky://s3cr3t%2Fpw@store.example/bucket",
        "leaky://store.example/bucket?sig=s3cr3t%2Fpw",
        "leaky://store.example/bucket?sig=s3cr3t/pw&kind=key",
    ],
)
def test_messages_hold_no_credentials(url, tmp_path):
    fsspec.register_implementation("leaky", _Leaky, clobber=True)
    files = Storage(url, tmp_path)
    for call in (files.read, files.exists, files.delete):
        with pytest.raises(StorageError, match=rf"leaky://store.example/bucket/{NAME}") as caught:
            call(NAME)
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(SettingsError, match="ALC_FILES_URL") as refused:
        Storage(url.replace("leaky", "nope"), tmp_path)
    assert "s3cr3t" not in "".join(traceback.format_exception(refused.value))


def test_a_refused_password_names_the_file_but_not_the_password(server, tmp_path):
    files = Storage(server.url("s3cr3t"), tmp_path)
    for call in (files.read, files.exists, files.delete, lambda name: files.write(name, b"")):
        with pytest.raises(
            StorageError, match=rf"{NAME}: cannot be .* \(error_perm: 530"
        ) as caught:
            call(NAME)
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_is_away_is_an_error_and_never_an_absent_file(server, tmp_path):
    files = Storage(server.url(), tmp_path)
    files.write(NAME, b"one")
    server.stop()
    for call in (files.read, files.exists, files.delete, lambda name: files.write(name, b"")):
        with pytest.raises(StorageError, match=rf"127\.0\.0\.1:\d+/shared/{NAME}.*refused"):
            call(NAME)


def test_an_unknown_kind_of_address_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(SettingsError, match=r"ALC_FILES_URL \(nope://x\).*s3://bucket/folder"):
        Storage("nope://x", tmp_path)


@pytest.mark.parametrize(
    ("protocol", "module", "package"),
    [
        ("s3", "s3fs", "s3fs"),
        ("gs", "gcsfs", "gcsfs"),
        ("sftp", "fsspec.implementations.sftp", r"'fsspec\[sftp\]'"),
    ],
)
def test_a_missing_package_is_refused_with_the_remedy(
    protocol, module, package, tmp_path, monkeypatch
):
    monkeypatch.delitem(_registry, protocol, raising=False)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(SettingsError, match=rf"ALC_FILES_URL.*`pip install {package}`"):
        Storage(f"{protocol}://bucket/folder", tmp_path)


def test_a_local_folder_needs_neither_fsspec_nor_a_cache(tmp_path):
    code = (
        "import sys; from pathlib import Path; from alc_backend.store.storage import Storage\n"
        "files = Storage(sys.argv[1], Path(sys.argv[2])); files.write('a.png', b'1')\n"
        "assert files.read('a.png') == b'1' and 'fsspec' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "files", tmp_path / "cache"], check=True)
    assert on_disk(tmp_path) == ["a.png"]
    assert Storage(str(tmp_path / "files"), tmp_path).local("a.png") == tmp_path / "files/a.png"


def test_the_stamp_of_a_file_does_not_change_when_it_is_read():
    """SFTP and SMB tell the time of the last access too."""
    told = {"name": "a", "size": 1, "type": "file", "mtime": 5, "time": 6}
    assert storage._stamp(told) == storage._stamp({**told, "time": 7})
    assert storage._stamp(told) != storage._stamp({**told, "mtime": 7})
