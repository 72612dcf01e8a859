"""Who sent a request, and to where: what trusted proxies tell of client, scheme and path.

Without a trusted proxy, it is the peer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "alc.prefix"
"""The key of a request's scope with the path under which a proxy offers the service, or nothing."""

_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*){1,8}")
_LONGEST_PREFIX = 200

_LONGEST = 64
"""Longer entries hold no address, whatever they begin with."""

_WITH_PORT = re.compile(r"\[([^\[\]]*)\](?::\d{1,5})?|([^:]*):\d{1,5}")

Network = IPv4Network | IPv6Network


class ForwardedFor:
    """ASGI middleware that replaces the peer by the client that a trusted proxy tells of.

    Proxies append the address of whom they hear from, so the header is read from its end: what a
    trusted proxy wrote is believed, up to the first address that is no such proxy. An entry that is
    no IP address ends the reading. So ``scope["client"]`` always holds an address that is the
    peer's or was written by a proxy in ``trusted``, at most 39 characters long. A proxy that offers
    the service under a path, and takes that path away, names it in X-Forwarded-Prefix.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app, self._trusted = app, tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its client's address, and the scheme and prefix that it saw."""
        peer = (scope.get("client") or ("", 0))[0]
        if scope["type"] == "http" and self._is_trusted(peer):
            client = self._client(peer, _values(scope, b"x-forwarded-for"))
            if client != peer:
                scope["client"] = client, 0
            proto = _values(scope, b"x-forwarded-proto")[-1:]
            if proto and proto[0] in ("http", "https"):
                scope["scheme"] = proto[0]
            scope[PREFIX] = _prefix(scope)
        await self._app(scope, receive, send)

    def _client(self, peer: str, hops: Sequence[str]) -> str:
        client = peer
        for hop in reversed(hops):
            address = address_in(hop)
            if address is None:
                break
            client = address
            if not self._is_trusted(client):
                break
        return client

    def _is_trusted(self, address: str) -> bool:
        known = address_in(address)
        return known is not None and any(ip_address(known) in each for each in self._trusted)


def _prefix(scope: Scope) -> str:
    """The path that the last proxy names in X-Forwarded-Prefix; empty for what is none."""
    given = "".join(_values(scope, b"x-forwarded-prefix")[-1:]).rstrip("/")
    return given if len(given) <= _LONGEST_PREFIX and _PREFIX.fullmatch(given) else ""


def address_in(entry: str) -> str | None:
    """The IP address in an entry of X-Forwarded-For, in its short form; None if there is none.

    A port after it is left out, and so is the IPv6 notation of an IPv4 address. IPv6 addresses with
    a zone are refused: anything may stand there.
    """
    word = entry.strip()
    if len(word) > _LONGEST or "%" in word:
        return None
    found = _WITH_PORT.fullmatch(word)
    if found is not None:
        word = found[1] if found[1] is not None else found[2]
    try:
        address = ip_address(word)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _values(scope: Scope, name: bytes) -> list[str]:
    """The entries of a header that is a list, in their order, over all its lines."""
    lines = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return [entry.strip() for line in lines for entry in line.split(",")]
