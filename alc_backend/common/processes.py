"""Ending child processes, and dying with one's parent."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
from typing import Any

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


GRACE_S = 5.0
"""How long a process may take to end by itself before it is killed."""


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent is killed (elsewhere: nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end(process: subprocess.Popen[Any], name: str) -> None:
    """End a process and what it started: kindly, then by force."""
    _signal_group(process, signal.SIGTERM)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        log.warning("%s does not stop, killing it", name)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Signal a process and what it started; nothing happens when all have ended."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
