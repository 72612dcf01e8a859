"""``alc round``: starting, watching and cancelling rounds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from alc_backend.cli.common import ProjectOption, open_store, print_table, project_id_of
from alc_backend.common.durations import duration
from alc_backend.settings import MOST_AREA, MOST_FOLDS, MOST_QUERIES
from alc_backend.store.round_states import RUNNING

if TYPE_CHECKING:
    from alc_backend.loop.rounds.status import RoundSummary

app = typer.Typer(no_args_is_help=True, help="Start, watch and cancel rounds.")
console = Console()


@app.command()
def start(
    project: ProjectOption = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Queries of this round; default ALC_ROUND_SIZE.", min=1, max=MOST_QUERIES
        ),
    ] = None,
    per_image: Annotated[
        int | None,
        typer.Option(
            help="Most queries in one image; default ALC_PER_IMAGE.", min=1, max=MOST_QUERIES
        ),
    ] = None,
    min_area: Annotated[
        int | None,
        typer.Option(
            help="Smallest superpixel to ask about, in pixels; default ALC_MIN_AREA.",
            min=0,
            max=MOST_AREA,
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Networks for cross-fitting, 1 = the paper; default ALC_FOLDS.",
            min=1,
            max=MOST_FOLDS,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Stay until the round is open.")] = False,
) -> None:
    """Train, score and publish; a running round is not started twice."""
    from alc_backend.cli.round_progress import wait_until_open
    from alc_backend.loop.rounds import lifecycle
    from alc_backend.service.jobs.queues import Jobs, connect

    store = open_store()
    jobs = Jobs(store.settings, connect(store.settings))
    project_id = project_id_of(store, project)
    round_, started = lifecycle.start(
        store,
        jobs.enqueue_part,
        project_id,
        size=size,
        per_image=per_image,
        min_area=min_area,
        folds=folds,
    )
    if started:
        console.print(f"round {round_.number} started ({round_.state})")
    else:
        console.print(f"round {round_.number} is running already ({round_.state})")
    if wait:
        wait_until_open(store, project_id, console)


@app.command()
def status(
    project: ProjectOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the rounds of every project, or of one."""
    from sqlalchemy import select

    from alc_backend.loop.rounds.status import RoundSummary
    from alc_backend.store.models import Round

    store = open_store()
    wanted = select(Round).order_by(Round.project_id, Round.number)
    if project is not None:
        wanted = wanted.where(Round.project_id == project_id_of(store, project))
    with store.reading() as session:
        found = session.scalars(wanted).all()
    if as_json:
        shown = [RoundSummary.of(round_).as_json() for round_ in found]
        print(json.dumps({"rounds": shown}, indent=1))
        return
    if not found:
        console.print("No round yet: `alc init` makes a project, `alc round start` a round.")
        return
    table = Table("project", "round", "state", "progress", "answers", "data mIoU", "model")
    for round_ in found:
        summary = RoundSummary.of(round_)
        progress = summary.error or summary.warning or summary.message
        if summary.state in RUNNING and summary.total:
            progress = f"{summary.done}/{summary.total} {progress}"
            if summary.eta_s is not None:
                progress += f", {duration(summary.eta_s)} left"
        table.add_row(
            round_.project.name,
            str(summary.round),
            summary.state,
            progress,
            _shown(summary.answers),
            _shown(summary.data_miou),
            _model_quality(summary),
        )
    print_table(console, table)


@app.command()
def cancel(project: ProjectOption = None) -> None:
    """Ask the running round to stop; starting it again goes on where it stopped."""
    from alc_backend.loop.rounds import lifecycle

    store = open_store()
    round_ = lifecycle.cancel(store, project_id_of(store, project))
    console.print(f"round {round_.number}: cancelling")


def _model_quality(summary: RoundSummary) -> str:
    """The model mIoU or, where that is unknown, the accuracy estimated from held-out answers."""
    if summary.estimated_accuracy is None:
        return "–" if summary.model_miou is None else f"mIoU {summary.model_miou:.3f}"
    return (
        f"accuracy {summary.estimated_accuracy:.3f} (estimated from "
        f"{summary.estimated_from_answers} held-out answers)"
    )


def _shown(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
