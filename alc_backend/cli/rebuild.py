"""``alc rebuild``: a lost store made again from Label Studio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from alc_backend.cli.common import open_store, print_problems, telling
from alc_backend.cli.warm_start import OBJECTS, is_filled, open_with, warm_start
from alc_backend.settings import MOST_SUPERPIXELS

console = Console()


def rebuild(
    data: Annotated[Path, typer.Argument(help="The dataset folder that the project was made of.")],
    dataset_project: Annotated[
        int, typer.Option(help="Number of the dataset project in Label Studio.", min=1)
    ],
    query_project: Annotated[
        int, typer.Option(help="Number of the query project in Label Studio.", min=1)
    ],
    val: Annotated[
        Path | None, typer.Option(help="Folder with images and ground truth for validation.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="As `alc init` had it beside an export.")
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help="As `alc init` had it.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="As `alc init` had it beside an export.")
    ] = None,
    superpixels: Annotated[
        str,
        typer.Option(
            help="As `alc init` had it: objects (or else slic), slic, seeds, sam, or grounded-sam."
        ),
    ] = OBJECTS,
    superpixel_count: Annotated[
        int,
        typer.Option(
            help="Superpixels per image, as `alc init` had it.", min=1, max=MOST_SUPERPIXELS
        ),
    ] = 100,
    fill: Annotated[
        str | None, typer.Option(help="slic, where `alc init` had it: SLIC covers the rest.")
    ] = None,
    box_threshold: Annotated[
        float | None, typer.Option(help="As `alc init` had it, with grounded-sam.", min=0, max=1)
    ] = None,
) -> None:
    """Make a lost store again from Label Studio and the initial label maps.

    The superpixels must be those that the queries show, made by the same options as at first.
    """
    from alc_backend.datasets.layouts import open_dataset
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.exports import rebuild as rebuilding

    filled = is_filled(fill)
    store = open_store()
    start = warm_start(store.settings, superpixels, superpixel_count, filled, box_threshold, True)
    with Client.from_settings(store.settings) as client, console.status("") as status:
        made = rebuilding.rebuild_project(
            store,
            client,
            open_with(
                data,
                superpixels,
                start,
                store.settings,
                images=images,
                classes=classes,
                format_name=format_name,
            ),
            dataset_project,
            query_project,
            validation=None if val is None else open_dataset(val, validation=True),
            warm_start=start.as_dict(),
            report=telling(status),
        )
    print_problems(console, made.problems, made.notes)
    counts = ", ".join(f"{count} {name}" for name, count in made.counts.items())
    console.print(
        f"{made.images} images, {made.queries} queries and {made.pages} pages of {made.rounds} "
        f"rounds, annotations: {counts or 'none'}; {len(made.problems)} problems",
        highlight=False,
        soft_wrap=True,
    )
    if made.problems:
        raise typer.Exit(1)
