"""Downloads from a local server that stands in for the hub, and files that the user has."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from alc_backend.cli import main
from alc_backend.errors import WeightsError
from alc_backend.foundation import weights
from alc_backend.foundation.catalogue import DETECTORS, MODELS, SEGMENTERS, Model, Original, Role
from alc_backend.foundation.weights import FileState
from alc_backend.settings import settings

CONTENT = bytes(range(256)) * 400
DIGEST = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "a" * 40
SMALL = Model(
    "small",
    Role.SEGMENTER,
    "a model of one file",
    "someone/small",
    len(CONTENT),
    files=("config.json", "model.safetensors", "vocab.txt"),
    original=Original("small.pth", "https://example.com/small.pth", DIGEST),
)


class Hub(ThreadingHTTPServer):
    """The files of one repository, as the hub serves them."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {"config.json": b"{}", "model.safetensors": CONTENT}
        self.tag, self.asked, self.status = DIGEST, [], None
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.server
        hub.asked.append((self.command, self.path))
        name = self.path.rsplit("/", 1)[-1]
        body = hub.files.get(name)
        self.send_response(hub.status or (200 if body is not None else 404))
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hub.tag if name.endswith("safetensors") else "12"}"')
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def test_a_download_arrives_with_its_commit_and_its_hashes(models, hub):
    weights.download(models, SMALL, hub.address)
    assert (models / "small" / "model.safetensors").read_bytes() == CONTENT
    assert weights.require([], models) == {}
    assert weights.is_there(models, SMALL)
    kept = json.loads((models / "small" / "hashes.json").read_text())
    assert kept["revision"] == COMMIT
    assert kept["model.safetensors"] == DIGEST
    assert set(weights.check(models, SMALL).values()) == {FileState.OK}
    hub.asked.clear()
    weights.download(models, SMALL, hub.address)
    assert all(f"/resolve/{COMMIT}/" in path for _, path in hub.asked)
    assert "GET" not in {method for method, _ in hub.asked}


def test_a_file_that_is_not_the_one_described_is_refused(models, hub):
    hub.tag = "b" * 64
    with pytest.raises(WeightsError, match="expected bbbb"):
        weights.download(models, SMALL, hub.address)
    assert not (models / "small" / "model.safetensors").exists()
    assert not weights.is_there(models, SMALL)


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_says_no_is_reported_with_what_to_do(models, hub, status):
    hub.status = status
    with pytest.raises(WeightsError, match="cannot be fetched") as caught:
        weights.download(models, SMALL, hub.address)
    assert "https://huggingface.co/someone/small" in str(caught.value)
    assert str((models / "small").absolute()) in str(caught.value)


def test_a_repository_without_a_needed_file_is_reported(models, hub):
    del hub.files["model.safetensors"]
    with pytest.raises(WeightsError, match="small cannot be fetched"):
        weights.download(models, SMALL, hub.address)
    assert weights.state(models, SMALL) == "in part"


def test_loaders_are_told_what_is_missing(models):
    with pytest.raises(WeightsError, match="sam_vit_h_4b8939") as caught:
        weights.require(["sam-vit-h"], models)
    assert "facebook/sam-vit-huge" in str(caught.value)
    with pytest.raises(WeightsError, match="no weights 'sam-vit-x'"):
        weights.require(["sam-vit-x"], models)


def test_an_original_file_is_checked_and_put_in_place(models, tmp_path):
    given = tmp_path / "my_copy.pth"
    given.write_bytes(CONTENT)
    weights.install(models, SMALL, given)
    assert weights.is_there(models, SMALL)
    assert weights.check(models, SMALL) == {"small.pth": FileState.OK}
    (models / "small" / "small.pth").write_bytes(b"something else")
    assert weights.check(models, SMALL) == {"small.pth": FileState.WRONG}
    given.write_bytes(b"another file")
    with pytest.raises(WeightsError, match="has the SHA-256"):
        weights.install(models, SMALL, given)


def test_a_folder_of_files_is_put_in_place(models, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    (given / "config.json").write_bytes(b"{}")
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        weights.install(models, SMALL, given)
    (given / "model.safetensors").write_bytes(CONTENT)
    weights.install(models, SMALL, given)
    assert set(weights.check(models, SMALL).values()) == {FileState.OK}
    (models / "small" / "model.safetensors").write_bytes(b"")
    assert weights.check(models, SMALL)["model.safetensors"] == FileState.WRONG
    with pytest.raises(WeightsError, match="is no file of small"):
        weights.install(models, SMALL, tmp_path / "unknown.bin")


def test_without_a_known_hash_the_first_one_holds(models):
    folder = models / "small"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(b"{}")
    assert set(weights.check(models, SMALL).values()) == {FileState.UNKNOWN}
    assert set(weights.check(models, SMALL).values()) == {FileState.OK}
    (folder / "hashes.json").write_text("{")
    with pytest.raises(WeightsError, match="delete it"):
        weights.check(models, SMALL)


def test_every_entry_says_what_it_is():
    for model in MODELS.values():
        assert model.size > 0
        assert model.licence
        assert model.compared
        assert model.repository.count("/") == 1
        if model.original and model.original.sha256:
            assert len(bytes.fromhex(model.original.sha256)) == 32
    assert set(DETECTORS) | set(SEGMENTERS) | {"bert-base-uncased"} == set(MODELS)


@pytest.fixture
def alc(models, monkeypatch):
    monkeypatch.setenv("ALC_MODEL_DIR", str(models))
    settings.cache_clear()
    yield lambda *given: CliRunner().invoke(main.app, ["weights", *given])
    settings.cache_clear()


def test_weights_at_the_command_line(alc, models, tmp_path):
    shown = alc("list", "--json")
    rows = {row["name"]: row for row in json.loads(shown.output)["weights"]}
    assert rows["sam3"]["licence"] == "SAM License"
    assert rows["sam-vit-h"]["state"] == "missing"
    assert "segment-anything 1.0" in rows["sam-vit-h"]["compared"]
    assert rows["sam-vit-h"]["hashes"]["sam_vit_h_4b8939.pth"].startswith("a7bf3b02")
    assert "owlv2-base" in alc("list").output
    given = tmp_path / "base.pth"
    given.write_bytes(CONTENT)
    done = alc("download", "grounding-dino-base", "--from", str(given))
    assert "grounding-dino-base: there" in done.output
    assert alc("verify", "grounding-dino-base").exit_code == 0
    (models / "grounding-dino-base" / "groundingdino_swinb_cogcoor.pth").write_bytes(b"")
    assert alc("verify", "grounding-dino-base").exit_code == 1
    assert alc("verify", "sam3").exit_code == 1
    both = alc("download", "sam-vit-h", "sam-vit-b", "--from", str(given))
    assert "one model" in str(both.exception) + both.output
