"""The style, the scripts and the icon of the pages, as files that browsers keep."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import APIRouter, HTTPException, Response

from alc_backend.common.style import base_style

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

NAMES = (
    "icon.svg",
    "pages.css",
    "pages.js",
    "vendor/htmx.min.js",
    "vendor/uplot.min.css",
    "vendor/uplot.min.js",
    "viewer.js",
)
"""All files that are served; their addresses change with their content."""

KEEP = {"Cache-Control": "private, max-age=31536000, immutable"}


def static_router() -> APIRouter:
    """The files below /static."""
    router = APIRouter(include_in_schema=False)

    @router.get("/static/{name:path}")
    def static(name: str) -> Response:
        if name not in NAMES:
            raise HTTPException(404, "there is no such file")
        return Response(_content(name), 200, KEEP, TYPES[PurePosixPath(name).suffix])

    return router


def address(name: str, prefix: str) -> str:
    """Where the file ``name`` of NAMES is, below the path ``prefix`` of a proxy."""
    version = hashlib.sha256(_content(name)).hexdigest()[:12]
    return f"{prefix}/static/{name}?{version}"


@cache
def _content(name: str) -> bytes:
    content = files("alc_backend.service.web").joinpath("static", name).read_bytes()
    return base_style().encode() + content if name == "pages.css" else content
