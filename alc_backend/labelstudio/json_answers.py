"""JSON answers of Label Studio: read within bounds, because annotators decide how long they are."""

from __future__ import annotations

import json
from typing import Any

import httpx

from alc_backend.errors import AnswerTooLargeError

MAX_BYTES = 64 * 2**20
"""Longer answers are not read, unpacked bytes counted: an edit at its own bounds takes 57 MiB."""

MOST = {"lists and objects": 1_000_000, "strings": 2_000_000}
"""What an answer may hold; each of these takes up to thirty times its bytes once it is read."""

PACKED = {"Accept-Encoding": "gzip"}
"""The header that asks for an answer as it is or packed so that a part unpacks to 1000 times."""


def read_whole(response: httpx.Response, path: str) -> httpx.Response:
    """A streamed answer to a request for ``path``, unpacked and with its content.

    Raises AnswerTooLargeError, which names the path, for more than MAX_BYTES, as soon as there are
    more; httpx.HTTPError when the connection fails.
    """
    content = bytearray()
    declared = int(response.headers.get("content-length") or 0)
    for chunk in response.iter_bytes() if declared <= MAX_BYTES else ():
        content += chunk
        if len(content) > MAX_BYTES:
            break
    if max(declared, len(content)) > MAX_BYTES:
        raise AnswerTooLargeError(
            f"{path}: Label Studio's answer is larger than {MAX_BYTES >> 20} MiB; if that is one "
            "annotation, delete it, or make it smaller"
        )
    headers = response.headers.copy()
    for name in ("content-encoding", "content-length", "transfer-encoding"):
        headers.pop(name, None)
    return httpx.Response(
        response.status_code,
        headers=headers,
        content=bytes(content),
        request=response.request,
    )


def decode(content: bytes, path: str) -> Any:
    """What the JSON of an answer says.

    Raises AnswerTooLargeError, which names the path, for more than MOST and for lists in lists
    without end, ValueError for what is no JSON. Strings may hold brackets, which count as well.
    """
    counts = {
        "lists and objects": content.count(b"[") + content.count(b"{"),
        "strings": content.count(b'"') // 2,
    }
    for name, count in counts.items():
        if count > MOST[name]:
            raise AnswerTooLargeError(
                f"{path}: Label Studio's answer has more than {MOST[name]:,} {name}; if that is "
                "one annotation, delete it, or make it smaller"
            )
    try:
        return json.loads(content)
    except RecursionError as error:
        raise AnswerTooLargeError(
            f"{path}: Label Studio's answer has lists in lists, too deep to be read; if that is "
            "one annotation, delete it"
        ) from error
