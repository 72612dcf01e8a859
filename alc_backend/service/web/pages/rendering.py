"""How pages become HTML: templates, their filters, security headers, and the forms' tokens."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from alc_backend.common.durations import duration
from alc_backend.service.web.bodies import FORM_BYTES
from alc_backend.service.web.pages.static import address
from alc_backend.service.web.proxies import PREFIX
from alc_backend.settings import Settings
from alc_backend.store.derived import Way

COOKIE = "alc_page"
CONFIRMED_BY = {
    Way.SINGLE: "by a question of its own",
    Way.PAGE: "on a page of look-alikes",
    Way.EDIT: "by hand in the dataset project",
}
"""How the project's page names the ways in which labels are confirmed."""


class Renderer:
    """Renders the templates, and tells forms of these pages from those of other sites.

    Each form carries a token made from a cookie of this site, so that no other site can press the
    buttons. Tokens stay valid over restarts when ALC_SECRET is set.
    """

    def __init__(self, settings: Settings) -> None:
        self._key = settings.secret.get_secret_value() if settings.secret else secrets.token_hex()
        self._environment = _environment()

    def page(
        self, request: Request, template: str, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """A page made of ``template`` and ``values``; sets the cookie where there is none yet."""
        nonce = secrets.token_urlsafe(12)
        cookie = request.cookies.get(COOKIE) or secrets.token_urlsafe(18)
        content = self._environment.get_template(template).render(
            nonce=nonce,
            token=self._token_of(cookie),
            prefix=prefix_of(request),
            **values,
        )
        response = HTMLResponse(content, status, {"Content-Security-Policy": _policy(nonce)})
        if COOKIE not in request.cookies:
            secure = request.url.scheme == "https"
            path = prefix_of(request) or "/"
            response.set_cookie(
                COOKIE, cookie, path=path, httponly=True, samesite="strict", secure=secure
            )
        return response

    async def check_form(self, request: Request) -> None:
        """Refuse a form that is not one of this site's pages: 403, or 413 when it is too long."""
        body = await request.body()
        if len(body) > FORM_BYTES:
            raise HTTPException(413, "the form is too long")
        given = parse_qs(body.decode("ascii", "replace")).get("token", [""])[0]
        expected = self._token_of(request.cookies.get(COOKIE, ""))
        if COOKIE not in request.cookies or not hmac.compare_digest(
            given.encode(), expected.encode()
        ):
            raise HTTPException(403, "this form is out of date; go back and reload the page")

    def _token_of(self, cookie: str) -> str:
        return hmac.new(self._key.encode(), f"form {cookie}".encode(), hashlib.sha256).hexdigest()


def prefix_of(request: Request) -> str:
    """What stands before the paths of the pages in a browser: nothing, or the path of a proxy."""
    return str(request.scope.get(PREFIX, ""))


def _policy(nonce: str) -> str:
    """What forbids everything but the page's own style, script and images."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("alc_backend.service.web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "commands": _commands,
        "duration": duration,
        "events": _events,
        "hours": lambda value: "–" if value is None else f"{value / 3600:.2f}",
        "many": lambda value: "–" if value is None else f"{value:,}".replace(",", "\u202f"),
        "moment": _moment,
        "confirmed_by": CONFIRMED_BY.__getitem__,
        "number": lambda value: "–" if value is None else f"{value:.3f}",
        "seconds": lambda value: "–" if value is None else f"{value:.1f}",
        "share": lambda value: "–" if value is None else f"{100 * value:.0f} %",
        "static": address,
        "whole": lambda value: "–" if value is None else f"{value:.0f}",
    }
    return environment


def _commands(text: str) -> Markup:
    """A sentence whose parts between backticks are commands."""
    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:  # one backtick is alone: no command
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if turn % 2 else part
        for turn, part in enumerate(parts)
    )


def _events(waiting: int) -> str:
    wait = "event of Label Studio waits" if waiting == 1 else "events of Label Studio wait"
    return f"{waiting} {wait} to be read in."


def _moment(value: datetime | str | None) -> str:
    if value is None:
        return "–"
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{at:%Y-%m-%d %H:%M} UTC"
