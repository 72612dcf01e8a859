"""One training by several processes of this machine, one for each GPU.

:func:`run` starts them and reads their messages, one JSON object a line;
:mod:`alc_backend.loop.rounds.train_process` is what runs in each of them. They meet through a file
that only this user can read, not through a port as ``torchrun`` does, and talk over the loopback
interface. Touches processes, pipes and a temporary folder; no database. Called by ``training``.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from alc_backend.common.processes import die_with_parent, end
from alc_backend.errors import CancelledError, TrainingError
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.settings import Settings

_MARK = b"alc-training:"

TRAIN_PROCESS = "alc_backend.loop.rounds.train_process"
"""What each process runs; named, not imported: only it loads the training."""


def run(settings: Settings, processes: int, report: Reporter) -> None:
    """Train the networks of a round, whose part ``report`` is about, with so many processes.

    ``report`` may raise to stop them. Raises CancelledError as it does, TrainingError with the
    error that one of them tells, or with the end of their output when one ends without telling any.
    """
    part = report.claimed
    with tempfile.TemporaryDirectory() as folder:
        errors, meeting = Path(folder) / "errors", f"{folder}/meeting"
        started: list[subprocess.Popen[bytes]] = []
        reading, writing = os.pipe()
        try:
            with errors.open("w") as sink:
                for rank in range(processes):
                    started.append(
                        subprocess.Popen(
                            [
                                sys.executable,
                                "-m",
                                TRAIN_PROCESS,
                                str(part.id),
                                str(part.claimed_by),
                                meeting,
                            ],
                            stdout=writing,
                            stderr=sink,
                            env=_environment(settings, rank, processes),
                            start_new_session=True,
                            preexec_fn=die_with_parent,
                        )
                    )
            os.close(writing)
            writing = -1
            _listen(reading, started, report)
            codes = [process.poll() for process in started]
            if any(codes) or any(process.wait() for process in started):
                raise TrainingError(
                    "a training process ended without a word; the end of its output: "
                    + errors.read_text(errors="replace")[-2000:]
                )
        finally:
            for process in started:
                end(process, "a training process")
            for pipe in (reading, writing):
                if pipe >= 0:
                    os.close(pipe)


def _listen(said: int, started: list[subprocess.Popen[bytes]], report: Reporter) -> None:
    """Pass progress on until all processes have ended, or one of them has failed."""
    rest = b""
    while True:
        ready, _, _ = select.select([said], [], [], 1.0)
        if not ready:
            if any(process.poll() for process in started):
                return  # the others would wait for it
            continue
        chunk = os.read(said, 65536)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if _MARK in line:
                words: dict[str, Any] = json.loads(line.split(_MARK, 1)[1])
                if "cancelled" in words:
                    raise CancelledError(words["cancelled"])
                if "error" in words:
                    raise TrainingError(words["error"])
                report(words["done"], words["total"], words["message"])


def _environment(settings: Settings, rank: int, processes: int) -> dict[str, str]:
    return {
        **os.environ,
        **settings.environment(),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }


def say(**words: Any) -> None:
    """Send a message to the process that called :func:`run`, by standard output."""
    print(_MARK.decode() + json.dumps(words), flush=True)
