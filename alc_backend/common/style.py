"""The look that the service's pages and the reports share."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def base_style() -> str:
    """The style sheet with their colours, light and dark, their type, tables and print."""
    return files("alc_backend.common").joinpath("base.css").read_text(encoding="utf-8")
