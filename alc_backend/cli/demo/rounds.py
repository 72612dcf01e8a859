"""The rounds of the demonstration: the first one opened, others answered by the oracle."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import select

from alc_backend.cli.demo.labeler import answer_queries
from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.start import Demo
from alc_backend.cli.round_progress import wait_until_open
from alc_backend.common.files import write_atomically
from alc_backend.loop.rounds import lifecycle
from alc_backend.loop.rounds.status import RoundSummary, latest_round
from alc_backend.service.jobs.processes import Processes
from alc_backend.store.database import Store
from alc_backend.store.models import Round
from alc_backend.store.round_states import RUNNING, RoundState


def ensure_open_round(
    demo: Demo, processes: Processes, console: Console, size: int | None
) -> Round:
    """The project's open round; starts one of ``size`` queries where none is open or running."""
    latest = latest_round(demo.store, demo.project_id)
    if latest is None or latest.state not in (RoundState.OPEN, *RUNNING):
        latest, _ = lifecycle.start(demo.store, demo.jobs.enqueue_part, demo.project_id, size=size)
    return wait_until_open(demo.store, demo.project_id, console, processes.check)


def walk_rounds(demo: Demo, options: DemoOptions, processes: Processes, console: Console) -> None:
    """Let the oracle annotator answer and train anew ``options.rounds`` times; print the rounds.

    Raises CancelledError when somebody cancels one of them.
    """
    try:
        _walk(demo, options, processes, console)
    finally:
        console.print(rounds_table(demo.store, demo.project_id))


def _walk(demo: Demo, options: DemoOptions, processes: Processes, console: Console) -> None:
    for number in range(1, options.rounds + 1):
        due = (
            options.auto * number // options.rounds - options.auto * (number - 1) // options.rounds
        )
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task(f"answering {due} queries", total=due)
            given = answer_queries(
                demo.store,
                demo.client,
                demo.project_id,
                due,
                oracle=options.oracle,
                on_answer=lambda _, bar=bar: progress.advance(bar),  # type: ignore[misc]
            )
        console.print(f"The oracle annotator answered {given} queries.")
        lifecycle.start(demo.store, demo.jobs.enqueue_part, demo.project_id, size=due)
        wait_until_open(demo.store, demo.project_id, console, processes.check)


def write_records(demo: Demo, path: Path) -> None:
    """Write each round's number, answers, data mIoU and model mIoU as JSON."""
    names = ("round", "answers", "data_miou", "model_miou")
    rounds = [
        {name: getattr(summary, name) for name in names}
        for summary in _summaries(demo.store, demo.project_id)
    ]
    content = json.dumps({"rounds": rounds}, indent=1)
    write_atomically(path, lambda part: part.write_text(content + "\n", "utf-8"))


def rounds_table(store: Store, project_id: int) -> Table:
    """The project's rounds for the terminal."""
    table = Table("round", "answers", "data mIoU", "model mIoU")
    for summary in _summaries(store, project_id):
        table.add_row(
            str(summary.round),
            "–" if summary.answers is None else str(summary.answers),
            *(
                "–" if quality is None else f"{quality:.3f}"
                for quality in (summary.data_miou, summary.model_miou)
            ),
        )
    return table


def _summaries(store: Store, project_id: int) -> list[RoundSummary]:
    with store.reading() as session:
        found = session.scalars(
            select(Round).where(Round.project_id == project_id).order_by(Round.number)
        ).all()
    return [RoundSummary.of(round_) for round_ in found]
