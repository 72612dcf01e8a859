"""Bounds on the bodies of requests: how long, how intricate, how slow, how many at once.

A body is read as a whole before the application sees the request. Reading JSON holds up all other
requests of the process while it lasts, which for some bytes is a hundred times longer than for
others, so what is counted is not only bytes.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

import anyio
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alc_backend.service.web.guard import SIGNED

log = logging.getLogger(__name__)

MIB = 2**20

FORM_BYTES = 4096
"""The longest body that is not JSON: the forms of the pages hold one token."""

SIGNED_BYTES = 64 * 1024
"""The longest body whose sender proves by it alone who they are: CVAT's record of one job."""

SMALL_BYTES = 256 * 1024
LARGE_AT_ONCE = 2
"""Of bodies longer than ``SMALL_BYTES`` so many are in memory at once; others wait to be read."""

PAUSE_S = 0.1
"""The time that other requests get after each reading of a long body's JSON."""

WITHIN_S = 60.0
"""How long a body may take to arrive, waiting for its turn included."""

MOST = {"lists and objects": 300_000, "strings": 1_000_000, "keys": 400_000, "values": 3_000_000}
"""What a JSON body may hold. Lists and objects take up to 0.5 microseconds each, strings 0.1, keys
that differ 1.4, fractions 0.3: half a second, on the machine of docs/benchmarks.md."""


class BodyLimit:
    """ASGI middleware that refuses bodies out of bounds: 413, or 408 for one that never ends.

    JSON may have ``megabytes`` MiB, what is signed ``SIGNED_BYTES``, anything else ``FORM_BYTES``.
    """

    def __init__(self, app: ASGIApp, megabytes: int) -> None:
        self._app, self._most = app, megabytes * MIB
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._parsing = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request's body, and pass the request on with it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        most = self._most if _is_json(headers) else FORM_BYTES
        if SIGNED.fullmatch(scope["path"]):
            most = min(most, SIGNED_BYTES)
        async with AsyncExitStack() as turn:
            try:
                if _declared(headers) > most:
                    raise _RefusedError(413, _too_long(most))
                with anyio.fail_after(WITHIN_S):
                    body = await self._read(receive, most, turn)
                _check_values(body)
            except _RefusedError as refused:
                await _refuse(scope, receive, send, refused)
            except TimeoutError:
                late = _RefusedError(408, f"the request did not arrive within {WITHIN_S:.0f} s")
                await _refuse(scope, receive, send, late)
            except _LeftError:
                return
            else:
                await self._app(scope, self._again(bytes(body), receive), send)

    async def _read(self, receive: Receive, most: int, turn: AsyncExitStack) -> bytearray:
        """The whole body; ``turn`` is kept from when it turns out to be a long one."""
        body, waits = bytearray(), True
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _LeftError
            body += message.get("body", b"")
            if len(body) > most:
                raise _RefusedError(413, _too_long(most))
            if len(body) > SMALL_BYTES and waits:
                await turn.enter_async_context(self._large)
                waits = False
            if not message.get("more_body", False):
                return body

    def _again(self, body: bytes, receive: Receive) -> Receive:
        """What gives ``body`` once, and after that what ``receive`` gives: that the client left."""
        left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def give() -> Message:
            if not left:
                return await receive()
            if len(body) > SMALL_BYTES:
                await self._parsing.acquire()
                loop = asyncio.get_running_loop()
                # it is read before the loop goes on, and the pause begins when the loop does
                loop.call_soon(loop.call_later, PAUSE_S, self._parsing.release)
            return left.pop()

        return give


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _LeftError(Exception):
    """The client has closed the connection."""


def _is_json(headers: Headers) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind.startswith("application/") and kind.endswith(("/json", "+json"))


def _declared(headers: Headers) -> int:
    """The length that a request claims to have; 0 when it claims nothing."""
    given = headers.get("content-length", "")
    if not given:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 20):
        raise _RefusedError(400, "Content-Length is not a number")
    return int(given)


def _too_long(most: int) -> str:
    if most == FORM_BYTES:
        return (
            f"the request is longer than {FORM_BYTES} bytes, and is not JSON "
            "(Content-Type: application/json)"
        )
    if most == SIGNED_BYTES:
        return f"the request is longer than {SIGNED_BYTES} bytes"
    return f"the request is longer than {most // MIB} MiB (ALC_MAX_REQUEST_MB)"


def _check_values(body: bytearray) -> None:
    """Refuse JSON that would take long to read; strings may hold brackets, which count as well."""
    counts = {
        "lists and objects": body.count(b"[") + body.count(b"{"),
        "strings": body.count(b'"') // 2,
        "keys": body.count(b":"),
        "values": body.count(b","),
    }
    for name, count in counts.items():
        if count > MOST[name]:
            reason = f"the request has more than {MOST[name]:,} {name}; send it in parts"
            raise _RefusedError(413, reason)


async def _refuse(scope: Scope, receive: Receive, send: Send, refused: _RefusedError) -> None:
    log.warning("%s %s: %s", scope["method"], scope["path"], refused)
    await JSONResponse({"detail": str(refused)}, refused.status)(scope, receive, send)
