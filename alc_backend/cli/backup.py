"""`alc backup`, `alc restore` and `alc rebuild`."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from alc_backend.cli.common import open_store, telling
from alc_backend.cli.init import OBJECTS, is_filled, open_with, warm_start
from alc_backend.settings import settings

console = Console()


class Networks(str, Enum):
    """Which rounds' networks a backup holds."""

    last = "last"
    all = "all"
    none = "none"


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write, for example alc.tar.")],
    networks: Annotated[
        Networks, typer.Option(help="The networks of each project's last round, of all, or none.")
    ] = Networks.last,
) -> None:
    """Write database, images, label maps and networks into one file; work may go on."""
    from alc_backend.loop.exports import backup as backups

    with _progress() as bar:
        made = backups.backup(open_store(), file, networks=networks.value, progress=_shown_by(bar))
    for name in made.missing:
        console.print(f"missing: {name}", markup=False, highlight=False)
    console.print(
        f"{made.path}: {made.rows} rows, {made.files} files, {made.size / 2**20:.1f} MiB",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if made.missing:
        console.print(
            f"{len(made.missing)} files that the database names are not there. The backup without "
            f"them is {made.path}; {file} was not written",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)


def restore(
    file: Annotated[Path, typer.Argument(help="What `alc backup` wrote.")],
) -> None:
    """Bring a backup back, into a new ALC_DATA_DIR (and ALC_FILES_URL, DATABASE_URL)."""
    from alc_backend.loop.exports import backup as backups

    with _progress() as bar:
        made = backups.restore(settings(), file, progress=_shown_by(bar))
    console.print(
        f"{made.rows} rows and {made.files} files restored; `alc doctor` looks at the rest",
        highlight=False,
    )


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
    superpixels: Annotated[
        str,
        typer.Option(help="As `alc init` had it: objects (or else slic), slic, or sam."),
    ] = OBJECTS,
    superpixel_count: Annotated[
        int, typer.Option(help="SLIC superpixels per image, as `alc init` had it.", min=1)
    ] = 100,
    fill: Annotated[
        str | None, typer.Option(help="slic, where `alc init` had it: SLIC covers the rest.")
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
    start = warm_start(store.settings, superpixels, superpixel_count, filled, None, data)
    with Client.from_settings(store.settings) as client, console.status("") as status:
        made = rebuilding.rebuild(
            store,
            client,
            open_with(data, superpixels, start, store.settings),
            dataset_project,
            query_project,
            validation=None if val is None else open_dataset(val, validation=True),
            warm_start=start.as_dict(),
            report=telling(status),
        )
    for problem in made.problems:
        console.print(f"left out: {problem}", markup=False, highlight=False)
    counts = ", ".join(f"{count} {name}" for name, count in made.counts.items())
    console.print(
        f"{made.images} images, {made.queries} queries of {made.rounds} rounds, annotations: "
        f"{counts or 'none'}; {len(made.problems)} problems",
        highlight=False,
    )
    if made.problems:
        raise typer.Exit(1)


def _progress() -> Progress:
    return Progress(BarColumn(), TextColumn("{task.description}"), console=console, transient=True)


def _shown_by(bar: Progress) -> Callable[[int, int, str], None]:
    task = bar.add_task("", total=1)

    def show(done: int, total: int, message: str) -> None:
        bar.update(task, completed=done, total=total, description=message)

    return show
