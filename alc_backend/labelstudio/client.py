"""A thin client of Label Studio's API: authentication, retries, errors with a remedy.

Personal access tokens are exchanged for short-lived ones; legacy tokens are sent as they are.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx

from alc_backend.common.types import Json
from alc_backend.errors import LabelStudioAwayError, LabelStudioError, SettingsError
from alc_backend.settings import Settings

REFRESH_AFTER_S = 200.0
"""Age at which an access token (good for 300 s) is replaced."""

MAX_REDIRECTS = 3
RETRIES = 3
PAGE = 100
"""Tasks in one answer."""

OVERLOADED = (429, 502, 503, 504)
"""Answers that another try may change."""

UPLOAD_FILES = 50
"""Images per upload request; Label Studio refuses more than 100."""


class Client:
    """Label Studio as one user sees it. Use as a context manager or call :meth:`close`."""

    def __init__(self, url: str, token: str, *, timeout: float = 300.0) -> None:
        self.url = url.rstrip("/")
        self._token = token
        try:
            self._http = httpx.Client(base_url=self.url, timeout=timeout, follow_redirects=False)
        except httpx.InvalidURL as error:
            raise SettingsError(f"LABEL_STUDIO_URL {url!r} is no address ({error})") from error
        self._lock = threading.Lock()
        self._access = ""
        self._access_since = float("-inf")

    @classmethod
    def from_settings(cls, settings: Settings) -> Client:
        """The client of the configured user; SettingsError when no token is set."""
        if settings.label_studio_api_key is None:
            raise SettingsError(
                "LABEL_STUDIO_API_KEY is not set; create a personal access token in Label Studio "
                "(Account & Settings) and put it into the environment"
            )
        return cls(settings.label_studio_url, settings.label_studio_api_key.get_secret_value())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """GET ``path``; returns the decoded JSON."""
        return self.request("GET", path, params=parameters)

    def post(self, path: str, body: Any, **parameters: Any) -> Any:
        """POST ``body`` as JSON; returns the decoded JSON."""
        return self.request("POST", path, json=body, params=parameters)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH ``body`` as JSON; returns the decoded JSON."""
        return self.request("PATCH", path, json=body)

    def delete(self, path: str, body: Any = None) -> Any:
        """DELETE ``path``."""
        return self.request("DELETE", path, json=body)

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        """Send one request; LabelStudioError with status and remedy for every failure.

        Reading is tried again when the connection fails or the server is overloaded; writing is
        not, because a lost answer does not mean a lost request.
        """
        response = self._send(method, path, **arguments)
        if response.status_code >= 400:
            raise _error(method, path, response)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise LabelStudioError(
                f"{self.url}{path} did not answer as Label Studio does; check LABEL_STUDIO_URL"
            ) from error

    def download(self, path: str) -> tuple[bytes, str | None]:
        """The bytes behind a path of Label Studio, or the address elsewhere that it sends on to."""
        for _ in range(MAX_REDIRECTS):
            response = self._send("GET", path)
            if not response.is_redirect:
                break
            onward = urljoin(f"{self.url}{path}", response.headers["location"])
            if not onward.startswith(f"{self.url}/"):
                return b"", onward
            path = onward.removeprefix(self.url)
        if response.status_code != 200:
            raise _error("GET", path.partition("?")[0], response)
        return response.content, None

    def tasks(self, project: int, **parameters: Any) -> Iterator[Json]:
        """All tasks of a project, page by page, with annotations and predictions.

        ``fields="task_only"`` leaves those out, which is much faster.
        """
        given = {"fields": "all", "page_size": 100, **parameters}
        page = seen = 0
        while True:
            page += 1
            try:
                answer = self.get("/api/tasks/", project=project, page=page, **given)
            except LabelStudioError as error:
                if error.status == 404 and page > 1:
                    return
                raise
            yield from answer["tasks"]
            seen += len(answer["tasks"])
            if seen >= answer["total"] or not answer["tasks"]:
                return

    def tasks_by_id(
        self, project: int, filters: list[Json], conjunction: str = "and", **parameters: Any
    ) -> Iterator[Json]:
        """The tasks that pass the Data Manager's ``filters``, by id, page by page.

        Unlike :meth:`tasks` it misses none that stays when others come and go meanwhile.
        """
        after = 0
        while True:
            beyond = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number"}
            # Label Studio joins all filters in one way; "or" is asked in one request for each.
            groups = [filters] if conjunction == "and" else [[one] for one in filters]
            found: dict[int, Json] = {}
            for group in groups:
                items = [*group, {**beyond, "value": after}]
                query = {
                    "filters": {"conjunction": "and", "items": items},
                    "ordering": ["tasks:id"],
                }
                page = self.get(
                    "/api/tasks/",
                    project=project,
                    query=json.dumps(query),
                    **{"fields": "all", "page_size": PAGE, **parameters},
                )["tasks"]
                found.update((int(task["id"]), task) for task in page)
            numbers = sorted(found)[:PAGE]
            yield from (found[number] for number in numbers)
            if len(found) < PAGE:
                return
            after = numbers[-1]

    def upload(self, project: int, images: list[Path]) -> list[str]:
        """Upload images; returns their addresses inside Label Studio, in the same order."""
        urls: list[str] = []
        for first in range(0, len(images), UPLOAD_FILES):
            part = images[first : first + UPLOAD_FILES]
            # Names are replaced by numbers: Label Studio rewrites them otherwise.
            files = [
                (f"file{index}", (f"{first + index}{path.suffix}", path.read_bytes()))
                for index, path in enumerate(part)
            ]
            answer = self.request(
                "POST",
                f"/api/projects/{project}/import",
                files=files,
                params={"commit_to_project": "false"},
            )
            known = {
                upload["id"]: str(upload["file"])
                for upload in self.get(
                    f"/api/projects/{project}/file-uploads", ids=str(answer["file_upload_ids"])
                )
            }
            by_name = {
                re.sub(r"^[0-9a-f]+-", "", Path(known[number]).name): known[number]
                for number in answer["file_upload_ids"]
            }
            for index, path in enumerate(part):
                name = f"{first + index}{path.suffix}"
                if name not in by_name:
                    raise LabelStudioError(f"{path.name}: Label Studio did not keep the upload")
                urls.append(f"/data/{by_name[name]}")
        return urls

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        tries = RETRIES if method == "GET" else 1
        for attempt in range(1, tries + 1):
            try:
                response = self._authorised(method, path, **arguments)
            except httpx.HTTPError as error:
                if attempt == tries:
                    raise LabelStudioAwayError(
                        f"Label Studio does not answer at {self.url} ({error}); check that it runs "
                        "and LABEL_STUDIO_URL"
                    ) from error
            else:
                if response.status_code not in OVERLOADED or attempt == tries:
                    return response
            time.sleep(0.5 * 2**attempt)
        raise AssertionError("unreachable")

    def _authorised(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        response = self._http.request(
            method, path, headers={"Authorization": self._authorization()}, **arguments
        )
        if response.status_code == 401 and self._access:
            self._access_since = float("-inf")  # revoked early, or the clocks differ
            response = self._http.request(
                method, path, headers={"Authorization": self._authorization()}, **arguments
            )
        return response

    def _authorization(self) -> str:
        if self._token.count(".") != 2:
            return f"Token {self._token}"
        with self._lock:
            if time.monotonic() - self._access_since > REFRESH_AFTER_S:
                response = self._http.post("/api/token/refresh/", json={"refresh": self._token})
                if response.status_code in OVERLOADED:
                    raise _error("POST", "/api/token/refresh/", response)
                if response.status_code != 200:
                    raise LabelStudioError(
                        "Label Studio refuses the personal access token in LABEL_STUDIO_API_KEY; "
                        "create a new one in Account & Settings",
                        response.status_code,
                    )
                self._access = str(response.json()["access"])
                self._access_since = time.monotonic()
            return f"Bearer {self._access}"


def create_personal_token(url: str, email: str, password: str) -> str:
    """Sign in with a password and create a personal access token.

    Raises LabelStudioError when the login is refused or the user already has a token.
    """
    with httpx.Client(base_url=url.rstrip("/"), timeout=60, follow_redirects=True) as http:
        try:
            page = http.get("/user/login/").text
            found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
            if not found:
                raise LabelStudioError(f"{url} shows no Label Studio login; check the address")
            referer = {"Referer": f"{url}/user/login/"}
            form = {"csrfmiddlewaretoken": found[1], "email": email, "password": password}
            http.post("/user/login/", data=form, headers=referer)
            token = http.cookies.get("csrftoken") or ""
            response = http.post("/api/token/", headers={"X-CSRFToken": token, **referer})
        except httpx.HTTPError as error:
            raise LabelStudioAwayError(
                f"Label Studio does not answer at {url} ({error})"
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


def _error(method: str, path: str, response: httpx.Response) -> LabelStudioError:
    status = response.status_code
    remedies = {
        401: "check LABEL_STUDIO_API_KEY",
        403: "the token's user may not do this; use an administrator's token",
        404: "it does not exist in Label Studio (deleted?)",
    }
    try:
        body = response.json()
        detail = str(body.get("validation_errors") or body.get("detail") or body)[:400]
    except (ValueError, AttributeError):
        detail = "no details"
    remedy = remedies.get(status, "see Label Studio's log")
    away = status in OVERLOADED or status >= 500
    kind = LabelStudioAwayError if away else LabelStudioError
    return kind(f"Label Studio answered {status} to {method} {path}: {detail}; {remedy}", status)
