"""Connections that wait, drip or do not read are closed, and nobody can take all of them."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from alc_backend.service.web import connections
from tests.serving import serving

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWERED = b"HTTP/1.1 200"
LARGE = 64 * 2**20


async def app(asked, receive, send):
    """Answers at once; with 64 MiB to a request for /large, and without reading any body."""
    if asked["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    length = LARGE if asked["path"] == "/large" else 2
    headers = [(b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * length})


@pytest.fixture
def quick(monkeypatch):
    """All deadlines are short."""
    for name in ("HEAD_WITHIN_S", "READ_WITHIN_S", "LINGER_S"):
        monkeypatch.setattr(connections, name, 0.3)


@pytest.fixture
def port(quick):
    with serving(app) as port:
        yield port


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def is_closed(client):
    """Whether the server closes the connection within some seconds, whatever comes before."""
    try:
        while client.recv(2**16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def answer(client, request=GET):
    """Everything that is answered to a request."""
    client.sendall(request)
    got = b""
    while not got.endswith(b"xx"):
        part = client.recv(2**16)
        assert part, "the connection was closed"
        got += part
    return got


def drip(client, part, pause_s):
    """Send ``part`` again and again; the seconds until the connection is closed."""
    began = time.monotonic()
    while time.monotonic() - began < 10:
        try:
            client.sendall(part)
        except ConnectionError:
            break
        time.sleep(pause_s)
    return time.monotonic() - began


@pytest.mark.parametrize("begun", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: a\r\nX: "])
def test_a_request_that_does_not_come(port, begun):
    with connect(port) as client:
        client.sendall(begun)
        assert is_closed(client)


def test_a_request_that_drips(port):
    with connect(port) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert drip(client, b"X: y\r\n", 0.05) < 10


def test_the_second_request_of_a_connection_has_the_same_deadline(port):
    with connect(port) as client:
        assert answer(client).startswith(ANSWERED)
        assert answer(client).startswith(ANSWERED)
        client.sendall(b"GET")
        assert is_closed(client)


def test_a_body_that_goes_on_after_the_answer(port):
    with connect(port) as client:
        chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert answer(client, chunked + b"1\r\nx\r\n").startswith(ANSWERED)
        assert drip(client, b"1\r\nx\r\n", 0.02) < 10


def test_a_body_that_ends_soon_after_the_answer_leaves_the_connection_open(port):
    with connect(port) as client:
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
        assert answer(client, post + b"ab").startswith(ANSWERED)
        client.sendall(b"cd")
        time.sleep(0.1)
        assert answer(client).startswith(ANSWERED)


def test_a_long_body_after_the_answer_is_cut_off(monkeypatch):
    monkeypatch.setattr(connections, "LINGER_BYTES", 1000)
    with serving(app) as port, connect(port) as client:
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n"
        assert answer(client, post).startswith(ANSWERED)
        client.sendall(b"x" * 2000)
        assert is_closed(client)


def test_an_answer_that_is_not_read(port):
    with connect(port) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(1)
        got = 0
        try:
            while part := client.recv(2**20):
                got += len(part)
        except ConnectionError:
            pass
    assert got < LARGE


def test_an_answer_that_is_read_arrives_whole():
    with serving(app) as port, connect(port) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        got = 0
        while got < LARGE:
            part = client.recv(2**20)
            assert part, "the connection was closed"
            got += len(part)


def test_idle_connections_make_room(monkeypatch):
    """The one that has waited longest is closed; who asks something is answered."""
    monkeypatch.setattr(connections, "MOST", 10)
    with serving(app) as port, ExitStack() as opened:
        waiting = [opened.enter_context(connect(port)) for _ in range(30)]
        with connect(port) as client:
            assert answer(client).startswith(ANSWERED)
        for client in waiting[:20]:
            assert is_closed(client)
        assert answer(waiting[-1]).startswith(ANSWERED)


def test_nobody_is_closed_who_is_being_answered(monkeypatch):
    monkeypatch.setattr(connections, "MOST", 3)
    with serving(app) as port, ExitStack() as opened:
        reading = opened.enter_context(connect(port))
        reading.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        got = len(reading.recv(100))
        for _ in range(10):
            opened.enter_context(connect(port))
        time.sleep(0.2)
        while got <= LARGE:  # the headers come first
            part = reading.recv(2**20)
            assert part, "the connection was closed"
            got += len(part)
