"""Whatever is sent to the service: an answer below 500, soon, and nothing lost or stuck."""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address

import anyio
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from alc_backend.cvat.signature import HEADER, secret_of, sign
from alc_backend.service.web.app import create_app
from tests.asgi import ask, scope
from tests.fuzz.values import SECRET, anything, body, examples, promptly
from tests.serving import serving

POSTS = [
    "/setup",
    "/predict",
    "/webhook",
    "/train",
    "/job_status",
    "/rounds",
    "/rounds/cancel",
    "/cvat/5",
]


@pytest.fixture
def described(settings, project, redis):
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(settings), headers=SECRET)


def test_every_operation_of_the_document(described):
    """What the OpenAPI document allows, and what it does not."""
    operations = [found.ok() for found in described.get_all_operations()]
    paths = {re.sub(r"\{\w+\}", "5", operation.path) for operation in operations}
    assert paths >= set(POSTS)
    for operation in operations:

        @examples(25)
        @given(operation.as_strategy() | operation.as_strategy(GenerationMode.NEGATIVE))
        def send(case):
            with promptly():
                case.call_and_validate(headers=SECRET, checks=[not_a_server_error])

        send()


@pytest.mark.parametrize("path", POSTS)
def test_any_json(client, path):
    @examples(40)
    @given(anything)
    def send(value):
        with promptly():
            answered = client.post(path, content=body(value))
        assert answered.status_code < 500, answered.text

    send()


def test_whatever_is_signed(client):
    """CVAT's route, past the signature."""

    @examples(60)
    @given(st.dictionaries(st.sampled_from(["event", "job", "id"]), anything) | anything)
    def send(value):
        content = body(value)
        headers = {HEADER: sign(content, secret_of(5, "s3cret"))}
        with promptly():
            answered = client.post("/cvat/5", content=content, headers=headers)
        assert answered.status_code in (200, 413, 422), answered.text

    send()


@pytest.mark.parametrize("path", POSTS)
def test_no_json_at_all(client, path):
    deep = b"[" * 100_000 + b"]" * 100_000

    @examples(15)
    @given(st.binary(max_size=200) | st.sampled_from([b"", b"{", b'{"a":', b"\xff\xfe", deep]))
    def send(content):
        with promptly():
            answered = client.post(path, content=content)
        assert 400 <= answered.status_code < 500

    send()


def test_pages(client):
    """Addresses and forms of the pages."""
    part = st.integers(-(2**70), 2**70).map(str) | st.text("0123456789abc.-_%~", max_size=12)

    @examples(40)
    @given(
        st.sampled_from(
            [
                "/projects/{}",
                "/superpixels/{}.jpg",
                "/static/{}",
                "/images/{}",
                "/images/{}/image",
                "/images/{}/superpixels",
                "/images/{}/after",
                "/images?project={}",
                "/images?begin={}",
                "/images?begin=key-{}",
                "/images?shows={}",
                "/versions?project={}",
                "/projects/1?said={}",
            ]
        ),
        part,
    )
    def look(path, word):
        with promptly():
            answered = client.get(path.format(word))
        assert answered.status_code < 500, path.format(word)

    look()

    @examples(15)
    @given(part, st.binary(max_size=100))
    def press(word, content):
        with promptly():
            answered = client.post(f"/projects/{word}/start", content=content)
        assert 400 <= answered.status_code < 500

    press()


PASSWORD = (b"authorization", SECRET["Authorization"].encode())

token = st.text("abcXYZ!#$%&'*+-.^_`|~09", min_size=1, max_size=20)
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]) | token
latin = st.text(st.characters(max_codepoint=255), max_size=60).map(lambda t: t.encode("latin-1"))
addresses = st.lists(st.ip_addresses().map(str) | token, max_size=4).map(", ".join)
header = (
    st.tuples(
        st.sampled_from(
            [
                "authorization",
                "content-encoding",
                "content-length",
                "content-type",
                "cookie",
                "expect",
                "host",
                "if-none-match",
                "origin",
                "range",
                "transfer-encoding",
                "upgrade",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-http-method-override",
                "x-request-id",
            ]
        )
        | token.map(str.lower),
        latin | st.just(b"x" * 60_000),
    )
    | st.tuples(st.just("x-forwarded-for"), addresses.map(str.encode))
    | st.tuples(st.just("content-type"), st.sampled_from([b"application/json", b"text/plain"]))
    | st.tuples(st.just("content-length"), st.integers(-5, 2**70).map(lambda n: str(n).encode()))
).map(lambda pair: (pair[0].encode(), pair[1]))
chunks = st.lists(
    st.binary(max_size=40)
    | st.sampled_from([b"", b"[", b"{}", b'{"project":', b"token=", b" " * 5000, b"[" * 70_000]),
    max_size=8,
)
paths = st.sampled_from(
    [*POSTS, "/", "/health", "/ready", "/metrics", "/images/1/after", "/projects/1/start", "/none"]
)


def test_methods_headers_and_chunked_bodies(settings, project, redis):
    """Whatever is drawn is refused or answered; the client's address stays one."""
    changes = {"trusted_proxies": "127.0.0.1,10.0.0.0/8", "max_request_mb": 1}
    app = create_app(settings.model_copy(update=changes))

    @examples(120)
    @given(methods, paths, st.lists(header, max_size=6), chunks, st.booleans())
    def send(method, path, headers, parts, with_password):
        asked = scope(method, path, [PASSWORD, *headers] if with_password else headers)
        with promptly():
            answered = anyio.run(ask, app, asked, parts)
        assert answered.status < 500 or (path, answered.status) == ("/ready", 503)
        assert answered.headers["x-content-type-options"] == "nosniff"
        assert ip_address(asked["client"][0])

    with TestClient(app):  # starts what writes to the inbox
        send()


framing = st.sampled_from(
    [
        b"POST /webhook HTTP/1.1\r\n",
        b"GET /health HTTP/1.1\r\n",
        b"GET http://elsewhere/ HTTP/1.0\r\n",
        b"Host: a\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
        b"Content-Type: application/json\r\n",
        b"Authorization: " + PASSWORD[1] + b"\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFFFFF\r\n",
        b"1;" + b"x" * 5000 + b"\r\n \r\n",
    ]
)


def test_bytes_on_the_wire(settings, project, redis):
    """Whatever arrives, the connection is answered or closed, and the next one is served."""
    with serving(create_app(settings)) as port:

        @examples(60)
        @given(st.lists(framing | st.binary(max_size=50), max_size=14))
        def send(parts):
            with promptly():
                with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                    try:
                        client.sendall(b"".join(parts))
                        client.shutdown(socket.SHUT_WR)
                        while client.recv(2**16):
                            pass
                    except ConnectionError:
                        pass
                with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                    client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert client.recv(20).startswith(b"HTTP/1.1 200")

        send()
