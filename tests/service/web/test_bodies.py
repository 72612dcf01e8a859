"""Long, intricate and endless bodies are refused, and only then."""

from __future__ import annotations

import re
import time

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.service.web import bodies
from alc_backend.service.web.app import create_app
from alc_backend.service.web.bodies import FORM_BYTES, LARGE_AT_ONCE, SMALL_BYTES, BodyLimit
from tests.asgi import ask, scope

MIB = 2**20
JSON = (b"content-type", b"application/json")
PASSWORD = (b"authorization", b"Bearer s3cret")


async def taking(asked, receive, send):
    """An application that answers with the length of the body."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


def send(parts, *headers, megabytes=1, app=None):
    asked = scope("POST", "/webhook", headers)
    return anyio.run(ask, app or BodyLimit(taking, megabytes), asked, parts)


@pytest.fixture
def app(settings, redis):
    return create_app(settings.model_copy(update={"max_request_mb": 1}))


@pytest.mark.parametrize("path", ["/webhook", "/predict", "/setup", "/rounds"])
def test_long_requests(app, path, caplog):
    long = b'{"a": "' + b"x" * MIB + b'"}'
    length = (b"content-length", str(len(long)).encode())
    for headers, parts in (([JSON, length], [long]), ([JSON], [b" " * 2**18] * 8)):
        asked = scope("POST", path, [PASSWORD, *headers])
        answered = anyio.run(ask, app, asked, parts)
        assert answered.status == 413
        assert b"ALC_MAX_REQUEST_MB" in answered.body
        assert f"POST {path}: the request is longer" in caplog.text
    asked = scope("POST", path, [PASSWORD, JSON])
    assert anyio.run(ask, app, asked, [b" " * 2**18] * 2).status == 422


@pytest.mark.parametrize("path", ["/projects/1/start", "/projects/1/cancel"])
@pytest.mark.parametrize("headers", [[], [JSON], [(b"content-length", b"7")]])
def test_a_chunked_form_has_the_limit_of_a_form(app, path, headers):
    """None of it is parsed, and little of it is read unless it claims to be JSON."""
    read = []

    def parts():
        for _ in range(64):
            read.append(1)
            yield b"token=x&" * 1000

    answered = anyio.run(ask, app, scope("POST", path, [PASSWORD, *headers]), parts())
    assert answered.status == 413
    assert len(read) < 64 or JSON in headers


@given(
    st.lists(st.binary(max_size=FORM_BYTES), max_size=4),
    st.sampled_from(
        [None, "", "text/plain", "application/json", "application/x+json; a=b", "json"]
    ),
)
def test_a_body_arrives_whole_or_is_refused(parts, kind):
    """However it is cut into chunks, which may be empty."""
    headers = [] if kind is None else [(b"content-type", kind.encode())]
    answered = send(parts, *headers)
    length = sum(map(len, parts))
    most = MIB if kind and kind.startswith("application/") else FORM_BYTES
    assert answered.status == (200 if length <= most else 413)
    assert answered.status == 413 or answered.body == str(length).encode()


@given(st.text(st.characters(max_codepoint=255), max_size=30) | st.integers().map(str))
def test_any_content_length(value):
    answered = send([b"{}"], JSON, (b"content-length", value.encode("latin-1")))
    fits = value == "" or (value.isascii() and value.isdigit() and int(value) <= MIB)
    assert (answered.status == 200) == fits
    assert answered.status in (200, 400, 413)


@pytest.mark.parametrize("number", ["9" * 5000, "-1", "1e3", "٣", "0x10", "1_0"])
def test_lengths_that_are_no_numbers(number):
    assert send([b"{}"], JSON, (b"content-length", number.encode())).status == 400


INTRICATE = {
    "lists": b"[],",
    "nested lists": b"[[[[]]]],",
    "objects": b"{},",
    "strings": b'"a",',
    "keys": b'{"a":0},',
}


@pytest.mark.parametrize("name", INTRICATE)
def test_json_that_takes_long_to_read_is_refused(name):
    """16 MiB of it took 13 seconds and 700 MiB, in which no other request was answered."""
    unit = INTRICATE[name]
    answered = send([b"[" + unit * (6 * MIB // len(unit)) + b"0]"], JSON, megabytes=16)
    assert answered.status == 413
    assert re.search(rb"more than [\d,]+ (lists and objects|strings|keys)", answered.body)


def test_a_long_mask_is_taken():
    """A mask's run lengths are the longest JSON that Label Studio sends."""
    run_lengths = b"[" + b"255," * 2_500_000 + b"0]"
    assert send([run_lengths], JSON, megabytes=16).status == 200
    assert send([run_lengths[:-1] + b",0" * 2 * MIB + b"]"], JSON, megabytes=16).status == 413


def test_a_body_that_never_ends(monkeypatch):
    monkeypatch.setattr(bodies, "WITHIN_S", 0.1)

    async def run():
        async def drip():
            await anyio.sleep(0.02)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def answer(message):
            sent.append(message)

        await BodyLimit(taking, 1)(scope("POST", "/webhook", [JSON]), drip, answer)

    sent = []
    anyio.run(run)
    assert sent[0]["status"] == 408


def test_a_client_that_leaves_is_not_answered():
    async def run():
        async def left():
            return {"type": "http.disconnect"}

        async def answer(message):
            sent.append(message)

        await BodyLimit(taking, 1)(scope("POST", "/webhook", [JSON]), left, answer)

    sent = []
    anyio.run(run)
    assert sent == []


def test_few_long_bodies_are_in_memory_at_once_and_short_ones_pass(monkeypatch):
    monkeypatch.setattr(bodies, "PAUSE_S", 0)
    held, most = 0, 0

    async def slow(asked, receive, send):
        nonlocal held, most
        long = len((await receive())["body"]) > SMALL_BYTES
        held += long
        most = max(most, held)
        await anyio.sleep(0.05 if long else 0)
        held -= long
        done.append(long)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def run():
        limited = BodyLimit(slow, 1)
        async with anyio.create_task_group() as group:
            for size in [SMALL_BYTES + 1] * 6 + [10] * 3:
                group.start_soon(ask, limited, scope("POST", "/", [JSON]), [b" " * size])

    done = []
    anyio.run(run)
    assert most == LARGE_AT_ONCE
    assert done[:3] == [False] * 3


def test_others_are_served_between_two_long_bodies(monkeypatch):
    """Reading JSON blocks the process; what came meanwhile is answered before the next."""
    monkeypatch.setattr(bodies, "PAUSE_S", 0.05)
    order = []

    async def blocking(asked, receive, send):
        long = len((await receive())["body"]) > SMALL_BYTES
        order.append("long" if long else "short")
        if long:
            time.sleep(0.1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def run():
        limited = BodyLimit(blocking, 1)
        long = [b" " * (SMALL_BYTES + 1)]

        async def short():
            for _ in range(3):  # steps of the event loop that a new connection needs
                await anyio.sleep(0)
            await ask(limited, scope("POST", "/", [JSON]), [b"x"])

        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(ask, limited, scope("POST", "/", [JSON]), long)
            group.start_soon(short)

    anyio.run(run)
    assert sorted(order) == ["long", "long", "short"]
    assert order[-1] == "long"
