"""One training by several processes of this machine, one for each GPU (``torchrun``).

``run`` starts them and hears what the first one says, a JSON object a line; ``python -m
alc_backend.jobs.together ROUND`` is what each of them is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from alc_backend.errors import AlcError, TrainingError
from alc_backend.jobs.processes import die_with_parent, end
from alc_backend.rounds import Reporter
from alc_backend.settings import Settings

_MARK = "alc-training:"


def run(settings: Settings, round_id: int, processes: int, report: Reporter) -> None:
    """Train the networks of a round with so many processes.

    ``report`` may raise to stop them. Raises TrainingError with what the first process says, or
    with the end of their output when they end without a word.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", __name__, str(round_id)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        started = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **settings.environment(), "OMP_NUM_THREADS": _threads(processes)},
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        said: str | None = None
        try:
            assert started.stdout is not None
            for line in started.stdout:
                if _MARK not in line:
                    continue
                words: dict[str, Any] = json.loads(line.split(_MARK, 1)[1])
                if "error" in words:
                    said = words["error"]
                else:
                    report(words["done"], words["total"], words["message"])
            code = started.wait()
        finally:
            if started.poll() is None:
                end(started, "the training")
        if code != 0:
            errors.seek(0)
            raise TrainingError(said or f"the training processes failed: {errors.read()[:2000]}")


def _threads(processes: int) -> str:
    return str(max(1, (os.cpu_count() or 1) // processes))


def main() -> None:
    """One of the processes: train, and say how it goes if it is the first."""
    import torch
    from torch import distributed

    from alc_backend import learning
    from alc_backend.settings import settings
    from alc_backend.store.database import Store
    from alc_backend.store.models import Round

    die_with_parent()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if cuda else "gloo")
    first = distributed.get_rank() == 0

    def say(**words: Any) -> None:
        if first:
            print(_MARK + json.dumps(words), flush=True)

    try:
        store = Store(settings())
        with store.reading() as session:
            round_ = session.get_one(Round, int(sys.argv[1]))
        learning.train_networks(
            store, round_, lambda done, total, message: say(done=done, total=total, message=message)
        )
    except AlcError as error:
        say(error=str(error))
        sys.exit(1)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
