"""What guards the service: the password, a limit on wrong ones, a limit on request sizes."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import threading
import time
from collections import OrderedDict

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alc_backend.settings import Settings

log = logging.getLogger(__name__)

OPEN = ("/health", "/ready")
"""Paths that need no password: they reveal nothing, and programs without one ask for them."""

FAILURES, WITHIN_S = 20, 60.0
"""The wrong passwords that an address may send within this many seconds before it gets 429."""

ADDRESSES = 10_000
"""The most addresses that are remembered; those seen longest ago are forgotten first."""

MIB = 2**20


class Failures:
    """Counts the wrong passwords of the last minute by address; several threads may use it."""

    def __init__(self) -> None:
        self._since: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """The number of addresses that are remembered."""
        return len(self._since)

    def add(self, address: str) -> float:
        """Count a wrong password; the seconds until its address may try again, 0 if it may now.

        Logged is the first wrong password of an address, and the first one that is too many.
        """
        now = time.monotonic()
        with self._lock:
            began, count = self._since.pop(address, (now, 0))
            if now - began > WITHIN_S:
                began, count = now, 0
            self._since[address] = began, count + 1
            while len(self._since) > ADDRESSES:
                self._since.popitem(last=False)
        if count in (0, FAILURES):
            many = f", more than {FAILURES} within a minute" if count else ""
            log.warning("wrong password from %s%s", address or "an unknown address", many)
        return max(0.0, began + WITHIN_S - now) if count + 1 > FAILURES else 0.0


class Guard:
    """ASGI middleware that asks for the password, by basic auth (any user name) or bearer token.

    It answers before anything of the body is read, so nobody can send data without the password.

    The right password is always accepted: an attacker behind the same proxy cannot lock Label
    Studio out, and none of its answers is lost. Wrong passwords are counted by address; from the
    21st in a minute on the answer is 429 with Retry-After. A guess costs one request in any case,
    so what protects is a long password; the limit makes guessing visible in metrics and logs, and
    slows down well-behaved clients that have an old password.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        secret = settings.secret
        self._expected = secret.get_secret_value().encode() if secret is not None else None
        self._failures = Failures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401, or with 429 after many wrong passwords."""
        refusal = None if scope["type"] != "http" else self._refusal(scope)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        if self._expected is None or scope["path"] in OPEN:
            return None
        given = _password(Headers(scope=scope).get("authorization", ""))
        if given and hmac.compare_digest(given, self._expected):
            return None
        address = scope["client"][0] if scope.get("client") else ""
        wait = self._failures.add(address) if given else 0.0
        if wait:
            return JSONResponse(
                {"detail": "too many wrong passwords from this address"},
                429,
                {"Retry-After": str(int(wait) + 1)},
            )
        return JSONResponse(
            {"detail": "wrong or missing password"},
            401,
            {"WWW-Authenticate": 'Basic realm="alc-backend"'},
        )


class SizeLimit:
    """ASGI middleware that refuses bodies longer than ``megabytes`` MiB with 413."""

    def __init__(self, app: ASGIApp, megabytes: int) -> None:
        self._app, self._most = app, megabytes * MIB

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, its body counted as it arrives."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._most:
            await self._refuse(scope, receive, send)
            return
        seen, begun = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise _TooLongError
            return message

        async def answer(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, counted, answer)
        except _TooLongError:
            if begun:
                raise
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = f"the request is longer than {self._most // MIB} MiB (ALC_MAX_REQUEST_MB)"
        log.warning("%s %s: %s", scope["method"], scope["path"], text)
        await JSONResponse({"detail": text}, 413)(scope, receive, send)


class _TooLongError(BaseException):
    """Not an Exception, so that no handler takes it for a failure of its own."""


def _password(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
