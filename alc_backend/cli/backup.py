"""``alc backup`` and ``alc restore``."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from alc_backend.cli.common import open_store
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

    kept = backups.Networks(networks.value)
    with _progress() as bar:
        made = backups.write_backup(open_store(), file, networks=kept, progress=_shown_by(bar))
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
    from alc_backend.loop.exports.restore import restore_backup

    with _progress() as bar:
        made = restore_backup(settings(), file, progress=_shown_by(bar))
    console.print(
        f"{made.rows} rows and {made.files} files restored; `alc doctor` looks at the rest",
        highlight=False,
    )


def _progress() -> Progress:
    return Progress(BarColumn(), TextColumn("{task.description}"), console=console, transient=True)


def _shown_by(bar: Progress) -> Callable[[int, int, str], None]:
    task = bar.add_task("", total=1)

    def show(done: int, total: int, message: str) -> None:
        bar.update(task, completed=done, total=total, description=message)

    return show
