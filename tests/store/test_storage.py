from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import quote

import pytest
from s3fs import S3FileSystem

from alc_backend.errors import NotFoundError, SettingsError, StorageError
from alc_backend.store.storage import Storage
from tests.store import storage_users
from tests.store.object_stores import (
    KEY,
    SECRET,
    MemoryBucket,
    S3Server,
    forget_client,
    replace_client,
)
from tests.store.storage_users import NAME

MB = 2**20


@pytest.fixture(scope="module")
def running_s3():
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(running_s3, monkeypatch) -> Iterator[S3Server]:
    for name, value in running_s3.environment().items():
        monkeypatch.setenv(name, value)
    yield running_s3
    S3FileSystem.clear_instance_cache()  # a client keeps the address that it was made with


@pytest.fixture(params=["folder", "file", "s3", "gs", "az"])
def url(request, tmp_path, monkeypatch) -> str:
    name = f"bucket-{uuid.uuid4().hex}"
    if request.param == "s3":
        return request.getfixturevalue("s3").make_bucket(name)
    if request.param in ("gs", "az"):
        replace_client(monkeypatch, request.param, MemoryBucket)
        return f"{request.param}://{name}/shared"
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
    assert on_disk(tmp_path / "a folder") in ([], ["17.png"])


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


@pytest.mark.parametrize("url", ["folder"], indirect=True)
def test_a_file_in_the_position_of_a_folder_is_named(files):
    files.write("projects/3", b"")
    with pytest.raises(StorageError, match=r"projects/3/a\.png: cannot be written"):
        files.write("projects/3/a.png", b"")


@pytest.mark.parametrize("url", ["folder"], indirect=True)
def test_a_folder_in_the_position_of_a_file_is_named_and_nothing_is_left(files, tmp_path):
    files.write(NAME, b"")
    with pytest.raises(StorageError, match=r"projects/3: cannot be written"):
        files.write("projects/3", b"")
    assert on_disk(tmp_path / "a folder") == ["17.png"]


def test_a_bucket_that_does_not_exist_is_named(s3, tmp_path):
    files = Storage("s3://nowhere/shared", tmp_path)
    with pytest.raises(StorageError, match=rf"s3://nowhere/shared/{NAME}.*bucket does not exist"):
        files.write(NAME, b"")


@pytest.mark.parametrize("url", ["folder", "s3"], indirect=True)
def test_readers_see_whole_files_while_two_processes_write_one(files, url, tmp_path):
    cache = tmp_path / "cache"
    files.write(NAME, b"0" * MB)
    codes = storage_users.run(
        *((storage_users.write, url, cache, digit, 10) for digit in (1, 2)),
        *[(storage_users.read, url, cache, 20)] * 2,
    )
    assert codes == [0, 0, 0, 0]
    assert set(files.read(NAME)) <= {ord("1"), ord("2")}
    for folder in (tmp_path / "a folder", cache):
        assert not [name for name in on_disk(folder) if name.endswith(".part")]


@pytest.mark.parametrize("url", ["folder", "s3"], indirect=True)
def test_processes_that_write_and_fetch_first_at_once_make_one_folder(files, url, tmp_path):
    assert storage_users.run(*[(storage_users.write, url, tmp_path / "cache", 7, 1)] * 3) == [
        0,
        0,
        0,
    ]
    assert storage_users.run(*[(storage_users.read, url, tmp_path / "cache", 1)] * 3) == [0, 0, 0]
    if url.startswith("s3:"):
        assert len(on_disk(tmp_path / "cache")) == 1


def _age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


@pytest.mark.parametrize("url", ["s3", "gs"], indirect=True)
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


@pytest.mark.parametrize("url", ["s3", "gs"], indirect=True)
def test_copies_used_lately_stay_though_they_take_too_much(url, tmp_path):
    files = Storage(url, tmp_path / "cache", cache_bytes=10)
    for name in ("a.png", "b.png", "c.png"):
        files.write(name, name.encode() * 80)
        files.local(name)
    assert len(on_disk(tmp_path / "cache")) == 3


class _Replaced(MemoryBucket):
    """A store where somebody replaces the file while it is fetched for the first time."""

    fetched = 0

    def get_file(self, rpath, lpath, **kwargs):
        content = self.cat_file(rpath)
        type(self).fetched += 1
        if self.fetched == 1:
            self.pipe_file(rpath, b"2" * len(content))
            content = content[: len(content) // 2] + b"2" * (len(content) // 2)
        Path(lpath).write_bytes(content)


def test_a_large_file_replaced_while_it_is_fetched_is_fetched_again(tmp_path, monkeypatch):
    replace_client(monkeypatch, "gs", _Replaced)
    files = Storage(f"gs:/{tmp_path}", tmp_path / "cache")
    files.write("model.safetensors", b"1" * 5 * MB)
    assert files.read("model.safetensors") == b"2" * 5 * MB
    assert _Replaced.fetched == 2


class _Remembering(MemoryBucket):
    """A store whose client remembers what it was told about a file."""

    def info(self, path, **kwargs):
        if path not in self.dircache:
            self.dircache[path] = [super().info(path, **kwargs)]
        return self.dircache[path][0]

    def invalidate_cache(self, path=None):
        self.dircache.clear()


def test_what_a_client_remembers_about_a_file_is_not_believed(tmp_path, monkeypatch):
    replace_client(monkeypatch, "gs", _Remembering)
    files = Storage(f"gs:/{tmp_path}", tmp_path / "cache")
    files.write(NAME, b"one")
    assert files.read(NAME) == b"one"
    Storage(f"gs:/{tmp_path}", tmp_path / "another machine").write(NAME, b"two")
    assert files.read(NAME) == b"two"


class _Watched(MemoryBucket):
    """A store that tells when a file was last read, as Azure does."""

    read = 0

    def info(self, path, **kwargs):
        return {**super().info(path, **kwargs), "last_accessed_on": self.read}

    def get_file(self, rpath, lpath, **kwargs):
        type(self).read += 1
        super().get_file(rpath, lpath, **kwargs)


def test_a_copy_is_not_fetched_again_because_it_was_read(tmp_path, monkeypatch):
    replace_client(monkeypatch, "az", _Watched)
    files = Storage(f"az:/{tmp_path}", tmp_path / "cache")
    files.write(NAME, b"one")
    for _ in range(3):
        assert files.read(NAME) == b"one"
    assert _Watched.read == 1


class _Leaky(MemoryBucket):
    """A store whose errors show the address with its credentials, as those of HTTP clients do."""

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
        "az://worker:s3cr3t%2Fpw@store.example/bucket",
        "az://worker:s3cr3t/pw@store.example/bucket",
        "az://s3cr3t%2Fpw@store.example/bucket",
        "az://store.example/bucket?sig=s3cr3t%2Fpw",
        "az://store.example/bucket?sig=s3cr3t/pw&kind=key",
    ],
)
def test_messages_hold_no_credentials(url, tmp_path, monkeypatch):
    replace_client(monkeypatch, "az", _Leaky)
    files = Storage(url, tmp_path)
    for call in (files.read, files.exists, files.delete):
        with pytest.raises(StorageError, match=rf"az://store.example/bucket/{NAME}") as caught:
            call(NAME)
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(SettingsError, match="ALC_FILES_URL") as refused:
        Storage(url.replace("az", "nope", 1), tmp_path)
    assert "s3cr3t" not in "".join(traceback.format_exception(refused.value))


def test_a_refused_key_names_the_file_and_no_credentials(s3, tmp_path):
    files = Storage(s3.make_bucket(f"bucket-{uuid.uuid4().hex}"), tmp_path)
    files.write(NAME, b"one")
    s3.refuse_unknown_keys(True)
    try:
        for call in (files.read, files.exists, files.delete, lambda name: files.write(name, b"")):
            with pytest.raises(StorageError, match=rf"{NAME}: cannot be .* \(") as caught:
                call(NAME)
            told = "".join(traceback.format_exception(caught.value))
            assert SECRET not in told
            assert KEY not in told
    finally:
        s3.refuse_unknown_keys(False)


def test_a_server_that_is_away_is_an_error_and_never_an_absent_file(s3, tmp_path, monkeypatch):
    address = s3.make_bucket(f"bucket-{uuid.uuid4().hex}")
    files = Storage(address, tmp_path)
    files.write(NAME, b"one")
    S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # where nobody answers
    for call in (files.read, files.exists, files.delete, lambda name: files.write(name, b"")):
        with pytest.raises(StorageError, match=rf"{re.escape(address)}/{NAME}: .*connect"):
            call(NAME)


@pytest.mark.parametrize("scheme", ["ftp", "memory", "s3a", "https", "simplecache::s3"])
def test_another_kind_of_address_is_refused_with_the_remedy(scheme, tmp_path):
    told = rf"ALC_FILES_URL \({scheme}://x\).*folder.*file://, s3://, gs:// or az://"
    with pytest.raises(SettingsError, match=told):
        Storage(f"{scheme}://x", tmp_path)


@pytest.mark.parametrize(
    ("scheme", "module", "extra"),
    [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs"), ("az", "adlfs", "azure")],
)
def test_a_missing_package_is_refused_with_the_remedy(scheme, module, extra, tmp_path, monkeypatch):
    forget_client(monkeypatch, scheme)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    told = rf"ALC_FILES_URL.*`pip install 'alc-backend\[{extra}\]'`"
    with pytest.raises(SettingsError, match=told):
        Storage(f"{scheme}://bucket/folder", tmp_path)
    extras = ConfigParser()
    extras.read(Path(__file__).parents[2] / "setup.cfg")
    assert module in extras["options.extras_require"][extra]


def test_a_local_folder_needs_neither_fsspec_nor_a_cache(tmp_path):
    code = (
        "import sys; from pathlib import Path; from alc_backend.store.storage import Storage\n"
        "files = Storage(sys.argv[1], Path(sys.argv[2])); files.write('a.png', b'1')\n"
        "assert files.read('a.png') == b'1' and 'fsspec' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "files", tmp_path / "cache"], check=True)
    assert on_disk(tmp_path) == ["a.png"]
    assert Storage(str(tmp_path / "files"), tmp_path).local("a.png") == tmp_path / "files/a.png"
