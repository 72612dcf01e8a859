"""What several tests do with the running demonstration."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
from rich.console import Console

from alc_backend.cli.round_progress import wait_until_open
from alc_backend.store.models import Project

IMAGES, HELD_OUT = 16, 4
"""Images of the tests' sample: a quarter of what `alc demo` writes, so that rounds are short."""


def alc(demo, *arguments: str, status: int = 0, **environment: str) -> str:
    """What a command says: its output, its error output when it is to fail."""
    done = subprocess.run(
        [sys.executable, "-m", "alc_backend.cli", *arguments],
        env={**os.environ, **demo.settings.environment(), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


def is_up(url: str) -> bool:
    """Whether something answers at an address."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def wait_open(demo, processes):
    """The demonstration's round, once it is open."""
    return wait_until_open(demo.store, demo.project_id, Console(quiet=True), processes.check)


def project_row(demo) -> Project:
    """The demonstration's project in the store."""
    with demo.store.reading() as session:
        return session.get_one(Project, demo.project_id)


def retrieve_predictions(demo, project: int, task: int) -> None:
    """What the Data Manager's "Retrieve predictions" does."""
    demo.client.post(
        "/api/dm/actions",
        {"selectedItems": {"all": False, "included": [task]}},
        id="retrieve_tasks_predictions",
        project=project,
    )
