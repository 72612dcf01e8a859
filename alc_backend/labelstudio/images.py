"""Fetching the images that tasks name: from Label Studio, its storages, and allowed hosts.

Whoever may import tasks chooses the addresses in them. No address may make the backend ask a
machine of its own network, or send Label Studio's token elsewhere.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

import httpx

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio.client import Client

MAX_BYTES = 512 * 2**20
"""Larger image files are not fetched."""

MAX_REDIRECTS = 3
TIMEOUT_S = 60.0


def fetch(client: Client, url: str, hosts: Sequence[str] = ()) -> bytes:
    """The bytes behind a task's image address.

    Paths (uploads, local files, storages that Label Studio serves itself) and addresses of Label
    Studio's own host are asked for with its token; where it sends on to a storage, that is asked
    without the token. Other addresses must be of one of ``hosts``, which alone may lie in a private
    network. Raises LabelStudioError naming the address and the reason.
    """
    own = urlsplit(client.url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise LabelStudioError(f"an image's address cannot be read ({error})") from error
    if parts.scheme in ("http", "https") and parts.netloc == own.netloc:
        url = parts._replace(scheme="", netloc="").geturl()
    if url.startswith("/") and not url.startswith("//"):
        content, onward = client.download(url)
        return _fetch(onward, hosts, sent_on=True) if onward else content
    if parts.scheme not in ("http", "https"):
        raise LabelStudioError(
            f"{_shown(url)}: is not an address of an image; add images by upload, by a storage of "
            "Label Studio, or by http(s)"
        )
    return _fetch(url, hosts, sent_on=False)


def _fetch(url: str, hosts: Sequence[str], *, sent_on: bool) -> bytes:
    """The bytes behind an address, without a token; ``sent_on``: Label Studio itself led there."""
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as http:
        for _ in range(MAX_REDIRECTS + 1):
            host = _checked(url, hosts, sent_on=sent_on)
            try:
                with http.stream("GET", url) as response:
                    if host not in hosts:  # since the check, the name may mean another machine
                        _refuse_private(url, _peer(response))
                    if response.is_redirect:
                        url = _joined(url, response.headers["location"])
                        continue
                    if response.status_code != 200:
                        raise LabelStudioError(
                            f"{_shown(url)}: answered {response.status_code}; check the address",
                            response.status_code,
                        )
                    return _read(response, url)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise LabelStudioError(f"{_shown(url)}: cannot be fetched ({error})") from error
    raise LabelStudioError(f"{_shown(url)}: sends on more than {MAX_REDIRECTS} times")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise LabelStudioError(
            f"{_shown(url)}: sends on to what is not an address ({error})"
        ) from error


def _read(response: httpx.Response, url: str) -> bytes:
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > MAX_BYTES:
            raise LabelStudioError(
                f"{_shown(url)}: is larger than {MAX_BYTES >> 20} MiB; use a smaller image"
            )
    return bytes(content)


def _checked(url: str, hosts: Sequence[str], *, sent_on: bool) -> str:
    """The host of an address; LabelStudioError when it must not be asked."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise LabelStudioError(f"{_shown(url)}: is not an address ({error})") from error
    if host in hosts:
        return host
    if parts.scheme not in ("http", "https") or not (sent_on and host):
        raise LabelStudioError(
            f"{_shown(url)}: the host is not among ALC_IMAGE_HOSTS; add it there, or add the "
            "images by upload or by a storage of Label Studio"
        )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LabelStudioError(f"{_shown(url)}: cannot be found ({error})") from error
    for *_, address in found:
        _refuse_private(url, str(address[0]))
    return host


def _refuse_private(url: str, address: str) -> None:
    if not ipaddress.ip_address(address.partition("%")[0]).is_global:
        raise LabelStudioError(
            f"{_shown(url)}: lies in a private network; add its host to ALC_IMAGE_HOSTS if that is "
            "meant"
        )


def _peer(response: httpx.Response) -> str:
    return str(response.extensions["network_stream"].get_extra_info("server_addr")[0])


def _shown(url: str) -> str:
    """An address without what may be a secret in it: user, password, query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
