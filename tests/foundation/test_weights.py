"""Downloads from a local server that stands in for the hub."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from alc_backend.cli import main
from alc_backend.errors import WeightsError
from alc_backend.foundation import weights
from alc_backend.foundation.catalogue import WEIGHTS, File
from alc_backend.settings import settings

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Hub(ThreadingHTTPServer):
    """Serves ``content`` under every path; ``cut`` ends each answer after so many bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), LedgerEntry)
        self.content, self.etag, self.cut, self.status = CONTENT, '"1"', None, None
        self.ranges, self.asked = [], []
        self.honours_ranges = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class LedgerEntry(BaseHTTPRequestHandler):
    def do_GET(self):
        hub = self.server
        wanted = self.headers.get("Range")
        hub.ranges.append(wanted)
        hub.asked.append(self.path)
        if hub.status:
            self.send_error(hub.status)
            return
        first, status = 0, 200
        fresh = self.headers.get("If-Range") in (None, hub.etag)
        if wanted and hub.honours_ranges and fresh:
            first, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            if first >= len(hub.content):
                self.send_error(416)
                return
        body = hub.content[first:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", hub.etag)
        self.end_headers()
        if hub.cut is not None:
            body, hub.cut = body[: hub.cut], None
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


FILE = File("model.pth", "https://hub.invalid/model.pth", len(CONTENT), DIGEST)
UNHASHED = File("model.pth", "https://hub.invalid/model.pth")


def fetch(models, hub, file=FILE, **options):
    return weights.download(models, file, mirror=hub.url, pause_s=0, **options)


def test_a_download_arrives_and_is_not_repeated(models, hub):
    seen = []
    assert fetch(models, hub, progress=lambda name, done, size: seen.append((done, size)))
    assert (models / "model.pth").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(models, hub)
    assert len(hub.ranges) == 1
    assert sorted(path.name for path in models.iterdir()) == ["model.pth"]


def test_a_cut_download_goes_on_where_it_stopped(models, hub):
    hub.cut = 300_000
    assert fetch(models, hub)
    assert hub.ranges == [None, "bytes=300000-"]
    assert (models / "model.pth").read_bytes() == CONTENT


def test_an_attempt_of_another_day_goes_on_too(models, hub, monkeypatch):
    hub.cut = 300_000
    monkeypatch.setattr(weights, "TRIES", 1)
    with pytest.raises(WeightsError, match="goes on where it stopped"):
        fetch(models, hub)
    assert (models / "model.pth.part").stat().st_size == 300_000
    assert fetch(models, hub)
    assert hub.ranges == [None, "bytes=300000-"]


def test_what_has_changed_on_the_server_is_not_pieced_together(models, hub, monkeypatch):
    hub.content, hub.cut, hub.etag = b"x" * len(CONTENT), 300_000, '"0"'
    monkeypatch.setattr(weights, "TRIES", 1)
    with pytest.raises(WeightsError):
        fetch(models, hub)
    hub.content, hub.etag = CONTENT, '"1"'
    assert fetch(models, hub)
    assert (models / "model.pth").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(models, hub):
    hub.cut, hub.honours_ranges = 300_000, False
    assert fetch(models, hub)
    assert (models / "model.pth").read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_taken(models, hub):
    models.mkdir()
    (models / "model.pth.part").write_bytes(CONTENT)
    assert fetch(models, hub)
    assert (models / "model.pth").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_fetched_anew(models, hub):
    models.mkdir()
    (models / "model.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(models, hub)
    assert (models / "model.pth").read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_and_nothing_kept(models, hub):
    hub.content = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match=rf"model\.pth: has the SHA-256 .* expected {DIGEST}"):
        fetch(models, hub)
    assert list(models.glob("model*")) == []


def test_a_wrong_file_in_its_place_is_not_replaced_unasked(models, hub):
    models.mkdir()
    (models / "model.pth").write_bytes(b"somebody's own")
    with pytest.raises(WeightsError, match="delete it and fetch it again"):
        fetch(models, hub)
    assert (models / "model.pth").read_bytes() == b"somebody's own"


def test_without_a_published_hash_the_first_one_holds(models, hub):
    assert not fetch(models, hub, UNHASHED)
    assert json.loads((models / "hashes.json").read_text()) == {"model.pth": DIGEST}
    assert weights.check(models, UNHASHED) == weights.FileState.OK
    (models / "model.pth").write_bytes(b"changed")
    assert weights.check(models, UNHASHED) == weights.FileState.WRONG
    (models / "model.pth").unlink()
    hub.content = b"another"
    with pytest.raises(WeightsError, match="has the SHA-256"):
        fetch(models, hub, UNHASHED)


def test_a_full_disk_is_seen_before_and_while_writing(models, hub, monkeypatch):
    class Usage:
        free = 1000

    with monkeypatch.context() as patched:
        patched.setattr(weights.shutil, "disk_usage", lambda path: Usage)
        with pytest.raises(WeightsError, match=r"model\.pth: the disk of .* .needs 1 MB, 0 MB are"):
            fetch(models, hub)
        with pytest.raises(WeightsError, match="is full"):  # the server tells how long it is
            fetch(models, hub, UNHASHED)

    def progress(name, done, size):
        if done > 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WeightsError, match="No space left on device"):
        fetch(models, hub, progress=progress)
    assert (models / "model.pth.part").stat().st_size > 0
    assert fetch(models, hub)


def test_without_a_network_one_message_says_what_to_put_where(models):
    file = File("model.pth", "https://hub.invalid/model.pth")
    with pytest.raises(WeightsError) as caught:
        weights.download(models, file, pause_s=0)
    said = str(caught.value)
    assert "https://hub.invalid/model.pth cannot be fetched" in said
    assert f"→ {(models / 'model.pth').absolute()}" in said
    assert "--from FILE" in said


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (503, weights.TRIES)])
def test_a_server_that_says_no_is_asked_once_an_overloaded_one_again(models, hub, status, times):
    hub.status = status
    with pytest.raises(WeightsError, match=str(status)):
        fetch(models, hub)
    assert len(hub.ranges) == times


def test_without_https_nothing_is_taken(models, hub):
    with pytest.raises(WeightsError, match="without https"):
        weights.download(models, File("model.pth", f"{hub.url}/model.pth"), pause_s=0)
    assert list(models.glob("model*")) == []


def test_loaders_are_told_what_is_missing(models):
    with pytest.raises(WeightsError) as caught:
        weights.require(["sam-vit-b", "bert-base-uncased"], models)
    said = str(caught.value)
    assert "sam_vit_b_01ec64.pth" in said
    assert said.count("https://") == 6
    assert str(models / "bert-base-uncased" / "vocab.txt") in said
    models.mkdir()
    (models / "sam_vit_b_01ec64.pth").write_bytes(b"some")
    assert weights.require(["sam-vit-b"], models) == {"sam-vit-b": models / "sam_vit_b_01ec64.pth"}
    (models / "sam_vit_h_4b8939.pth").write_bytes(b"cut")  # its size is known
    with pytest.raises(WeightsError, match="sam_vit_h"):
        weights.require(["sam-vit-h"], models)
    assert weights.require([], models) == {}


def test_every_entry_can_be_fetched_by_hand():
    for entry in WEIGHTS.values():
        assert entry.files
        for file in entry.files:
            assert file.url.startswith("https://")
            assert file.url.endswith(file.path.rsplit("/", 1)[-1])
            assert file.sha256 is None or len(file.sha256) == 64


@pytest.fixture
def alc(models, hub, monkeypatch):
    """The command line, with the local hub as the mirror."""
    monkeypatch.setenv("ALC_MODEL_DIR", str(models))
    monkeypatch.setenv("ALC_WEIGHTS_MIRROR", hub.url)
    settings.cache_clear()
    yield lambda *words: CliRunner().invoke(main.app, ["weights", *words])
    settings.cache_clear()


def test_weights_at_the_command_line(alc, models, hub):
    assert json.loads(alc("list", "--json").stdout)["folder"] == str(models)
    assert alc("list").exit_code == 0
    said = alc("download", "bert-base-uncased", "groundingdino-swin-b")
    assert said.exit_code == 0, said
    assert "No hash is published for" in said.stdout
    assert "/bert-base-uncased/vocab.txt" in hub.asked
    rows = {
        row["name"]: row["state"] for row in json.loads(alc("list", "--json").stdout)["weights"]
    }
    assert rows["bert-base-uncased"] == rows["groundingdino-swin-b"] == "there"
    assert rows["sam-vit-h"] == "missing"
    assert alc("verify").exit_code == 0
    assert alc("verify", "sam-vit-h").exit_code == 1
    (models / "groundingdino_swinb_cogcoor.pth").write_bytes(b"changed")
    assert alc("verify").exit_code == 1


def test_a_wrong_file_at_the_command_line(alc, models, tmp_path):
    refused = alc("download", "sam-vit-b")
    assert isinstance(refused.exception, WeightsError)
    assert "has the SHA-256" in str(refused.exception)
    own = tmp_path / "own.pth"
    own.write_bytes(b"not it")
    refused = alc("download", "sam-vit-b", "--from", str(own))
    assert "has the SHA-256" in str(refused.exception)
    assert not (models / "sam_vit_b_01ec64.pth").exists()
    assert own.read_bytes() == b"not it"
    assert "no weights 'sam'" in str(alc("download", "sam").exception)


def test_files_that_the_user_has(alc, models, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for file in WEIGHTS["bert-base-uncased"].files:
        (own / file.path.split("/")[1]).write_text(file.path)
    one = alc("download", "bert-base-uncased", "--from", str(own / "vocab.txt"))
    assert "give the folder" in str(one.exception)
    assert alc("download", "bert-base-uncased", "--from", str(own)).exit_code == 0
    assert (models / "bert-base-uncased/config.json").read_text() == "bert-base-uncased/config.json"
    missing = alc("download", "sam-vit-b", "--from", str(tmp_path / "nothing"))
    assert "cannot be read" in str(missing.exception)
    both = alc("download", "sam-vit-b", "sam-vit-l", "--from", str(own))
    assert "one model" in str(both.exception)
