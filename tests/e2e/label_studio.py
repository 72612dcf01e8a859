"""A Label Studio whose database is migrated already: its first start alone takes a minute."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.processes import label_studio_command, migrated

LIMIT_S = 600


def copy_migrated(options: DemoOptions) -> None:
    """Give a demonstration that was never started a Label Studio without users and projects.

    What is copied lies beside the installed Label Studio, and is made when it is not there yet.
    """
    program = Path(label_studio_command(options.label_studio))
    shutil.copytree(_template(program, migrated(program)), options.data_dir / "label-studio")


def _template(program: Path, folder: Path) -> Path:
    """The data folder of this version of Label Studio after its migrations."""
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may be making it
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
                _migrate(program, Path(unfinished) / "data")
                (Path(unfinished) / "data").rename(folder)
    return folder


def _migrate(program: Path, folder: Path) -> None:
    """Let Label Studio make its database, which every one of its commands does first."""
    print("\nmaking Label Studio's database, once for all runs (a minute)", file=sys.__stderr__)
    environment = {"COLLECT_ANALYTICS": "false", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
    done = subprocess.run(
        [str(program), "version", "--data-dir", str(folder)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
