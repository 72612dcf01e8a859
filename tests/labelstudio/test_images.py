"""Images from Label Studio and from elsewhere, with real local servers."""

from __future__ import annotations

import gzip
import io
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import downloads, images
from alc_backend.labelstudio.client import Client

TOKEN = "legacy-token"


def fetch(client, url, hosts=()):
    content = io.BytesIO()
    images.fetch(client, url, content, hosts)
    return content.getvalue()


class Pages(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.server.encodings.append(self.headers.get("Accept-Encoding"))
        status, body, location = self.server.pages.get(self.path, (404, b"", None))
        if status == "drip":
            self.drip(body)
            return
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        if "gzip" in self.path:
            self.send_header("Content-Encoding", self.path.rpartition("/")[2])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def drip(self, content):
        """Send a byte every now and then, for as long as somebody listens."""
        try:
            self.wfile.write(content)
            while not self.server.over:
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    started = []

    def start(pages):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        server.pages, server.asked, server.encodings, server.over = pages, [], [], False
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.over = True
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


def test_a_path_of_label_studio_stands_before_its_images_once(serve):
    images = {
        "/labels/data/upload/1.png": (200, b"image", None),
        "/labels/tasks/1/resolve/": (303, b"", "/labels/data/upload/1.png"),
        "/other/a.png": (200, b"other", None),
    }
    server = serve(images)
    public = "https://labels.example.com/labels"
    with Client(f"{server.url}/labels/", TOKEN, public_url=public) as client:
        for url in (
            "/labels/data/upload/1.png",
            "/data/upload/1.png",
            f"{server.url}/labels/data/upload/1.png",
            f"{public}/data/upload/1.png",
            "/labels/tasks/1/resolve/",
        ):
            assert fetch(client, url) == b"image"
        for url in (
            f"{server.url}/other/a.png",
            f"{server.url}/labels/../other/a.png",
            "/labels/../other/a.png",
            "/labels/%2e%2e/other/a.png",
            f"{server.url}/labelsother/a.png",
            "https://labels.example.com/other/a.png",
        ):
            with pytest.raises(LabelStudioError):
                fetch(client, url)
    assert {path for path, _ in server.asked} == {
        "/labels/data/upload/1.png",
        "/labels/tasks/1/resolve/",
    }


def test_a_path_that_only_browsers_use_is_left_out(serve):
    """A proxy takes it away; this backend reaches Label Studio without the proxy."""
    server = serve({
        "/data/upload/1.png": (200, b"image", None),
        "/tasks/1/resolve/": (303, b"", "/labels/data/upload/1.png"),
    })  # fmt: skip
    with Client(server.url, TOKEN, public_url="https://example.com/labels") as client:
        for url in (
            "/labels/data/upload/1.png",
            "https://example.com/labels/data/upload/1.png",
            "/tasks/1/resolve/",
        ):
            assert fetch(client, url) == b"image"
        with pytest.raises(LabelStudioError, match="ALC_IMAGE_HOSTS"):
            fetch(client, "https://example.com/data/upload/1.png")


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


def test_endless_redirects_end(client, serve):
    other = serve({"/a": (302, b"", "/a")})
    with pytest.raises(LabelStudioError, match="sends on more than"):
        fetch(client, f"{other.url}/a", ["127.0.0.1"])


PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "100.64.0.1",
    "169.254.169.254",
    "224.0.0.1",
    "255.255.255.255",
    "0.0.0.0",
    "::1",
    "::",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "fe80::1%eth0",
    "fec0::1",
    "fd00::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public_however_they_are_written(address):
    assert not downloads.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are_public(address):
    assert downloads.is_public(address)


def test_the_address_that_was_checked_is_the_one_that_is_asked(
    client, label_studio, serve, monkeypatch
):
    """A name may mean a public machine when it is first looked up, and then this one."""
    looked_up = []

    def look_up(host, port, *_, **__):
        looked_up.append(host)
        first = host == "storage.example.com" and looked_up.count(host) == 1
        address = "8.8.8.8" if first else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connect = socket.create_connection

    def connect_here(address, *arguments, **options):
        if address[0] == "8.8.8.8":
            raise OSError("no network in tests")
        return connect(address, *arguments, **options)

    inside = serve({"/secret": (200, b"secret", None)})
    onward = f"http://storage.example.com:{inside.server_port}/secret"
    label_studio.pages["/tasks/2/resolve/"] = (303, b"", onward)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect_here)
    with pytest.raises(LabelStudioError, match="no network in tests"):
        fetch(client, "/tasks/2/resolve/")
    assert inside.asked == []
    with pytest.raises(LabelStudioError, match="private network"):  # as it means from now on
        fetch(client, "/tasks/2/resolve/")
    assert inside.asked == []


@pytest.fixture
def certificate(tmp_path):
    """A certificate for localhost that is its own authority, and its key beside it."""
    found = tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout"
    )
    subprocess.run(
        [*command.split(), tmp_path / "key.pem", "-out", found], check=True, capture_output=True
    )
    return found


@pytest.fixture
def secured(serve, certificate):
    """A server that speaks TLS with the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server = serve({"/a.png": (200, b"secured", None), "/api/version": (200, b"{}", None)})
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def test_a_server_is_asked_by_its_name(secured, client, certificate, monkeypatch):
    """Its certificate is for a name, not for the address that the name means."""
    with pytest.raises(LabelStudioError, match=r"certificate.*SSL_CERT_FILE"):
        fetch(client, f"https://localhost:{secured.server_port}/a.png", ["localhost"])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch(client, f"https://localhost:{secured.server_port}/a.png", ["localhost"])
    with pytest.raises(LabelStudioError, match=r"certificate.*use the host name"):
        fetch(client, f"https://127.0.0.1:{secured.server_port}/a.png", ["127.0.0.1"])


def test_a_private_certificate_of_label_studio_needs_to_be_named(
    secured, certificate, label_studio, monkeypatch
):
    url = f"https://localhost:{secured.server_port}"
    with Client(url, TOKEN, sleep=lambda seconds: None) as client:
        for ask in (lambda: client.get("/api/version"), lambda: fetch(client, "/a.png")):
            with pytest.raises(LabelStudioError, match=f"at {url} .*SSL_CERT_FILE") as caught:
                ask()
            assert "LABEL_STUDIO_URL" not in str(caught.value)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Client(url, TOKEN) as client:
        assert client.get("/api/version") == {}
        assert fetch(client, "/a.png") == b"secured"
    plain = label_studio.url.replace("http://", "https://")
    with (
        Client(plain, TOKEN, sleep=lambda seconds: None) as client,
        pytest.raises(LabelStudioError, match="use http://"),
    ):
        client.get("/api/version")


# Bounds, whoever serves an image: Label Studio, or an allowed host.


@pytest.fixture(params=["label studio", "an allowed host"])
def get(request, client, label_studio, serve):
    """Fetch a page with this content from one of the two."""
    other = serve({})
    server, base = (label_studio, "") if request.param == "label studio" else (other, other.url)

    def get(path, status, body):
        server.pages[path] = (status, body, None)
        found = fetch(client, f"{base}{path}", ["127.0.0.1"])
        assert set(server.encodings) == {"identity"}
        return found

    return get


def test_large_files_are_refused(get, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_BYTES", 4000)
    assert len(get("/small", 200, b"x" * 4000)) == 4000
    with pytest.raises(LabelStudioError, match="is larger than"):
        get("/big", 200, b"x" * 4001)


@pytest.mark.parametrize("encoding", ["gzip", "gzip,gzip", "identity,gzip"])
def test_what_is_compressed_unasked_is_refused(get, encoding):
    with pytest.raises(LabelStudioError, match="encoding"):
        get(f"/{encoding}", 200, gzip.compress(gzip.compress(bytes(10**6))))


DRIPPING = {
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    "headers": b"HTTP/1.1 200 OK\r\nX-Long: ",
    "error": b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n",
}


@pytest.mark.parametrize("part", ["body", "headers"])
def test_a_slow_drip_ends_at_the_deadline(get, monkeypatch, part):
    monkeypatch.setattr(downloads, "DEADLINE_S", 0.5)
    began = time.monotonic()
    with pytest.raises(LabelStudioError):
        get("/drip", "drip", DRIPPING[part])
    assert time.monotonic() - began < 3


def test_the_text_of_an_error_is_not_waited_for(get):
    with pytest.raises(LabelStudioError, match="answered 500"):
        get("/drip", "drip", DRIPPING["error"])


def test_errors_do_not_repeat_secrets_of_an_address(client, serve):
    other = serve({})
    with pytest.raises(LabelStudioError) as caught:
        fetch(client, f"{other.url}/a.png?signature=s3cret", ["127.0.0.1"])
    assert "s3cret" not in str(caught.value)
    assert "404" in str(caught.value)
