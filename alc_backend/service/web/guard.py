"""What guards the service: passwords and what they open, and a limit on wrong ones."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
import threading
import time
from collections import OrderedDict

from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from alc_backend.common.credentials import Credential, Purpose, recognise
from alc_backend.cvat.signature import HEADER
from alc_backend.settings import Settings

log = logging.getLogger(__name__)

OPEN = ("/health", "/ready")
"""Paths that need no password: they reveal nothing, and programs without one ask for them."""

SIGNED = re.compile(r"/cvat/\d{1,10}")
"""Paths whose requests are signed instead: the route checks that, once it has their short body."""

OPENED: dict[Purpose, frozenset[tuple[str, str]]] = {
    Purpose.WEBHOOK: frozenset({("POST", "/webhook")}),
    Purpose.CVAT: frozenset(),  # it signs, and is never sent
    Purpose.BACKEND: frozenset(
        {
            ("POST", "/setup"),
            ("POST", "/predict"),
            ("POST", "/train"),
            ("GET", "/versions"),
            ("POST", "/job_status"),
            ("POST", "/webhook"),  # Label Studio sends START_TRAINING there, and nothing else
        }
    ),
}
"""What derived passwords open, by method and path, beside ``OPEN``; the routes check the project.

ALC_SECRET opens everything.
"""

FAILURES, WITHIN_S = 20, 60.0
"""The wrong passwords that an address may send within this many seconds before it gets 429."""

ADDRESSES = 10_000
"""The most addresses that are remembered; those seen longest ago are forgotten first."""


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
    """ASGI middleware that asks for a password, by basic auth (any user name) or bearer token.

    ALC_SECRET opens everything, the passwords derived from it what ``OPENED`` says: then
    ``request.state.credential`` is the credential, for the routes to check the project. It answers
    before anything of the body is read, so nobody can send data without a password.

    The right password is always accepted: an attacker behind the same proxy cannot lock Label
    Studio out, and none of its answers is lost. Wrong passwords are counted by address; from the
    21st in a minute on the answer is 429 with Retry-After. A guess costs one request in any case,
    so what protects is a long password; the limit makes guessing visible in metrics and logs, and
    slows down well-behaved clients that have an old password.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        given = [settings.secret, settings.secret_previous] if settings.secret else []
        self._secrets = [each.get_secret_value() for each in given if each is not None]
        recognise(b"webhook.1.", self._secrets)  # makes the keys, before a request waits for them
        self._failures = Failures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401, 403, or 429 after many wrong passwords."""
        refusal = None if scope["type"] != "http" else self._refusal(scope)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        if not self._secrets or scope["path"] in OPEN:
            return None
        headers = Headers(scope=scope)
        if scope["method"] == "POST" and SIGNED.fullmatch(scope["path"]) and HEADER in headers:
            return None
        given = _password(headers.get("authorization", ""))
        if given and hmac.compare_digest(given, self._secrets[0].encode()):
            return None
        credential = recognise(given, self._secrets)
        if credential is None:
            return self._wrong(given, scope["client"][0] if scope.get("client") else "")
        scope.setdefault("state", {})["credential"] = credential
        if (scope["method"], scope["path"]) in OPENED[credential.purpose]:
            return None
        return JSONResponse({"detail": "this password does not open this; ALC_SECRET does"}, 403)

    def _wrong(self, given: bytes, address: str) -> JSONResponse:
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


def credential_of(request: Request) -> Credential | None:
    """The derived credential that a request came with; None when everything is open to it."""
    found: Credential | None = getattr(request.state, "credential", None)
    return found


def check_credential(request: Request, project: int, purpose: Purpose | None = None) -> None:
    """Refuse with 403 a derived credential of another project, or of another purpose."""
    credential = credential_of(request)
    if credential is None:
        return
    if credential.project != project:
        raise HTTPException(
            403,
            f"this password is that of project {credential.project} in Label Studio, not of "
            f"project {project}",
        )
    if purpose not in (None, credential.purpose):
        raise HTTPException(403, f"this needs the password of the {purpose}, or ALC_SECRET")


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
