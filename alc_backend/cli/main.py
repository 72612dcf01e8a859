"""The ``alc`` command."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from alc_backend.cli import answers, backup, doctor, export, init, simulate, weights
from alc_backend.cli.common import ProjectOption, open_store, project_id_of, telling
from alc_backend.common import logs
from alc_backend.common.version import __version__
from alc_backend.errors import AlcError, SettingsError
from alc_backend.settings import settings
from alc_backend.store.round_states import RUNNING

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
round_app = typer.Typer(no_args_is_help=True, help="Start, watch and cancel rounds.")
app.add_typer(round_app, name="round")
app.add_typer(answers.app, name="answers")
app.add_typer(weights.app, name="weights")
app.command()(init.init)
app.command()(init.pseudo)
app.command()(export.export)
app.command()(doctor.doctor)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(backup.rebuild)
app.command()(simulate.simulate)
app.command()(simulate.report)

console = Console()


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and exit code 1."""
    signal.signal(signal.SIGTERM, _leave)
    hidden: list[str] = []
    try:
        logs.configure(settings())
        hidden = settings().hidden()
        app()
    except AlcError as error:
        text = logs.redact(f"Error: {error}", hidden)
        Console(stderr=True).print(text, style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def version() -> None:
    """Show the version."""
    console.print(__version__)


@app.command()
def serve() -> None:
    """Run the service that Label Studio talks to.

    Without REDIS_URL it also runs a private Redis and one worker.
    """
    from alc_backend.service.web.run import run_service

    run_service(settings())


@app.command()
def worker(
    queues: Annotated[
        str, typer.Option(help="Queues to work on, the most urgent first.")
    ] = "publish,score,train,pseudo",
    burst: Annotated[bool, typer.Option(help="Stop when the queues are empty.")] = False,
) -> None:
    """Run a worker that trains, scores and publishes."""
    from alc_backend.service.jobs.worker import run_worker

    names = [name.strip() for name in queues.split(",") if name.strip()]
    run_worker(settings(), names, burst=burst)


@app.command()
def reconcile(
    project: ProjectOption = None,
    full: Annotated[
        bool, typer.Option(help="Look at every answered task, not only at what has changed.")
    ] = False,
    accept_deletions: Annotated[
        bool, typer.Option(help="Withdraw answers even when a large share of them is gone.")
    ] = False,
) -> None:
    """Collect the answers from Label Studio that webhooks lost."""
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.annotations import reconciliation as reconciling
    from alc_backend.loop.annotations import webhooks

    store = open_store()
    with Client.from_settings(store.settings) as client, console.status("") as status:
        counts = webhooks.drain(store, lambda: client)
        counts += reconciling.reconcile(
            store,
            client,
            project_id_of(store, project),
            full=full,
            accept_deletions=accept_deletions,
            progress=lambda done, total, message: telling(status)(f"{message}: {done} tasks"),
        )
    console.print(", ".join(f"{count} {name}" for name, count in counts.items()) or "no answers")


@round_app.command("start")
def round_start(
    project: ProjectOption = None,
    size: Annotated[
        int | None, typer.Option(help="Queries of this round; default ALC_ROUND_SIZE.", min=1)
    ] = None,
    per_image: Annotated[
        int | None, typer.Option(help="Most queries in one image; default ALC_PER_IMAGE.", min=1)
    ] = None,
    min_area: Annotated[
        int | None,
        typer.Option(
            help="Smallest superpixel to ask about, in pixels; default ALC_MIN_AREA.", min=0
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Networks for cross-fitting, 1 = the paper; default ALC_FOLDS.", min=1),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Stay until the round is open.")] = False,
) -> None:
    """Train, score and publish; a running round is not started twice."""
    from alc_backend.cli.demo.run import wait_until_open
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


@round_app.command("status")
def round_status(
    project: ProjectOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the rounds of every project, or of one."""
    from sqlalchemy import select

    from alc_backend.loop.rounds.status import summary
    from alc_backend.store.models import Round

    store = open_store()
    wanted = select(Round).order_by(Round.project_id, Round.number)
    if project is not None:
        wanted = wanted.where(Round.project_id == project_id_of(store, project))
    with store.reading() as session:
        found = session.scalars(wanted).all()
    if as_json:
        print(json.dumps({"rounds": [summary(round_) for round_ in found]}, indent=1))
        return
    if not found:
        console.print("No round yet: `alc init` makes a project, `alc round start` a round.")
        return
    table = Table("project", "round", "state", "progress", "answers", "data mIoU", "model")
    for round_ in found:
        values = summary(round_)
        progress = values["error"] or values["warning"] or values["message"]
        if round_.state in RUNNING and round_.total:
            progress = f"{round_.done}/{round_.total} {progress}"
        table.add_row(
            round_.project.name,
            str(round_.number),
            round_.state,
            progress,
            *(_shown(values[name]) for name in ("answers", "data_miou")),
            _model_quality(values),
        )
    console.print(table)


@round_app.command("cancel")
def round_cancel(project: ProjectOption = None) -> None:
    """Ask the running round to stop; starting it again goes on where it stopped."""
    from alc_backend.loop.rounds import lifecycle

    store = open_store()
    round_ = lifecycle.cancel(store, project_id_of(store, project))
    console.print(f"round {round_.number}: cancelling")


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="A dataset folder instead of the built-in sample.")
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Validation folder; default: val beside a folder train.")
    ] = None,
    auto: Annotated[
        int, typer.Option(help="Let an oracle annotator answer so many queries.", min=0)
    ] = 0,
    rounds: Annotated[int, typer.Option(help="Rounds that --auto is spread over.", min=1)] = 2,
    oracle: Annotated[str, typer.Option(help="Oracle annotator: object or pixel.")] = "object",
    stop: Annotated[bool, typer.Option("--exit", help="End after that.")] = False,
    data_dir: Annotated[Path, typer.Option(help="Folder for all state.")] = Path("alc-data/demo"),
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the rounds' figures to this file.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of Label Studio.", min=1, max=65535)] = 8080,
    backend_port: Annotated[
        int, typer.Option(help="Port of the backend.", min=1, max=65535)
    ] = 9090,
    label_studio: Annotated[
        str | None, typer.Option(help="The label-studio program, when it is elsewhere.")
    ] = None,
) -> None:
    """Start Label Studio, the backend and a dataset; everything ends with Ctrl-C."""
    from alc_backend.cli.demo.run import DemoOptions, run_demo
    from alc_backend.simulate.oracle import ORACLES

    if oracle not in ORACLES:
        raise SettingsError(f"--oracle must be one of {', '.join(ORACLES)}, not {oracle!r}")
    if val is None and data is not None and data.absolute().name == "train":
        beside = data.absolute().parent / "val"
        val = beside if beside.is_dir() else None
    options = DemoOptions(
        data_dir, data, val, auto, rounds, oracle, stop, json_file, port, backend_port,
        label_studio,
    )  # fmt: skip
    run_demo(options, settings(), console)


def _model_quality(values: dict[str, Any]) -> str:
    """Model mIoU, or what held-out answers tell in its place."""
    if values["estimated_accuracy"] is None:
        return "–" if values["model_miou"] is None else f"mIoU {values['model_miou']:.3f}"
    return (
        f"accuracy {values['estimated_accuracy']:.3f} (estimated from "
        f"{values['estimated_from_answers']} held-out answers)"
    )


def _shown(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)
