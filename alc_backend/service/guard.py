"""Who may come in, and how much they may bring: the password, failed attempts, request sizes."""

from __future__ import annotations

import base64
import binascii
import hmac
import threading
import time
from collections import OrderedDict

from fastapi import HTTPException, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alc_backend.settings import Settings

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
        """Count one; for how many seconds its address has used up its attempts, 0 for not."""
        now = time.monotonic()
        with self._lock:
            began, count = self._since.pop(address, (now, 0))
            if now - began > WITHIN_S:
                began, count = now, 0
            self._since[address] = began, count + 1
            while len(self._since) > ADDRESSES:
                self._since.popitem(last=False)
        return max(0.0, began + WITHIN_S - now) if count + 1 > FAILURES else 0.0


class Guard:
    """A dependency that lets in basic auth (any user name) or a bearer token with the secret.

    The right password always comes in: an attacker behind the same proxy cannot lock Label Studio
    out, and no answer of its own is lost. Wrong ones are counted by address, and from the 21st in
    a minute on answered 429 with Retry-After. A guess costs one request in any case, so what
    protects is a long password; the limit keeps guessing visible in metrics and logs, and polite
    clients with an old password from hammering.
    """

    def __init__(self, settings: Settings) -> None:
        secret = settings.secret
        self._expected = secret.get_secret_value().encode() if secret is not None else None
        self._failures = Failures()

    def __call__(self, request: Request) -> None:
        """Raise HTTPException 401, or 429 after many wrong passwords."""
        if self._expected is None:
            return
        given = _password(request.headers.get("authorization", ""))
        if given and hmac.compare_digest(given, self._expected):
            return
        wait = self._failures.add(request.client.host if request.client else "") if given else 0.0
        if wait:
            raise HTTPException(
                429,
                "too many wrong passwords from this address",
                {"Retry-After": str(int(wait) + 1)},
            )
        raise HTTPException(
            401, "wrong or missing password", {"WWW-Authenticate": 'Basic realm="alc-backend"'}
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
