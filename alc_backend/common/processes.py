"""Processes: what code children may find, how they end, ending with one's parent, or when hung."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import subprocess
import sys
from typing import Any

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""How long a process may take to end after SIGTERM before it is killed, in seconds."""

HUNG_EXIT_CODE = 70
"""How the process of a worker ends that has hung: EX_SOFTWARE of sysexits.h."""

_SAFE = {"PYTHONSAFEPATH": "1", "NUMBA_CACHE_DIR": "", "NUMBA_CACHE_LOCATOR_CLASSES": ""}
"""Variables that Python and numba heed before any file; empty means numba's default."""

_PR_SET_PDEATHSIG = 1
"""Linux's prctl option: the signal to get when the parent dies."""


def distrust_working_folder() -> None:
    """Have this process and its children take no code from the folder that they run in.

    It may be a dataset's. There, Python would look for modules in a child that is started by
    ``-m`` or ``-c`` (before version 3.11 it still does), and numba for settings, one of which
    names a folder of compiled code. A variable that is set already stays as it is.
    """
    for name, value in _SAFE.items():
        os.environ.setdefault(name, value)


def die_with_parent() -> None:
    """Have Linux end this process when its parent dies; elsewhere, nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_hung(hung_after_minutes: float) -> None:
    """End this process, which is a worker's, at once, as if it were killed.

    Whoever started it is to start it again. Where each thread was goes to standard error.
    """
    log.critical(
        "no progress for %g minutes (ALC_HUNG_AFTER_MINUTES): this worker ends, and another one "
        "takes its work over",
        hung_after_minutes,
    )
    faulthandler.dump_traceback()
    os._exit(HUNG_EXIT_CODE)


def end(process: subprocess.Popen[Any], name: str, grace_s: float | None = None) -> None:
    """End a process and its children: by SIGTERM, after ``grace_s`` (or GRACE_S) by SIGKILL.

    The process must lead a process group of its own; ``name`` is for the log.
    """
    _signal_group(process, signal.SIGTERM)
    try:
        process.wait(GRACE_S if grace_s is None else grace_s)
    except subprocess.TimeoutExpired:
        log.warning("%s does not stop, killing it", name)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Signal a process group; nothing happens when all its processes have ended."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
