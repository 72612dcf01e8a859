"""The ``alc`` command as a user meets it: what it prints, and its exit code."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from alc_backend.cli.main import main
from alc_backend.settings import Settings
from alc_backend.settings import settings as settings_in_force

Done = subprocess.CompletedProcess[str]


def alc(settings: Settings, *arguments: str) -> Done:
    """Run ``alc`` with these settings, beside their data folder."""
    return alc_with(settings.environment(), settings.data_dir.parent, *arguments)


def alc_with(environment: Mapping[str, str], folder: Path, *arguments: str) -> Done:
    """Run ``alc`` in ``folder`` with these environment variables and no others.

    It runs in this process, which saves the seconds that a new one takes to import everything.
    """
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with _process(environment, folder, arguments), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def alc_program(environment: Mapping[str, str], folder: Path, *arguments: str) -> Done:
    """The same in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "alc_backend.cli", *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextmanager
def _process(
    environment: Mapping[str, str], folder: Path, arguments: tuple[str, ...]
) -> Iterator[None]:
    """Let this process look like one that was just started, and as before afterwards."""
    before, handler = Path.cwd(), signal.getsignal(signal.SIGTERM)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    given = {"PATH": "/usr/bin:/bin", **environment}
    os.chdir(folder)
    root.handlers = []
    settings_in_force.cache_clear()
    try:
        with (
            mock.patch.dict(os.environ, given, clear=True),
            mock.patch.object(sys, "argv", ["alc", *arguments]),
        ):
            yield
    finally:
        os.chdir(before)
        root.handlers, root.level = handlers, level
        signal.signal(signal.SIGTERM, handler)
        settings_in_force.cache_clear()
