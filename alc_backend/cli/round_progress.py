"""The progress bar of a running round."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from alc_backend.cli.common import MinuteLines
from alc_backend.common.durations import duration
from alc_backend.errors import CancelledError, RoundError
from alc_backend.loop.rounds.status import RoundSummary, latest_round, workers
from alc_backend.store.database import Store
from alc_backend.store.models import Round
from alc_backend.store.round_states import RUNNING, RoundState

POLL_S = 0.3


def wait_until_open(
    store: Store, project_id: int, console: Console, check: Callable[[], None] = lambda: None
) -> Round:
    """The project's latest round once it is open; shows its progress until then.

    ``check`` is called again and again meanwhile, and may raise to end the waiting. Raises
    RoundError when there is no round, or when it fails, and CancelledError when it is cancelled.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[what]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=1, what="")
        lines = MinuteLines(console)
        while True:
            check()
            round_ = latest_round(store, project_id)
            if round_ is None:
                raise RoundError("no round was started; run `alc round start`")
            if round_.state not in RUNNING:
                break
            description, what = f"round {round_.number}: {round_.state}", _what(store, round_)
            progress.update(
                bar,
                description=description,
                completed=round_.done,
                total=round_.total or 1,
                what=what,
            )
            lines(f"{description}, {round_.done} of {round_.total}: {what}")
            time.sleep(POLL_S)
    if round_.state == RoundState.CANCELLED:
        raise CancelledError(f"round {round_.number} was cancelled; started again, it goes on")
    if round_.state != RoundState.OPEN:
        raise RoundError(f"round {round_.number} {round_.state}: {round_.error}")
    return round_


def _what(store: Store, round_: Round) -> str:
    """What happens in a running round, and how long it will take."""
    if not workers(store, round_):
        return round_.message or "waiting for a worker (`alc serve` or `alc worker`)"
    eta = RoundSummary.of(round_).eta_s
    return round_.message + (f", {duration(eta)} left" if eta is not None else "")
