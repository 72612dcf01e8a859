"""Requests without a password come from this machine only, and not from a page of another site.

A page can make its own name mean 127.0.0.1 once it is open in a browser (DNS rebinding), and then
read and press what the browser's machine serves there. Its requests still carry its own name.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from alc_backend.common.loopback import is_loopback
from alc_backend.settings import Settings

_NAME = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::\d{1,5})?")
"""A Host header: a name or address, which may be followed by a port."""


class LoopbackHosts:
    """ASGI middleware that answers requests to loopback names, and to ALC_BACKEND_URL's, only.

    It is for a service without ALC_SECRET. Whoever asks for another name, or for none, gets 421.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._named = urlsplit(settings.backend).hostname

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it for the name that it asked for."""
        if scope["type"] == "http":
            asked = [value for name, value in scope["headers"] if name == b"host"]
            if not asked or not all(self._is_ours(value.decode("latin-1")) for value in asked):
                refusal = JSONResponse(
                    {
                        "detail": "without ALC_SECRET only requests to this machine's own name "
                        f"(127.0.0.1, localhost) or to that of ALC_BACKEND_URL ({self._named}) are "
                        "answered; use that address, or set ALC_SECRET"
                    },
                    421,
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        found = _NAME.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]").lower()
        return name == self._named or is_loopback(name)
