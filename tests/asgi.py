"""Requests to an ASGI application without a client, which would refuse to send hostile ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

LOCAL = ("127.0.0.1", 40000)


@dataclass(frozen=True)
class Answer:
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes


def scope(
    method: str = "GET",
    path: str = "/health",
    headers: Iterable[tuple[bytes, bytes]] = (),
    client: tuple[str, int] | None = LOCAL,
) -> dict[str, Any]:
    """The scope of a HTTP request, as uvicorn makes it."""
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "root_path": "",
        "query_string": query.encode("utf-8", "surrogatepass"),
        "headers": list(headers),
        "client": client,
        "server": ("127.0.0.1", 9090),
        "state": {},
    }


async def ask(app: Any, asked: dict[str, Any], parts: Iterable[bytes] = (b"",)) -> Answer:
    """Send a request whose body arrives in ``parts``, as a chunked one does."""

    async def arriving() -> AsyncIterator[dict[str, Any]]:
        for part in parts:
            yield {"type": "http.request", "body": part, "more_body": True}
        yield {"type": "http.request", "body": b"", "more_body": False}
        while True:
            yield {"type": "http.disconnect"}

    messages, sent = arriving(), []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(asked, messages.__anext__, send)
    start = sent[0]
    headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], headers, b"".join(m.get("body", b"") for m in sent[1:]))
