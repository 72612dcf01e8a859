"""Fetching the images that tasks name: from Label Studio, its storages, and allowed hosts.

Whoever may import tasks chooses the addresses in them. No address may make the backend ask a
machine of its own network, or send Label Studio's token elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO
from urllib.parse import urljoin, urlsplit

import httpx

from alc_backend.errors import LabelStudioAwayError, LabelStudioError
from alc_backend.labelstudio.client import Client, answered
from alc_backend.labelstudio.downloads import (
    AS_IT_IS,
    TIMEOUT_S,
    Deadline,
    GuardedTransport,
    is_public,
    save,
    tls_remedy,
)

MAX_REDIRECTS = 3


def fetch(client: Client, url: str, target: IO[bytes], hosts: Sequence[str] = ()) -> None:
    """Write the bytes behind a task's image address into ``target``.

    Paths (uploads, local files, storages that Label Studio serves itself) and addresses of Label
    Studio itself are asked for with its token; where it sends on to a storage, that is asked
    without the token. Other addresses must be of one of ``hosts``, which alone may lie in a private
    network. Raises LabelStudioError naming the address and the reason, also for what is larger
    than MAX_BYTES or has not arrived after DEADLINE_S.
    """
    try:
        scheme, below = urlsplit(url).scheme, client.addresses.path(url)
    except ValueError as error:
        raise LabelStudioError(f"an image's address cannot be read ({error})") from error
    deadline = Deadline(_shown(url))
    if below is not None:
        onward = client.download(below, target, deadline)
        if onward:
            _fetch(onward, target, hosts, deadline, sent_on=True)
    elif scheme in ("http", "https"):
        _fetch(url, target, hosts, deadline, sent_on=False)
    else:
        raise LabelStudioError(
            f"{_shown(url)}: is not an address of an image; add images by upload, by a storage of "
            "Label Studio, or by http(s)"
        )


def _fetch(
    url: str, target: IO[bytes], hosts: Sequence[str], deadline: Deadline, *, sent_on: bool
) -> None:
    """Write what is behind an address, without a token; ``sent_on``: Label Studio led there."""
    for _ in range(MAX_REDIRECTS + 1):
        onward = _ask(url, target, deadline, trusted=_is_trusted(url, hosts, sent_on=sent_on))
        if onward is None:
            return
        url = onward
    raise LabelStudioError(f"{_shown(url)}: sends on more than {MAX_REDIRECTS} times")


def _ask(url: str, target: IO[bytes], deadline: Deadline, *, trusted: bool) -> str | None:
    """Write what is behind one address; returns the one that it sends on to, if it does."""

    def refuse_private(address: str) -> None:
        if not is_public(address):
            raise LabelStudioError(
                f"{_shown(url)}: lies in a private network; add its host to ALC_IMAGE_HOSTS if "
                "that is meant"
            )

    transport = GuardedTransport(deadline, None if trusted else refuse_private)
    try:
        with (
            httpx.Client(transport=transport, timeout=TIMEOUT_S, headers=AS_IT_IS) as http,
            http.stream("GET", url) as response,
        ):
            if response.has_redirect_location:
                return _joined(url, response.headers["location"])
            if response.status_code != 200:
                raise answered(
                    f"{_shown(url)}: answered {response.status_code}; check the address",
                    response.status_code,
                )
            save(response, target, _shown(url))
    except httpx.InvalidURL as error:
        raise LabelStudioError(f"{_shown(url)}: cannot be fetched ({error})") from error
    except httpx.HTTPError as error:
        remedy = tls_remedy(error)
        raise LabelStudioAwayError(
            f"{_shown(url)}: cannot be fetched ({error})" + (f"; {remedy}" if remedy else "")
        ) from error
    return None


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise LabelStudioError(
            f"{_shown(url)}: sends on to what is not an address ({error})"
        ) from error


def _is_trusted(url: str, hosts: Sequence[str], *, sent_on: bool) -> bool:
    """Whether the host of an address is one of ``hosts``; LabelStudioError if it may not be asked.

    Where Label Studio leads, a host of the public network may be asked, too.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise LabelStudioError(f"{_shown(url)}: is not an address ({error})") from error
    if parts.scheme in ("http", "https") and host and (host in hosts or sent_on):
        return host in hosts
    raise LabelStudioError(
        f"{_shown(url)}: the host is not among ALC_IMAGE_HOSTS; add it there, or add the "
        "images by upload or by a storage of Label Studio"
    )


def _shown(url: str) -> str:
    """An address without what may be a secret in it: user, password, query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
