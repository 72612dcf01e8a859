"""Downloads from servers that nobody vetted: bounded in bytes and time, from checked addresses.

What arrives is written to where the caller says while it arrives, so that it takes no memory. It is
taken as it is sent: an answer that is compressed, though none was asked for, is refused.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from alc_backend.errors import LabelStudioError

MAX_BYTES = 512 * 2**20
"""Larger files are not fetched."""

DEADLINE_S = 300.0
"""How long one file may take at most, redirects included, however many bytes still arrive."""

TIMEOUT_S = 60.0
"""How long a server may be silent."""

AS_IT_IS = {"Accept-Encoding": "identity"}
"""The header that asks for a file without compression."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def tls_remedy(error: BaseException) -> str | None:
    """What to do about a connection that failed because of TLS; None where something else failed.

    ``error`` is what was raised; its causes tell.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                "use the host name that the certificate is for; if the certificate is your own, "
                "name a file with it, or with its authority's, in SSL_CERT_FILE"
            )
        if isinstance(cause, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(cause):
            return "no TLS is spoken there: use http:// in place of https://, or another port"
        cause = cause.__cause__ or cause.__context__
    return None


class Deadline:
    """A moment after which a download is given up; ``about`` names it in the error."""

    def __init__(self, about: str, seconds: float | None = None) -> None:
        self._about = about
        self._seconds = DEADLINE_S if seconds is None else seconds
        self._end = time.monotonic() + self._seconds

    def left(self, most: float | None = None) -> float:
        """The seconds that are left, ``most`` at most; LabelStudioError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise LabelStudioError(
                f"{self._about}: did not arrive within {self._seconds:g} s; check the server that "
                "holds it, or use a smaller image"
            )
        return left if most is None else min(left, most)


def save(response: httpx.Response, target: IO[bytes], about: str) -> None:
    """Write the body of a streamed answer into ``target``.

    Raises LabelStudioError for more than MAX_BYTES, and for an answer that is compressed;
    httpx.HTTPError when the connection fails.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise LabelStudioError(
            f"{about}: is sent with the encoding {encoding[:40]!r}; let the server send the file "
            "as it is"
        )
    size = 0
    for chunk in response.iter_bytes():
        size += len(chunk)
        if size > MAX_BYTES:
            raise LabelStudioError(
                f"{about}: is larger than {MAX_BYTES >> 20} MiB; use a smaller image"
            )
        target.write(chunk)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public network, and to one machine."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.is_site_local:
            return False
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    return found.is_global and not found.is_multicast and not found.is_reserved


class GuardedTransport(httpx.BaseTransport):
    """Sends requests over connections that end at a deadline.

    ``check`` is called with every IP address that a host's name means, before the first byte is
    sent to any of them, and raises for one that must not be asked; what was checked is what is
    connected to. Without a check, the proxies that the environment names are used.
    """

    def __init__(self, deadline: Deadline, check: Callable[[str], None] | None = None) -> None:
        self._deadline, self._check = deadline, check
        self._pool: httpcore.ConnectionPool | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raises httpx.TransportError, or what the check and the deadline raise."""
        if self._pool is None:
            self._pool = self._open(request.url)
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx(request):
            answer = self._pool.handle_request(sent)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer, request),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.close()

    def _open(self, url: httpx.URL) -> httpcore.ConnectionPool:
        backend = _Backend(self._deadline, self._check)
        context = httpx.create_ssl_context()
        proxy = None if self._check or proxy_bypass(url.host) else getproxies().get(url.scheme)
        if proxy is None:
            return httpcore.ConnectionPool(ssl_context=context, network_backend=backend)
        given = httpx.Proxy(proxy)
        return httpcore.HTTPProxy(
            proxy_url=str(given.url),
            proxy_auth=given.raw_auth,
            ssl_context=context,
            network_backend=backend,
        )


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response, request: httpx.Request) -> None:
        self._answer, self._request = answer, request

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx(self._request):
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _Backend(httpcore.NetworkBackend):
    """Resolves a name once, checks what it means, and connects to just that."""

    def __init__(self, deadline: Deadline, check: Callable[[str], None] | None) -> None:
        self._deadline, self._check = deadline, check
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the host cannot be found: {error}") from error
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if self._check is not None:
            for address in addresses:
                self._check(address)
        failed: Exception = httpcore.ConnectError("the host has no address")
        for address in addresses:
            try:
                stream = self._network.connect_tcp(
                    address, port, self._deadline.left(timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                return _Stream(stream, self._deadline)
        raise failed


class _Stream(httpcore.NetworkStream):
    """A connection that waits until the deadline at most."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._in_time():
            return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with self._in_time():
            self._stream.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        with self._in_time():
            secured = self._stream.start_tls(
                ssl_context, server_hostname, self._deadline.left(timeout)
            )
        return _Stream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        try:
            yield
        except httpcore.TimeoutException:
            self._deadline.left()
            raise


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """Raise httpx's errors in place of those of the library below it."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.TimeoutException(str(error) or "timed out", request=request) from error
    except (
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.ProxyError,
        httpcore.UnsupportedProtocol,
    ) as error:
        raise httpx.TransportError(str(error), request=request) from error
