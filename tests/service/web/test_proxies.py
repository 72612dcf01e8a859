"""Who sent a request: only trusted proxies are believed, and only about addresses."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alc_backend.service.web.app import create_app
from alc_backend.service.web.guard import FAILURES
from alc_backend.service.web.proxies import PREFIX, ForwardedFor, address_in
from tests.asgi import ask, scope

PROXY, STRANGER = "10.0.0.1", "203.0.113.9"
TRUSTED = ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]

addresses = st.ip_addresses().map(str)
hops = st.lists(
    addresses
    | st.sampled_from(["10.0.0.7", "[2001:db8::1]:443", "192.0.2.1:80", "::ffff:192.0.2.1"])
    | st.text(st.characters(max_codepoint=255), max_size=30)
    | st.sampled_from(["fe80::1%" + "x" * 60_000, "1.2.3.4\nforged", "unknown", "", "1" * 70_000]),
    max_size=6,
)


def seen(peer, *headers, trusted=TRUSTED):
    """The client's address and the scheme, as the application behind sees them."""
    found = []

    async def app(asked, receive, send):
        found.append((asked["client"][0], asked["scheme"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    given = [(name, value.encode("latin-1")) for name, value in headers]
    middleware = ForwardedFor(app, [ip_network(each) for each in trusted])
    anyio.run(ask, middleware, scope(headers=given, client=(peer, 5)))
    return found[0]


def prefix_of(peer, *values):
    """What the application behind takes for the path under which it is offered."""
    found = []

    async def app(asked, receive, send):
        found.append((asked.get(PREFIX, ""), asked["path"], asked["root_path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    given = [(b"x-forwarded-prefix", value.encode("latin-1")) for value in values]
    middleware = ForwardedFor(app, [ip_network(each) for each in TRUSTED])
    anyio.run(ask, middleware, scope(headers=given, client=(peer, 5)))
    assert found[0][1:] == ("/health", "")
    return found[0][0]


@pytest.mark.parametrize(
    ("values", "prefix"),
    [
        (["/alc"], "/alc"),
        (["/alc/"], "/alc"),
        (["/tools/alc-2.0/~me"], "/tools/alc-2.0/~me"),
        (["/made-up", "/alc"], "/alc"),
        (["/made-up, /alc"], "/alc"),
        ([], ""),
        ([""], ""),
        (["/"], ""),
        (["alc"], ""),
        (["//evil.example"], ""),
        (["/alc//evil.example"], ""),
        (["/.."], ""),
        (["/alc/../x"], ""),
        (["https://evil.example/"], ""),
        (['/"><script>alert(1)</script>'], ""),
        (["/a b"], ""),
        (["/a\nSet-Cookie: x"], ""),
        (["/%2e%2e"], ""),
        (["/é"], ""),
        (["/" + "a" * 200], ""),
        (["/a" * 9], ""),
    ],
)
def test_a_trusted_proxy_tells_the_path_under_which_it_offers_the_service(values, prefix):
    assert prefix_of(PROXY, *values) == prefix
    assert prefix_of(STRANGER, *values) == ""


def client_of(peer, *values, trusted=TRUSTED):
    return seen(peer, *((b"x-forwarded-for", v) for v in values), trusted=trusted)[0]


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        (PROXY, ["192.0.2.1"], "192.0.2.1"),
        (PROXY, ["6.6.6.6, 192.0.2.1"], "192.0.2.1"),  # the first was made up by the client
        (PROXY, ["192.0.2.1, 10.9.9.9"], "192.0.2.1"),  # two proxies
        (PROXY, ["192.0.2.1", "10.9.9.9"], "192.0.2.1"),
        (PROXY, ["192.0.2.1:1234"], "192.0.2.1"),
        (PROXY, ["[2001:DB8::1]:1234"], "2001:db8::1"),
        (PROXY, ["::ffff:192.0.2.1"], "192.0.2.1"),
        (PROXY, ["192.0.2.1, nonsense"], PROXY),
        (PROXY, ["192.0.2.1, nonsense, 10.9.9.9"], "10.9.9.9"),
        (PROXY, ["10.9.9.9"], "10.9.9.9"),
        (PROXY, [], PROXY),
        (STRANGER, ["192.0.2.1"], STRANGER),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),  # a socket for IPv6 that takes IPv4
    ],
)
def test_the_client_is_whom_the_last_trusted_proxy_heard_from(peer, values, client):
    assert client_of(peer, *values) == client


def test_nobody_is_trusted_unless_the_settings_say_so():
    assert client_of("127.0.0.1", "192.0.2.1", trusted=[]) == "127.0.0.1"


@given(st.sampled_from(["127.0.0.1", PROXY, STRANGER, "::1"]), hops, st.booleans())
def test_whatever_is_sent_the_client_is_an_address(peer, given, several):
    joined = given if several else [",".join(given)]
    client = client_of(peer, *joined)
    assert str(ip_address(client)) == client
    assert len(client) <= 39
    if peer == STRANGER:
        assert client == peer


@given(hops, addresses)
def test_what_a_client_writes_itself_changes_nothing(made_up, address):
    """The proxy appends the client's address behind whatever it was sent."""
    found = client_of(PROXY, ",".join([*made_up, address]))
    if not any(ip_address(address_in(address)) in ip_network(each) for each in TRUSTED):
        assert found == address_in(address)


@pytest.mark.parametrize(
    ("peer", "proto", "scheme"),
    [
        (PROXY, "https", "https"),
        (PROXY, "http", "http"),
        (PROXY, "javascript", "http"),
        (PROXY, "https, http", "http"),
        (STRANGER, "https", "http"),
    ],
)
def test_the_scheme(peer, proto, scheme):
    assert seen(peer, (b"x-forwarded-proto", proto))[1] == scheme


def test_the_hold_off_cannot_be_evaded_nor_the_log_forged(settings, redis, caplog):
    """From a loopback peer, which is not trusted: every address counts as that peer's."""
    app = create_app(settings)

    def guess(number):
        headers = [
            (b"authorization", b"Bearer guess"),
            (b"x-forwarded-for", f"192.0.2.{number}\nforged {'x' * 1000}".encode()),
        ]
        return anyio.run(ask, app, scope(path="/rounds", headers=headers)).status

    assert [guess(number) for number in range(FAILURES + 2)] == [401] * FAILURES + [429] * 2
    assert "forged" not in caplog.text
    assert "wrong password from 127.0.0.1" in caplog.text


def test_behind_a_trusted_proxy_each_client_is_held_off_alone(settings, redis):
    app = create_app(settings.model_copy(update={"trusted_proxies": "127.0.0.1"}))

    def guess(address):
        headers = [(b"authorization", b"Bearer guess"), (b"x-forwarded-for", address.encode())]
        return anyio.run(ask, app, scope(path="/rounds", headers=headers)).status

    assert [guess("192.0.2.1") for _ in range(FAILURES + 1)] == [401] * FAILURES + [429]
    assert guess("192.0.2.2") == 401
