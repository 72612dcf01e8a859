"""``alc demo``."""

from __future__ import annotations

from rich.console import Console

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.settings import settings

console = Console()


def demo(options: DemoOptions) -> None:
    """Start Label Studio, the backend and a dataset; everything ends with Ctrl-C."""
    from alc_backend.cli.demo.run import run_demo

    run_demo(options, settings(), console)
