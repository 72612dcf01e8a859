"""Images from Label Studio and from elsewhere, with real local servers."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import images
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.images import fetch

TOKEN = "legacy-token"


class Pages(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        status, body, location = self.server.pages.get(self.path, (404, b"", None))
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    started = []

    def start(pages):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        server.pages, server.asked = pages, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def label_studio(serve):
    return serve(
        {
            "/data/upload/1.png": (200, b"image", None),
            "/tasks/1/resolve/?fileuri=x": (303, b"", "/storage/1.png"),
            "/storage/1.png": (200, b"from storage", None),
        }
    )


@pytest.fixture
def client(label_studio):
    with Client(label_studio.url, TOKEN) as found:
        yield found


def test_images_of_label_studio_are_asked_for_with_the_token(client, label_studio):
    assert fetch(client, "/data/upload/1.png") == b"image"
    assert fetch(client, f"{label_studio.url}/data/upload/1.png") == b"image"
    assert fetch(client, "/tasks/1/resolve/?fileuri=x") == b"from storage"
    assert {given for _, given in label_studio.asked} == {f"Token {TOKEN}"}


def test_allowed_hosts_are_asked_without_the_token(client, serve):
    other = serve({"/a.png": (200, b"elsewhere", None), "/b.png": (302, b"", "/a.png")})
    for name in ("a", "b"):
        assert fetch(client, f"{other.url}/{name}.png", ["127.0.0.1"]) == b"elsewhere"
    assert {given for _, given in other.asked} == {None}


def test_no_other_host_is_asked(client, serve):
    other = serve({"/a.png": (200, b"secret", None)})
    for url in (
        f"{other.url}/a.png",
        f"http://localhost:{other.server_port}/a.png",
        f"//127.0.0.1:{other.server_port}/a.png",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "s3://bucket/a.png",
        "",
        "http://[::1",
    ):
        with pytest.raises(LabelStudioError):
            fetch(client, url, ["images.example.com"])
    assert other.asked == []


def test_redirects_are_checked_like_addresses(client, label_studio, serve):
    """An allowed host, or Label Studio itself, may not send on into a private network."""
    inside = serve({"/secret": (200, b"secret", None)})
    inside.url = inside.url.replace("127.0.0.1", "localhost")
    outside = serve({"/a.png": (302, b"", f"{inside.url}/secret")})
    with pytest.raises(LabelStudioError, match="not among ALC_IMAGE_HOSTS"):
        fetch(client, f"{outside.url}/a.png", ["127.0.0.1"])
    label_studio.pages["/tasks/2/resolve/"] = (303, b"", f"{inside.url}/secret")
    with pytest.raises(LabelStudioError, match="private network"):
        fetch(client, "/tasks/2/resolve/")
    assert inside.asked == []
    assert fetch(client, "/tasks/2/resolve/", ["localhost"]) == b"secret"  # configured so
    assert [given for _, given in inside.asked] == [None]


def test_endless_redirects_and_large_files_end(client, serve, monkeypatch):
    other = serve({"/a": (302, b"", "/a"), "/big": (200, b"x" * 5000, None)})
    with pytest.raises(LabelStudioError, match="sends on more than"):
        fetch(client, f"{other.url}/a", ["127.0.0.1"])
    monkeypatch.setattr(images, "MAX_BYTES", 4000)
    with pytest.raises(LabelStudioError, match="is larger than"):
        fetch(client, f"{other.url}/big", ["127.0.0.1"])


def test_errors_do_not_repeat_secrets_of_an_address(client, serve):
    other = serve({})
    with pytest.raises(LabelStudioError) as caught:
        fetch(client, f"{other.url}/a.png?signature=s3cret", ["127.0.0.1"])
    assert "s3cret" not in str(caught.value)
    assert "404" in str(caught.value)
