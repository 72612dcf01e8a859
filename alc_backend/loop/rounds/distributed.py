"""One training by several processes, one for each GPU: those of this machine are started here.

:func:`run` trains with this machine alone: its processes meet through a file that only this user
can read, and talk over the loopback interface. :func:`launch` starts and watches the share that a
machine has of a training, of which others (see ``nodes``) may have shares, too: it reads the
processes' messages, one JSON object a line. :mod:`alc_backend.loop.rounds.train_process` is what
runs in each of them. Touches processes, pipes and a temporary folder; no database. Called by
``training`` and ``nodes``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alc_backend.common.processes import die_with_parent, end
from alc_backend.common.types import Progress
from alc_backend.errors import CancelledError, SettingsError, TrainingError
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.settings import Settings
from alc_backend.store.models import Part

_MARK = b"alc-training:"

WATCH_EVERY_S = 1.0
"""How often it is looked whether a training still goes on, in seconds."""

LOST = 3
"""How a training process ends that has lost another one; where NCCL notices it, by SIGABRT."""

QUIET = "TORCH_CPP_LOG_LEVEL"
"""PyTorch's variable; below ERROR it prints a page of addresses for each connection that ends."""

TRAIN_PROCESS = "alc_backend.loop.rounds.train_process"
"""What each process runs; named, not imported: only it loads the training."""


class BrokenOffError(TrainingError):
    """A training process ended without a word.

    ``cause_elsewhere``: because it lost one on another machine.
    """

    def __init__(self, message: str, *, cause_elsewhere: bool) -> None:
        super().__init__(message)
        self.cause_elsewhere = cause_elsewhere


@dataclass(frozen=True)
class Share:
    """What this machine starts of a training: ``processes`` of ``world``, from rank ``first`` on.

    They meet at ``meeting``, ``file:PATH`` or ``tcp:HOST:PORT``.
    """

    meeting: str
    first: int
    processes: int
    world: int

    @property
    def is_alone(self) -> bool:
        """Whether no other machine has a share."""
        return self.processes == self.world


def processes_here(settings: Settings) -> int:
    """How many processes this machine has for a training: ALC_TRAIN_PROCESSES or one for each GPU.

    Raises SettingsError for more than it has GPUs.
    """
    import torch

    gpus = torch.cuda.device_count()
    processes = settings.train_processes or gpus or 1
    if 0 < gpus < processes:
        raise SettingsError(f"ALC_TRAIN_PROCESSES is {processes}, but this machine has {gpus} GPUs")
    return processes


def run(settings: Settings, processes: int, report: Reporter) -> None:
    """Train the networks of a round, whose part ``report`` is about, with so many processes.

    ``report`` may raise to stop them. Raises as :func:`launch` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        share = Share(f"file:{folder}/meeting", 0, processes, processes)
        launch(settings, report.claimed, share, report)


def launch(
    settings: Settings,
    part: Part,
    share: Share,
    report: Progress,
    watch: Callable[[], object] = lambda: None,
) -> None:
    """Run this machine's share of the training that is a ``part`` of a round, as it is claimed.

    ``report`` is told the progress, where the first process is here; ``watch`` is called every
    second. Both may raise to stop the processes. Raises CancelledError as they do, TrainingError
    with the error that one of them tells, BrokenOffError with the end of their output when one ends
    without telling any.
    """
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors"
        started: list[subprocess.Popen[bytes]] = []
        reading, writing = os.pipe()
        try:
            with errors.open("w") as sink:
                for index in range(share.processes):
                    started.append(
                        subprocess.Popen(
                            [
                                sys.executable,
                                "-m",
                                TRAIN_PROCESS,
                                str(part.id),
                                str(part.claimed_by),
                                share.meeting,
                            ],
                            stdout=writing,
                            stderr=sink,
                            env=_environment(settings, share, index),
                            start_new_session=True,
                            preexec_fn=die_with_parent,
                        )
                    )
            os.close(writing)
            writing = -1
            _listen(reading, started, report, watch)
            codes = [process.poll() for process in started]
            if not any(codes):
                codes = [process.wait() for process in started]
            if any(codes):
                raise BrokenOffError(
                    f"a training process ended without a word{_signal(codes)}; the end of its "
                    "output: " + errors.read_text(errors="replace")[-2000:],
                    cause_elsewhere=set(codes) <= {None, 0, LOST, -signal.SIGABRT},
                )
        finally:
            for process in started:
                end(process, "a training process")
            for pipe in (reading, writing):
                if pipe >= 0:
                    os.close(pipe)


def _listen(
    said: int,
    started: list[subprocess.Popen[bytes]],
    report: Progress,
    watch: Callable[[], object],
) -> None:
    """Pass progress on until all processes have ended, or one of them has failed."""
    rest, watched = b"", time.monotonic()
    while True:
        ready, _, _ = select.select([said], [], [], WATCH_EVERY_S)
        if ready:
            chunk = os.read(said, 65536)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                _pass_on(line, report)
        elif any(process.poll() for process in started):
            return  # the others would wait for it
        if time.monotonic() - watched >= WATCH_EVERY_S:
            watch()
            watched = time.monotonic()


def _pass_on(line: bytes, report: Progress) -> None:
    """Report the progress that a line of output tells, if any, or raise what it tells."""
    if _MARK not in line:
        return
    words: dict[str, Any] = json.loads(line.split(_MARK, 1)[1])
    if "cancelled" in words:
        raise CancelledError(words["cancelled"])
    if "error" in words:
        raise TrainingError(words["error"])
    report(words["done"], words["total"], words["message"])


def _signal(codes: list[int | None]) -> str:
    """The signal that ended one of the processes with these exit codes, for people."""
    for code in codes:
        if code is not None and code < 0:
            return f" ({signal.Signals(-code).name})"
    return ""


def _environment(settings: Settings, share: Share, index: int) -> dict[str, str]:
    """The variables of one process; which network interface others are reached by, users say."""
    cores = max(1, (os.cpu_count() or 1) // share.processes)
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return {
        **os.environ,
        **settings.environment(),
        "RANK": str(share.first + index),
        "LOCAL_RANK": str(index),
        "WORLD_SIZE": str(share.world),
        QUIET: os.environ.get(QUIET, "ERROR"),
        "OMP_NUM_THREADS": str(min(cores, int(chosen)) if chosen.isdecimal() else cores),
        **(loopback if share.is_alone else {}),
    }


def say(**words: Any) -> None:
    """Send a message to the process that called :func:`launch`, by standard output."""
    print(_MARK.decode() + json.dumps(words), flush=True)
