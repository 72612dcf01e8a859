"""Who may come in, and how much they may bring: the password, failed attempts, request sizes."""

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
"""What is answered without a password: it tells nothing, and is asked by programs without one."""

FAILURES, WITHIN_S = 20, 60.0
"""So many wrong passwords from one address within so many seconds are let through to an answer."""

ADDRESSES = 10_000
"""Addresses that are remembered; beyond, those that were seen longest ago are forgotten."""

MIB = 2**20


class Failures:
    """Wrong passwords of the last while, by the address they came from; safe between threads."""

    def __init__(self) -> None:
        self._since: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, address: str) -> float:
        """Count one; for how many seconds its address has used up its attempts, 0 for not.

        The first one of an address is logged, and that its attempts are used up.
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
    """ASGI middleware that lets in basic auth (any user name) or a bearer token with the secret.

    It answers before anything of the body is read: who has no password can send nothing.

    The right password always comes in: an attacker behind the same proxy cannot lock Label Studio
    out, and no answer of its own is lost. Wrong ones are counted by address, and from the 21st in
    a minute on answered 429 with Retry-After. A guess costs one request in any case, so what
    protects is a long password; the limit keeps guessing visible in metrics and logs, and polite
    clients with an old password from hammering.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        secret = settings.secret
        self._expected = secret.get_secret_value().encode() if secret is not None else None
        self._failures = Failures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request: 401, or 429 after many wrong passwords, where it may not pass."""
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
    """ASGI middleware: a body longer than ``megabytes`` MiB is answered 413 and not kept."""

    def __init__(self, app: ASGIApp, megabytes: int) -> None:
        self._app, self._most = app, megabytes * MIB

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
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
    """Not an Exception: what reads the body must not take it for a fault of its own."""


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
