"""Request ids: each request has one, which its log lines and the jobs that it starts carry."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alc_backend.common.logs import about

HEADER = "X-Request-ID"

_SAFE = re.compile(r"[\w.-]{1,64}", re.ASCII)


class RequestIds:
    """ASGI middleware that keeps a request's id or makes one, and sends it back in the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next(
            (value for name, value in scope["headers"] if name == HEADER.lower().encode()), b""
        ).decode("latin-1")
        number = given if _SAFE.fullmatch(given) else secrets.token_hex(8)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = number
            await send(message)

        with about(number):
            await self._app(scope, receive, answer)
