"""``alc weights``: lists, downloads and verifies the files of the foundation models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from alc_backend.errors import WeightsError
from alc_backend.settings import settings

if TYPE_CHECKING:
    from alc_backend.foundation.catalogue import Weights

app = typer.Typer(no_args_is_help=True, help="The files of the foundation models.")
console = Console()

Names = Annotated[
    list[str] | None, typer.Argument(help="Names as `alc weights list` shows; default: all.")
]


@app.command("list")
def list_weights(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the models, their sizes, and which of them are there."""
    from alc_backend.foundation import weights
    from alc_backend.foundation.catalogue import WEIGHTS

    models = settings().models
    rows = [
        {
            "name": entry.name,
            "description": entry.description,
            "bytes": entry.files[0].size,
            "state": weights.state(models, entry),
            "files": [{"path": file.path, "url": file.url} for file in entry.files],
        }
        for entry in WEIGHTS.values()
    ]
    if as_json:
        print(json.dumps({"folder": str(models.absolute()), "weights": rows}, indent=1))
        return
    table = Table("name", "what it is", "size", "state")
    for row in rows:
        size = row["bytes"]
        shown = f"{size / 1e9:.1f} GB" if isinstance(size, int) else "–"
        table.add_row(str(row["name"]), str(row["description"]), shown, str(row["state"]))
    console.print(table)
    console.print(f"in {models.absolute()}", markup=False, highlight=False)


@app.command()
def download(
    names: Annotated[list[str], typer.Argument(help="Names as `alc weights list` shows.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Take the file, or the folder of files, that you have."),
    ] = None,
) -> None:
    """Fetch models, going on where an earlier attempt stopped; a wrong hash is refused."""
    from alc_backend.foundation import weights
    from alc_backend.foundation.catalogue import chosen

    models, mirror = settings().models, settings().weights_mirror
    entries = chosen(names)
    if source is not None and len(entries) != 1:
        raise WeightsError("--from goes with the name of one model")
    unproved: list[str] = []
    problems: list[str] = []
    for entry in entries:
        if source is not None:
            for file, given in weights.sources(entry, source):
                if not weights.install(models, file, given):
                    unproved.append(file.path)
        else:
            problems += _download(models, entry, mirror, unproved)
        console.print(f"{entry.name}: {weights.state(models, entry)}", highlight=False)
    if unproved:
        console.print(
            f"No hash is published for {', '.join(unproved)}: the one found was kept, and holds "
            "from now on.",
            markup=False,
            highlight=False,
        )
    if problems:
        raise WeightsError("\n".join(problems))


@app.command()
def verify(names: Names = None) -> None:
    """Compare the files that are there with the published hashes."""
    from alc_backend.foundation import weights
    from alc_backend.foundation.catalogue import chosen
    from alc_backend.foundation.weights import FileState

    models, wrong = settings().models, False
    table = Table("file", "state")
    for entry in chosen(names or []):
        for file in entry.files:
            with console.status(file.path):
                found = weights.check(models, file)
            wrong |= found == FileState.WRONG or (found == FileState.MISSING and bool(names))
            kept = ": the one found was kept, and holds from now on"
            table.add_row(file.path, f"{found}{kept if found == FileState.UNKNOWN else ''}")
    console.print(table)
    if wrong:
        raise typer.Exit(1)


def _download(models: Path, entry: Weights, mirror: str | None, unproved: list[str]) -> list[str]:
    """Fetch the files of a model; returns a sentence for each that could not be fetched.

    Files without a published hash are added to ``unproved``.
    """
    from alc_backend.foundation import weights

    problems = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        for file in entry.files:
            task = bar.add_task(file.path, total=file.size)
            try:
                proved = weights.download(
                    models,
                    file,
                    mirror=mirror,
                    progress=lambda name, done, size, task=task: bar.update(  # type: ignore[misc]
                        task, completed=done, total=size
                    ),
                )
            except WeightsError as error:
                problems.append(str(error))
            else:
                if not proved:
                    unproved.append(file.path)
    return problems
