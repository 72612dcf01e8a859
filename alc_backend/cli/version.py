"""``alc version``."""

from __future__ import annotations

from rich.console import Console

from alc_backend.common.version import __version__


def version() -> None:
    """Show the version."""
    Console().print(__version__)
