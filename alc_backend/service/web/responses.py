"""How the service answers: JSON in ASCII, and every error as ``{"detail": …}``."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from alc_backend.errors import AlcError, NotFoundError
from alc_backend.service.web.security_headers import HEADERS

log = logging.getLogger(__name__)


class AsciiJSONResponse(JSONResponse):
    """JSON in ASCII, so that text with half a surrogate pair in it can be sent back."""

    def render(self, content: Any) -> bytes:
        """The body: ``content`` as compact JSON."""
        return json.dumps(content, separators=(",", ":")).encode()


def answer_errors(app: FastAPI) -> None:
    """Answer the package's errors with 404 or 409, requests of a wrong form with 422.

    Any other error is a fault of this program: 500, without what the error says.
    """

    @app.exception_handler(Exception)
    def fault(request: Request, error: Exception) -> AsciiJSONResponse:
        """Answer outside of all middleware, where nothing adds the headers."""
        del request, error  # uvicorn logs it
        return AsciiJSONResponse({"detail": "internal error; the log has the reason"}, 500, HEADERS)

    @app.exception_handler(AlcError)
    def alc_error(request: Request, error: AlcError) -> AsciiJSONResponse:
        log.warning("%s %s: %s", request.method, request.url.path, error)
        status = 404 if isinstance(error, NotFoundError) else 409
        return AsciiJSONResponse({"detail": str(error)}, status)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> AsciiJSONResponse:
        """Say what is wrong and where; what was sent is not sent back, whatever bytes it has."""
        problems = [{"at": [*map(str, p["loc"])], "problem": p["msg"]} for p in error.errors()]
        return AsciiJSONResponse({"detail": problems}, 422)
