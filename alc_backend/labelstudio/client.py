"""A thin client of Label Studio's API: authentication, retries, errors with a remedy."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin

import httpx
from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    wait_exponential,
)

from alc_backend.common.types import Json
from alc_backend.errors import LabelStudioAwayError, LabelStudioError, SettingsError
from alc_backend.labelstudio.addresses import Addresses
from alc_backend.labelstudio.downloads import (
    AS_IT_IS,
    TIMEOUT_S,
    Deadline,
    GuardedTransport,
    save,
    tls_remedy,
)
from alc_backend.labelstudio.json_answers import PACKED, decode, read_whole
from alc_backend.labelstudio.task_pages import LeaveOut, TaskPages, raise_it
from alc_backend.labelstudio.tokens import moved, token_auth
from alc_backend.settings import Settings

MAX_REDIRECTS = 3

TRIES = 3
"""How often a request that only reads is sent at most."""

PAUSE_S = 1.0
"""The pause before the second try; each later one is twice as long."""

OVERLOADED = (429, 502, 503, 504)
"""Statuses that another try may change."""

MOST_FILES = 100
"""Files of one upload request; Label Studio refuses more."""

UPLOAD_FILES = 50
"""Images of one upload request."""

REMEDIES = {
    401: "check LABEL_STUDIO_API_KEY",
    403: "the token's user may not do this; use an administrator's token",
    404: "it does not exist in Label Studio (deleted?)",
}


class Client:
    """Label Studio as one user sees it. Use as a context manager or call :meth:`close`.

    ``token`` is a personal access token or a legacy token; ``timeout`` in seconds. ``public_url``
    is where browsers reach Label Studio, if that is elsewhere. Tests give a ``transport`` in place
    of the network, and a ``sleep`` that does not wait before another try. ``before_change`` may be
    set: it is called before every request that may change something, which is not sent when that
    raises.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        public_url: str | None = None,
        timeout: float = 300.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self.addresses = Addresses(self.url, (public_url or url).rstrip("/"))
        self.before_change: Callable[[], object] = lambda: None
        self._auth, self._transport = token_auth(token, self.url), transport
        try:
            self._http = httpx.Client(
                base_url=self.url,
                auth=self._auth,
                headers=PACKED,
                timeout=timeout,
                follow_redirects=False,
                transport=transport,
            )
        except httpx.InvalidURL as error:
            raise SettingsError(f"LABEL_STUDIO_URL {url!r} is not an address ({error})") from error
        self._retrying = Retrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential(multiplier=PAUSE_S),
            retry=retry_if_exception_type(httpx.HTTPError) | retry_if_result(_is_overloaded),
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
            sleep=sleep,
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> Client:
        """The client of the configured user; SettingsError when no token is set."""
        if settings.label_studio_api_key is None:
            raise SettingsError(
                "LABEL_STUDIO_API_KEY is not set; create a personal access token in Label Studio "
                "(Account & Settings) and put it into the environment"
            )
        return cls(
            settings.label_studio_url,
            settings.label_studio_api_key.get_secret_value(),
            public_url=settings.label_studio_links,
        )

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

    def get_or_none(self, path: str, **parameters: Any) -> Any:
        """GET ``path``; returns the decoded JSON, None when there is no such thing (404)."""
        return self.request("GET", path, missing_ok=True, params=parameters)

    def exists(self, path: str) -> bool:
        """Whether Label Studio has what a path names, however large that is: it is not read.

        Raises LabelStudioError as :meth:`request` does, but for what is missing.
        """

        def ask(method: str, path: str) -> httpx.Response:
            with self._http.stream(method, path) as response:
                return response if response.is_success else read_whole(response, path)

        return self._answer("GET", path, missing_ok=True, send=ask) is not None

    def post(self, path: str, body: Any, **parameters: Any) -> Any:
        """POST ``body`` as JSON; returns the decoded JSON."""
        return self.request("POST", path, json=body, params=parameters)

    def patch(self, path: str, body: Any, *, missing_ok: bool = False) -> Any:
        """PATCH ``body`` as JSON; returns the decoded JSON."""
        return self.request("PATCH", path, missing_ok=missing_ok, json=body)

    def delete(self, path: str, body: Any = None, *, missing_ok: bool = False) -> Any:
        """DELETE ``path``."""
        return self.request("DELETE", path, missing_ok=missing_ok, json=body)

    def request(self, method: str, path: str, *, missing_ok: bool = False, **arguments: Any) -> Any:
        """Send one request; returns the decoded JSON, None for an empty answer.

        With ``missing_ok`` also None when there is no such thing (404). Raises LabelStudioError
        with status and remedy for every other failure, LabelStudioAwayError when another try may
        succeed, AnswerTooLargeError for an answer beyond the bounds of
        :mod:`alc_backend.labelstudio.json_answers`. Reading is tried again when the connection
        fails or the server is overloaded; writing is not, because a lost answer does not mean a
        lost request.
        """
        response = self._answer(method, path, missing_ok=missing_ok, **arguments)
        if response is None or not response.content:
            return None
        try:
            return decode(response.content, path)
        except ValueError as error:
            raise LabelStudioError(
                f"{self.url}{path} did not answer as Label Studio does; check LABEL_STUDIO_URL"
            ) from error

    def _answer(
        self, method: str, path: str, *, missing_ok: bool, **arguments: Any
    ) -> httpx.Response | None:
        """A good answer; with ``missing_ok`` None for 404. Raises LabelStudioError for others."""
        response = self._send(method, path, **arguments)
        if missing_ok and response.status_code == 404:
            return None
        if response.has_redirect_location:
            raise moved(response, path)
        if response.status_code >= 400:
            raise _error(method, path, response.status_code, _detail(response))
        return response

    def download(self, path: str, target: IO[bytes], deadline: Deadline) -> str | None:
        """Write what is behind a path of Label Studio into ``target``.

        Returns None, or the address elsewhere that Label Studio sends on to. Raises
        LabelStudioError as :func:`alc_backend.labelstudio.downloads.save` and the deadline do,
        LabelStudioAwayError when another try may succeed.
        """
        about = path.partition("?")[0]
        with httpx.Client(
            base_url=self.url,
            auth=self._auth,
            headers=AS_IT_IS,
            timeout=TIMEOUT_S,
            transport=self._transport or GuardedTransport(deadline),
        ) as http:

            def ask(method: str, path: str) -> httpx.Response:
                return http.send(http.build_request(method, path), stream=True)

            for _ in range(MAX_REDIRECTS):
                with closing(self._send("GET", path, send=ask)) as response:
                    if response.status_code == 200:
                        with self._as_away():
                            save(response, target, about)
                        return None
                if not response.has_redirect_location:
                    break
                onward = urljoin(f"{self.url}{path}", response.headers["location"])
                below = self.addresses.path(onward)
                if below is None:
                    return onward
                path = below
        raise _error("GET", about, response.status_code)

    def tasks(
        self, project: int, *, leave_out: LeaveOut = raise_it, **parameters: Any
    ) -> Iterator[Json]:
        """All tasks of a project, with annotations and predictions, as :meth:`tasks_by_id` reads.

        ``fields="task_only"`` leaves those out, which is much faster.
        """
        return self.tasks_by_id(project, [], leave_out=leave_out, **parameters)

    def tasks_by_id(
        self,
        project: int,
        filters: list[Json],
        conjunction: str = "and",
        *,
        leave_out: LeaveOut = raise_it,
        **parameters: Any,
    ) -> Iterator[Json]:
        """The tasks that pass the Data Manager's ``filters``, by id, page by page.

        It misses none that stays when others come and go meanwhile. A task that cannot be had,
        because Label Studio's answer is too large or 500 even to a request for it alone, is told to
        ``leave_out`` with an error that names it, and the others follow; without ``leave_out`` that
        error is raised.
        """
        # Label Studio joins all filters in one way; "or" is asked in one request for each.
        groups = [filters] if conjunction == "and" else [[one] for one in filters]
        return iter(TaskPages(self.get, project, groups, leave_out, parameters))

    def upload(self, project: int, images: list[Path]) -> list[str]:
        """Upload images; returns their addresses inside Label Studio, in the same order.

        Raises LabelStudioError naming an image that Label Studio did not keep.
        """
        urls: list[str] = []
        for first in range(0, len(images), UPLOAD_FILES):
            part = images[first : first + UPLOAD_FILES]
            # under numbers, because Label Studio changes names
            names = [f"{index}{path.suffix}" for index, path in enumerate(part)]
            contents = (path.read_bytes() for path in part)
            kept = self.upload_files(project, [*zip(names, contents, strict=True)])
            for name, path in zip(names, part, strict=True):
                if name not in kept:
                    raise LabelStudioError(f"{path.name}: Label Studio did not keep the upload")
                urls.append(kept[name])
        return urls

    def upload_files(self, project: int, files: Sequence[tuple[str, bytes]]) -> dict[str, str]:
        """Upload files, at most MOST_FILES, in one request; returns the address of each by name.

        A file is its name, of ASCII letters, digits, dots and dashes, and its content. One that
        Label Studio did not keep is left out.
        """
        answer = self.request(
            "POST",
            f"/api/projects/{project}/import",
            files=[(f"file{index}", file) for index, file in enumerate(files)],
            params={"commit_to_project": "false"},
        )
        ours = answer["file_upload_ids"]
        listed = self.get(f"/api/projects/{project}/file-uploads", ids=str(ours))
        return {
            name_given(upload["file"]): self.addresses.upload(upload["file"])
            for upload in listed
            if upload["id"] in ours
        }

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request for JSON, and read the answer within bounds."""
        with self._http.stream(method, path, **arguments) as response:
            return read_whole(response, path)

    def _send(
        self,
        method: str,
        path: str,
        *,
        send: Callable[..., httpx.Response] | None = None,
        **arguments: Any,
    ) -> httpx.Response:
        """Send a request, by ``send`` where it is given."""
        send = send or self._ask
        try:
            with self._as_away():
                if method == "GET":
                    response: httpx.Response = self._retrying(send, method, path, **arguments)
                    return response
                self.before_change()
                return send(method, path, **arguments)
        except httpx.InvalidURL as error:
            raise LabelStudioError(f"{path!r} is not an address ({error})") from error

    @contextmanager
    def _as_away(self) -> Iterator[None]:
        """Raise LabelStudioAwayError where the connection fails."""
        try:
            yield
        except httpx.HTTPError as error:
            raise LabelStudioAwayError(
                f"Label Studio does not answer at {self.url} ({error}); "
                + (tls_remedy(error) or "check that it runs and LABEL_STUDIO_URL")
            ) from error


def name_given(file: str) -> str:
    """The name that an upload was given, by the one that Label Studio made of it."""
    return re.sub(r"^[0-9a-f]+-", "", file.rpartition("/")[2])


def is_outage(error: Exception) -> bool:
    """Whether an error is of the kind that meets every request, not only the one that was sent.

    The server cannot be reached, or is overloaded, or refuses the token; unlike, say, an answer 500
    to the request for one image.
    """
    if isinstance(error, LabelStudioAwayError):
        return error.status is None or error.status in OVERLOADED
    return isinstance(error, LabelStudioError) and error.status == 401


def _is_overloaded(response: httpx.Response) -> bool:
    return response.status_code in OVERLOADED


def _detail(response: httpx.Response) -> str:
    try:
        body = decode(response.content, response.url.path)
        return str(body.get("validation_errors") or body.get("detail") or body)[:400]
    except (ValueError, AttributeError, LabelStudioError):
        return "no details"


def _error(method: str, path: str, status: int, detail: str = "no details") -> LabelStudioError:
    remedy = REMEDIES.get(status, "see Label Studio's log")
    return answered(
        f"Label Studio answered {status} to {method} {path}: {detail}; {remedy}", status
    )


def answered(message: str, status: int) -> LabelStudioError:
    """The error for an answer with a status: LabelStudioAwayError where another may come later."""
    away = status == 429 or status >= 500
    return (LabelStudioAwayError if away else LabelStudioError)(message, status)
