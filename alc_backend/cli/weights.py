"""``alc weights``: lists, downloads and verifies the files of the foundation models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from alc_backend.errors import WeightsError
from alc_backend.settings import settings

app = typer.Typer(no_args_is_help=True, help="The files of the foundation models.")
console = Console()

Names = Annotated[
    list[str] | None, typer.Argument(help="Names as `alc weights list` shows; default: all.")
]


@app.command("list")
def list_weights(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the models, their sizes and licences, and which of them are there."""
    from alc_backend.foundation import weights
    from alc_backend.foundation.catalogue import MODELS

    models = settings().models
    rows = [
        {
            "name": model.name,
            "role": str(model.role),
            "description": model.description,
            "bytes": model.size,
            "licence": model.licence,
            "compared": model.compared,
            "state": weights.state(models, model),
            "hashes": weights.hashes(models, model),
            "repository": model.repository,
            "files": list(model.files),
            "original": model.original.url if model.original else None,
        }
        for model in MODELS.values()
    ]
    if as_json:
        print(json.dumps({"folder": str(models.absolute()), "weights": rows}, indent=1))
        return
    table = Table(
        Column("name", no_wrap=True),
        "what it is",
        "compared",
        "licence",
        Column("hash", no_wrap=True),
    )
    table.add_column("size", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for model in MODELS.values():
        digests = weights.hashes(models, model).values()
        table.add_row(
            model.name,
            f"{model.role}: {model.description}",
            model.compared,
            model.licence,
            "\n".join(sorted(digest[:8] for digest in digests)) or "–",
            f"{model.size / 1e9:.2g} GB",
            weights.state(models, model),
        )
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

    models = settings().models
    wanted = chosen(names)
    if source is not None and len(wanted) != 1:
        raise WeightsError("--from goes with the name of one model")
    problems: list[str] = []
    for model in wanted:
        try:
            if source is not None:
                weights.install(models, model, source)
            else:
                weights.download(models, model)
        except WeightsError as error:
            problems.append(str(error))
        console.print(f"{model.name}: {weights.state(models, model)}", highlight=False)
    if problems:
        raise WeightsError("\n".join(problems))


@app.command()
def verify(names: Names = None) -> None:
    """Compare the files that are there with the hashes that are published or kept."""
    from alc_backend.foundation import weights
    from alc_backend.foundation.catalogue import chosen
    from alc_backend.foundation.weights import FileState

    models, wrong = settings().models, False
    table = Table("file", "state")
    for model in chosen(names or []):
        with console.status(model.name):
            states = weights.check(models, model)
        for name, found in states.items():
            wrong |= found == FileState.WRONG or (found == FileState.MISSING and bool(names))
            kept = ": the one found was kept, and holds from now on"
            table.add_row(
                f"{model.name}/{name}", f"{found}{kept if found == FileState.UNKNOWN else ''}"
            )
    console.print(table)
    if wrong:
        raise typer.Exit(1)
