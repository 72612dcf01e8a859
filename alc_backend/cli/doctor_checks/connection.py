"""Checks of Label Studio itself: whether it answers, its version, its clock, the token."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from alc_backend.cli.doctor_checks.finding import Check, Result, ok, problem, skipped, warning
from alc_backend.errors import LabelStudioAwayError, LabelStudioError
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.downloads import tls_remedy
from alc_backend.labelstudio.tokens import moved
from alc_backend.settings import Settings

SEEN_WORKING = "1.23.2"
OLDEST = (1, 20)
CLOCK_S = 60.0
"""How far the clocks may be apart: access tokens are valid for 300 s."""

SOON = timedelta(days=14)
TIMEOUT_S = 10.0
RESERVED = "reserved network address"


class Connection:
    """Checks of Label Studio, its token, and whether it may call this backend."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.label_studio_url.rstrip("/")
        self.works = False
        """Whether Label Studio answered and accepted the token, once the checks have run."""

    def checks(self) -> Iterator[Check]:
        """The checks, ordered so that a cause comes before its consequences."""
        yield Check("label studio", self._reachable)
        yield Check("clock", self._clock)
        yield Check("token", self._token)
        yield Check("private addresses", self._private_addresses)

    def _reachable(self) -> Result:
        try:
            answer = httpx.get(f"{self._url}/api/version", timeout=TIMEOUT_S)
            if answer.has_redirect_location:
                said, _, remedy = str(moved(answer, "/api/version")).partition("; ")
                return problem(said, remedy)
            release = str(answer.json()["release"])
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return problem(
                f"it does not answer at {self._url} ({error})",
                tls_remedy(error) or "start it, and check LABEL_STUDIO_URL",
            )
        except (ValueError, KeyError, TypeError):
            return problem(f"{self._url} is another program", "check LABEL_STUDIO_URL")
        numbers = tuple(int(part) for part in release.split(".")[:2] if part.isdecimal())
        if numbers < OLDEST:
            return warning(
                f"version {release}; tested is {SEEN_WORKING}",
                f"upgrade Label Studio to {SEEN_WORKING} or newer",
            )
        ours, theirs = urlsplit(self._settings.label_studio_links).path, _own_path(self._url)
        if theirs not in (None, ours):
            return warning(
                f"it takes {theirs or '/'} for its path, and browsers are sent to {ours or '/'}: "
                "images that this backend uploads are not shown",
                "let LABEL_STUDIO_HOST (Label Studio's own setting) and LABEL_STUDIO_URL have the "
                "same path, or set ALC_LABEL_STUDIO_PUBLIC_URL to the address that browsers use",
            )
        return ok(f"version {release} at {self._url}")

    def _clock(self) -> Result:
        try:
            date = httpx.get(f"{self._url}/health", timeout=TIMEOUT_S).headers["date"]
            theirs = parsedate_to_datetime(date)
        except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError):
            return skipped("Label Studio's clock cannot be read")
        apart = (datetime.now(timezone.utc) - theirs).total_seconds()
        if abs(apart) > CLOCK_S:
            where = "ahead of" if apart > 0 else "behind"
            return problem(
                f"this machine is {abs(apart):.0f} s {where} Label Studio's",
                "let both follow a time server (NTP): tokens last for minutes only",
            )
        return ok(f"{abs(apart):.0f} s from Label Studio's")

    def _token(self) -> Result:
        key = self._settings.label_studio_api_key
        if key is None:
            return problem(
                "LABEL_STUDIO_API_KEY is not set",
                "create a personal access token in Label Studio (Account & Settings) and put it "
                "into the environment",
            )
        token = key.get_secret_value()
        personal = token.count(".") == 2
        kind = "personal access token" if personal else "legacy token"
        ends = _expiry(token) if personal else None
        if ends is not None and ends < datetime.now(timezone.utc):
            return problem(
                f"the personal access token expired on {ends:%Y-%m-%d}",
                "create a new one in Account & Settings and put it into LABEL_STUDIO_API_KEY",
            )
        try:
            with Client(self._url, token, timeout=TIMEOUT_S) as client:
                user = client.get("/api/current-user/whoami")
        except LabelStudioAwayError as error:
            return skipped(f"it cannot be tried ({error})")
        except LabelStudioError as error:
            if "legacy token" in str(error):
                return problem(
                    "legacy tokens are switched off in Label Studio",
                    "create a personal access token in Account & Settings and put it into "
                    "LABEL_STUDIO_API_KEY (or switch legacy tokens on under Organization)",
                )
            if error.status == 401:
                return problem(
                    f"Label Studio refuses the {kind}",
                    "it was revoked, or is of another installation: check LABEL_STUDIO_URL, or "
                    "create a new one in Account & Settings and put it into LABEL_STUDIO_API_KEY",
                )
            raise
        self.works = True
        whose = f"{kind} of {user.get('email')}"
        if ends is not None and ends < datetime.now(timezone.utc) + SOON:
            return warning(
                f"{whose} expires on {ends:%Y-%m-%d}",
                "create a new one in Account & Settings before that day",
            )
        return ok(whose)

    def _private_addresses(self) -> Result:
        """Whether Label Studio may call this backend.

        It is asked for connections that it cannot make: its guard against private addresses
        speaks before that.
        """
        if not self.works:
            return skipped("Label Studio's answer would be needed")
        backend = self._settings.backend
        asked: dict[str, dict[str, Any]] = {
            "/api/ml": {"url": backend, "auth_method": "BASIC_AUTH"},
            "/api/webhooks/": {"url": f"{backend}/webhook", "actions": ["NONE"]},
        }
        with Client.from_settings(self._settings) as client:
            for path, body in asked.items():
                said = _refusal(client, path, body)
                if RESERVED in said:
                    return problem(
                        f"Label Studio refuses {backend}, which lies in a private network",
                        "start Label Studio with ML_BLOCK_LOCAL_IP=false and "
                        "SSRF_PROTECTION_ENABLED=false, or give the backend a public address "
                        "(ALC_BACKEND_URL)",
                    )
                if re.search(r"""['"]url['"]""", said):
                    return problem(
                        f"Label Studio does not take {backend} as an address ({said})",
                        "set ALC_BACKEND_URL to one with an IP address or a host name with a dot",
                    )
                if "resolve" in said:
                    return problem(
                        f"Label Studio's machine does not know the name in {backend}",
                        "set ALC_BACKEND_URL to an address that it can resolve",
                    )
        return ok(f"Label Studio may call {backend}")


def _own_path(url: str) -> str | None:
    """The path that Label Studio takes for its own, as its first page sends on to the login.

    None where it does not say.
    """
    try:
        answer = httpx.get(f"{url}/", timeout=TIMEOUT_S)
        path = urlsplit(answer.headers["location"]).path
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError):
        return None
    before, found, _ = path.partition("/user/login")
    return before if found else None


def _refusal(client: Client, path: str, body: dict[str, Any]) -> str:
    try:
        client.post(path, body)
    except LabelStudioError as error:
        if error.status is None:  # it did not answer at all
            raise
        return str(error)  # a name that it cannot resolve is a 500
    return ""


def _expiry(token: str) -> datetime | None:
    """When a personal access token expires, as it says itself; None when it does not say."""
    part = token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return datetime.fromtimestamp(int(claims["exp"]), timezone.utc)
    except (binascii.Error, ValueError, KeyError, TypeError, OverflowError, OSError):
        return None
