"""Tokens of Label Studio: how requests carry them, and how a personal one is made."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Generator
from urllib.parse import urljoin

import httpx

from alc_backend.errors import LabelStudioAwayError, LabelStudioError
from alc_backend.labelstudio.addresses import base_of
from alc_backend.labelstudio.downloads import tls_remedy

REFRESH_AFTER_S = 200.0
"""Age at which an access token (valid for 300 s) is renewed."""

REFRESH = "/api/token/refresh/"


def token_auth(token: str, url: str) -> httpx.Auth:
    """How requests to the Label Studio at ``url`` carry ``token``.

    A personal access token is a JSON web token, of three parts; a legacy token has no parts.
    """
    return PersonalToken(token, url) if token.count(".") == 2 else LegacyToken(token)


class LegacyToken(httpx.Auth):
    """Sends a legacy token as it is."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put the token into the request."""
        request.headers["Authorization"] = f"Token {self._token}"
        yield request


class PersonalToken(httpx.Auth):
    """Exchanges a personal access token for short-lived access tokens, and sends these.

    An access token is renewed when it is REFRESH_AFTER_S old, and once more when Label Studio
    refuses it. Threads may share this object: one of them renews, the others wait for it.
    ``clock`` gives seconds.
    """

    def __init__(
        self, token: str, url: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._token = token
        self._address = f"{url}{REFRESH}"
        self._clock = clock
        self._lock = threading.Lock()
        self._access = ""
        self._since = float("-inf")

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Put an access token into the request; raises LabelStudioError when there is none.

        When Label Studio is too busy to give one, its answer to that stands for the request's.
        """
        refused = ""
        for _ in range(2):
            with self._lock:
                old = self._clock() - self._since > REFRESH_AFTER_S
                if old or self._access == refused:
                    renewed = yield self._refresh(request)
                    if renewed.status_code == 429 or renewed.status_code >= 500:
                        return
                    self._access, self._since = _access_token(renewed), self._clock()
                access = self._access
            request.headers["Authorization"] = f"Bearer {access}"
            response = yield request
            if response.status_code != 401:
                return
            refused = access  # revoked early, or the clocks differ

    def _refresh(self, request: httpx.Request) -> httpx.Request:
        """The request for an access token, with the time limits of another request."""
        return httpx.Request(
            "POST", self._address, json={"refresh": self._token}, extensions=request.extensions
        )


def moved(response: httpx.Response, path: str) -> LabelStudioError:
    """The error for an answer of Label Studio's API, at a path of it, that sends on elsewhere."""
    onward = urljoin(str(response.request.url), response.headers["location"])
    base = base_of(onward, path)
    remedy = f"set LABEL_STUDIO_URL to {base}" if base else "check LABEL_STUDIO_URL"
    return LabelStudioError(
        f"{response.request.url} sends on to {onward}; {remedy}", response.status_code
    )


def _access_token(response: httpx.Response) -> str:
    response.read()
    if response.has_redirect_location:
        raise moved(response, REFRESH)
    if response.status_code in (400, 401, 403):
        raise LabelStudioError(
            "Label Studio refuses the personal access token in LABEL_STUDIO_API_KEY; create a new "
            "one in Account & Settings",
            response.status_code,
        )
    try:
        return str(response.json()["access"])
    except (ValueError, KeyError, TypeError) as error:
        raise LabelStudioError(
            f"{response.url} gave no access token as Label Studio does (it answered "
            f"{response.status_code}); check LABEL_STUDIO_URL",
            response.status_code,
        ) from error


def create_personal_token(url: str, email: str, password: str) -> str:
    """Sign in with a password and create a personal access token; returns it.

    Raises LabelStudioError when the login is refused or the user already has a token.
    """
    with httpx.Client(base_url=url.rstrip("/"), timeout=60, follow_redirects=True) as http:
        try:
            answer = http.get("/user/login/")
            if answer.history:
                raise moved(answer.history[0], "/user/login/")
            page = answer.text
            found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
            if not found:
                raise LabelStudioError(f"{url} shows no Label Studio login; check the address")
            referer = {"Referer": f"{url}/user/login/"}
            form = {"csrfmiddlewaretoken": found[1], "email": email, "password": password}
            http.post("/user/login/", data=form, headers=referer)
            token = http.cookies.get("csrftoken") or ""
            response = http.post("/api/token/", headers={"X-CSRFToken": token, **referer})
        except httpx.HTTPError as error:
            remedy = tls_remedy(error) or "check that it runs"
            raise LabelStudioAwayError(
                f"Label Studio does not answer at {url} ({error}); {remedy}"
            ) from error
    if response.status_code == 409:
        raise LabelStudioError(
            f"{email} already has a personal access token; put it into LABEL_STUDIO_API_KEY, or "
            "revoke it in Account & Settings",
            409,
        )
    if response.status_code != 201:
        raise LabelStudioError(f"Label Studio refuses the login of {email}", response.status_code)
    return str(response.json()["token"])
