"""Logging: text for people or JSON for machines, request ids, and nothing secret.

Every line that is written while a request is answered carries the request's id; so do the lines of
the jobs that it started, on whatever machine they run.
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


_SIGNED = re.compile(
    r"(?i)([?&](?:x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|signature|sig|se|sp|sv|"
    r"token|access_token|key|expires|policy|key-pair-id)=)[^&\s\"'<>]+"
)
"""What makes an address of a storage valid for whoever holds it."""

_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic|token)(\s+)[\w.+/=~-]{8,}")

_request: ContextVar[str | None] = ContextVar("request", default=None)
_job: ContextVar[str | None] = ContextVar("job", default=None)


def configure(settings: Settings) -> None:
    """Let this process log as the settings say."""
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
    """Lines written meanwhile belong to this request and job."""
    tokens = _request.set(request), _job.set(job)
    try:
        yield
    finally:
        _request.reset(tokens[0])
        _job.reset(tokens[1])


def redact(text: str, hidden: Sequence[str] = ()) -> str:
    """``text`` without the ``hidden`` words, signatures in addresses, and authorizations."""
    for word in sorted(hidden, key=len, reverse=True):
        if len(word) > 3:
            text = text.replace(word, "…")
    return _AUTHORIZATION.sub(r"\1\2…", _SIGNED.sub(r"\1…", text))


def _formatter(log_format: str, hidden: Sequence[str]) -> logging.Formatter:
    if log_format == JSON:  # where quotes and backslashes are written otherwise
        hidden = [*hidden, *(json.dumps(word, ensure_ascii=False)[1:-1] for word in hidden)]
    base: Any = JsonFormatter if log_format == JSON else logging.Formatter

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
    """Say of a record which request and job it belongs to."""
    record.__dict__.update(request=_request.get(), job=_job.get())
    return True


def _trail(record: logging.LogRecord) -> bool:
    """The same in words, for the end of a line."""
    belongs = [f"{name}={record.__dict__[name]}" for name in ("request", "job")]
    told = " ".join(text for text in belongs if not text.endswith("=None"))
    record.__dict__["trail"] = f" [{told}]" if told else ""
    return True
