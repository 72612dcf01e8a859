"""Logging: text for people or JSON for machines, request ids, and nothing secret.

Every line that is logged while a request is answered carries the request's id, and so do those of
the jobs that the request started, on whatever machine they run.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from alc_backend.settings import Settings

TEXT, JSON = "text", "json"
"""The formats of :attr:`Settings.log_format`."""

_SIGNED = re.compile(
    r"(?i)([?&](?:x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|signature|sig|se|sp|sv|"
    r"token|access_token|key|expires|policy|key-pair-id)=)[^&\s\"'<>]+"
)
"""Signatures in addresses, which let whoever has them read a storage."""

_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic|token)(\s+)[\w.+/=~-]{8,}")

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that end a line, or that a terminal obeys; tabs are harmless."""

_SHORTEST_HIDDEN = 4
"""Shorter words are not hidden: they are parts of too many others."""

_request: ContextVar[str | None] = ContextVar("request", default=None)
_job: ContextVar[str | None] = ContextVar("job", default=None)


def configure(settings: Settings) -> None:
    """Set up this process's logging as the settings say, at level INFO, to standard error."""
    handler = logging.StreamHandler()
    handler.addFilter(_about)
    if settings.log_format == TEXT:
        handler.addFilter(_trail)
    handler.setFormatter(_formatter(settings.log_format, settings.hidden()))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def request_id() -> str | None:
    """The id of the request that is being answered, or that started the present job."""
    return _request.get()


@contextmanager
def about(request: str | None, job: str | None = None) -> Iterator[None]:
    """A context in which all logged lines carry the ids of this request and job."""
    tokens = _request.set(request), _job.set(job)
    try:
        yield
    finally:
        _request.reset(tokens[0])
        _job.reset(tokens[1])


def redact(text: str, hidden: Sequence[str] = ()) -> str:
    """``text`` with "…" for ``hidden`` words, signatures in addresses, and authorizations."""
    for word in sorted(hidden, key=len, reverse=True):
        if len(word) >= _SHORTEST_HIDDEN:
            text = text.replace(word, "…")
    return _AUTHORIZATION.sub(r"\1\2…", _SIGNED.sub(r"\1…", text))


def one_line(text: str) -> str:
    """``text`` with line ends and other control characters written as escapes, such as ``\\n``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _OneLineText(logging.Formatter):
    """Text in which a message is one line, and no line of a traceback looks like a message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {one_line(line)}" for line in lines)


class _OneLineJson(JsonFormatter):
    """JSON in which those control characters are escaped, too, that JSON allows."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def _formatter(log_format: str, hidden: Sequence[str]) -> logging.Formatter:
    if log_format == JSON:  # which escapes quotes and backslashes
        hidden = [*hidden, *(json.dumps(word, ensure_ascii=False)[1:-1] for word in hidden)]
    base: Any = _OneLineJson if log_format == JSON else _OneLineText

    class Redacting(base):  # type: ignore[misc]
        def format(self, record: logging.LogRecord) -> str:
            return redact(super().format(record), hidden)

    if log_format == JSON:
        return Redacting(
            ["levelname", "name", "message", "request", "job"],
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
            json_ensure_ascii=False,
        )
    return Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s%(trail)s")


def _about(record: logging.LogRecord) -> bool:
    """Add the ids of the present request and job to a record; a filter that keeps all records."""
    record.__dict__.update(request=_request.get(), job=_job.get())
    return True


def _trail(record: logging.LogRecord) -> bool:
    """Add the ids as text, for the end of a line; a filter that keeps all records."""
    ids = {name: record.__dict__[name] for name in ("request", "job")}
    shown = " ".join(f"{name}={value}" for name, value in ids.items() if value is not None)
    record.__dict__["trail"] = f" [{shown}]" if shown else ""
    return True
