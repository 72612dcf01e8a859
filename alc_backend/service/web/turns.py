"""How many requests are worked on at once: the heavy ones wait for a turn, and wait apart.

Waiting requests hold no thread. So nobody can take all memory by asking for many images at once,
and whoever waits for a large image does not keep Label Studio's webhooks waiting.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MOST_WAITING = 64
"""The most requests that wait for a turn of one kind; further ones are answered with 503."""

RETRY_AFTER_S = 5


@dataclass
class Kind:
    """Requests whose path matches ``paths``, of which ``at_once`` are worked on at a time."""

    paths: str
    at_once: int
    waiting: int = 0
    turns: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.turns = asyncio.Semaphore(self.at_once)


def kinds() -> list[Kind]:
    """The kinds of requests, each with its own turns; the first that matches counts."""
    return [
        Kind(r"/images/[^/]+(/\w+)?|/superpixels/[^/]+", at_once=1),  # decodes
        Kind(r"/predict", at_once=2),
        Kind(r"/webhook|/cvat/\d+|/setup|/versions|/job_status", at_once=8),  # soon answered
        Kind(r".*", at_once=8),
    ]


class Turns:
    """ASGI middleware that lets requests through in turn, except to the paths in ``free``."""

    def __init__(self, app: ASGIApp, free: tuple[str, ...]) -> None:
        self._app, self._free, self._kinds = app, free, kinds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on when it is its turn, or answer it with 503 where too many wait."""
        if scope["type"] != "http" or scope["path"] in self._free:
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        kind = next(kind for kind in self._kinds if re.fullmatch(kind.paths, path, re.DOTALL))
        if kind.waiting >= MOST_WAITING:
            full = JSONResponse(
                {"detail": "too many requests at once; try again later"},
                503,
                {"Retry-After": str(RETRY_AFTER_S)},
            )
            await full(scope, receive, send)
            return
        kind.waiting += 1
        try:
            await kind.turns.acquire()
        finally:
            kind.waiting -= 1
        try:
            await self._app(scope, receive, send)
        finally:
            kind.turns.release()
