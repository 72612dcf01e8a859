"""The ``alc`` command: its parts joined, and how it ends."""

from __future__ import annotations

import signal
import sys

import typer
from rich.console import Console

from alc_backend.cli import (
    answers,
    backup,
    classes,
    doctor,
    export,
    images,
    init,
    pseudo,
    rebuild,
    reconcile,
    report,
    review,
    rounds,
    secret,
    serve,
    simulate,
    study,
    version,
    weights,
)
from alc_backend.cli.demo.command import demo
from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.options import command_of
from alc_backend.cli.simulate_options import SimulateOptions
from alc_backend.common import logs
from alc_backend.common.private import private_files
from alc_backend.common.processes import distrust_working_folder
from alc_backend.errors import AlcError
from alc_backend.settings import settings

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.add_typer(rounds.app, name="round")
app.add_typer(answers.app, name="answers")
app.add_typer(classes.app, name="classes")
app.add_typer(images.app, name="images")
app.add_typer(weights.app, name="weights")
app.add_typer(secret.app, name="secret")
app.add_typer(study.app, name="study")
app.command()(command_of(init.init, init.InitOptions))
app.command()(pseudo.pseudo)
app.command()(export.export)
app.command()(doctor.doctor)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(rebuild.rebuild)
app.command()(command_of(simulate.simulate, SimulateOptions))
app.command()(report.report)
app.command()(review.review)
app.command()(version.version)
app.command()(serve.serve)
app.command()(serve.worker)
app.command()(reconcile.reconcile)
app.command()(command_of(demo, DemoOptions))


FOR_OTHERS = (["export"], ["report"], ["simulate"])
"""The commands that write results, which others may read as the user's umask says."""


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and exit code 1."""
    signal.signal(signal.SIGTERM, _leave)
    distrust_working_folder()
    hidden: list[str] = []
    try:
        logs.configure(settings())
        hidden = settings().hidden()
        with private_files(unless=sys.argv[1:2] in FOR_OTHERS):
            app()
    except AlcError as error:
        text = logs.redact(f"Error: {error}", hidden)
        Console(stderr=True).print(text, style="red", markup=False, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)
