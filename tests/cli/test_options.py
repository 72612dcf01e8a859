from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer.testing import CliRunner

from alc_backend.cli.options import command_of


@dataclass(frozen=True)
class Options:
    source: Annotated[Path, typer.Argument(help="Where from.")]
    count: Annotated[int, typer.Option(help="How many.", min=1)] = 3
    loud: Annotated[bool, typer.Option("--loud", help="Say so.")] = False


def test_a_command_takes_its_options_from_the_fields_of_a_class():
    given = []

    def shout(options: Options) -> None:
        """Shout."""
        given.append(options)

    app = typer.Typer()
    app.command()(command_of(shout, Options))
    runner = CliRunner()
    assert runner.invoke(app, ["a"]).exit_code == 0
    assert runner.invoke(app, ["b", "--count", "7", "--loud"]).exit_code == 0
    assert given == [Options(Path("a")), Options(Path("b"), 7, True)]
    for wrong in ([], ["a", "--count", "0"], ["a", "--quiet"]):
        assert runner.invoke(app, wrong).exit_code == 2
    shown = runner.invoke(app, ["--help"]).stdout
    assert "Shout." in shown
    assert "How many." in shown
