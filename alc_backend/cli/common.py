"""What the commands share: the store, the project that a command is about, a progress line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from alc_backend.errors import NotFoundError
from alc_backend.settings import settings

if TYPE_CHECKING:
    from alc_backend.store.database import Store

LINE_EVERY_S = 60.0
"""How often progress is printed where no terminal shows it."""

UNBOUNDED = 100_000
"""Columns: more than any table has."""

DatasetWithTruth = Annotated[
    Path | None,
    typer.Argument(
        help="Folder with images/, pseudo_labels/, objects/, ground_truth/ and classes.txt; "
        "without one, the built-in sample."
    ),
]

ProjectOption = Annotated[
    str | None, typer.Option("--project", help="Name of the project; needed with several.")
]


class MinuteLines:
    """Prints a sentence a minute to the standard error where ``console`` is no terminal.

    There, progress bars and the like show nothing.
    """

    def __init__(self, console: Console) -> None:
        self._silent = console.is_terminal
        self._console = Console(stderr=True, soft_wrap=True)
        self._last = time.monotonic()

    def __call__(self, message: str) -> None:
        """Print ``message`` as it is, unless another one was printed less than LINE_EVERY_S ago."""
        now = time.monotonic()
        if not self._silent and now - self._last >= LINE_EVERY_S:
            self._last = now
            self._console.print(message, markup=False, highlight=False)


def telling(status: Status) -> Callable[[str], None]:
    """A function that shows a sentence in ``status`` as it is, even if it looks like markup.

    Where that shows nothing, it prints one a minute.
    """
    lines = MinuteLines(status.console)

    def tell(message: str) -> None:
        status.update(Text(message))
        lines(message)

    return tell


def progress_bar() -> Progress:
    """A bar on the terminal; nothing where there is none."""
    shown_by = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=shown_by,
        disable=not shown_by.is_terminal,
    )


def print_problems(console: Console, problems: Iterable[str], notes: Iterable[str] = ()) -> None:
    """Print what was left out of a dataset, and what to check because it was only assumed."""
    for problem in problems:
        console.print(f"left out: {problem}", markup=False, highlight=False)
    for note in notes:
        console.print(f"please check: {note}", markup=False, highlight=False)


def print_table(console: Console, table: Table) -> None:
    """Print a table as wide as it needs to be where ``console`` is no terminal.

    A file or a pipe has no width, and whatever was cut to fit one would be lost.
    """
    shown_by = console if console.is_terminal else Console(file=console.file, width=UNBOUNDED)
    shown_by.print(table)


def open_store() -> Store:
    """The store that the settings name."""
    from alc_backend.store.database import Store

    return Store(settings())


def project_id_of(store: Store, name: str | None) -> int:
    """The id of the named project or, without a name, of the only one; NotFoundError otherwise."""
    from sqlalchemy import select

    from alc_backend.store.models import Project

    with store.reading() as session:
        known = {project.name: project.id for project in session.scalars(select(Project))}
    if name is not None:
        if name not in known:
            raise NotFoundError(
                f"there is no project {name!r}; known: {', '.join(known) or 'none'}"
            )
        return int(known[name])
    if not known:
        raise NotFoundError("there is no project yet; make one with `alc init`")
    if len(known) > 1:
        raise NotFoundError(
            f"there are several projects; name one with --project: {', '.join(known)}"
        )
    return int(next(iter(known.values())))


def project_in_label_studio(store: Store, name: str | None, otherwise: str) -> int:
    """The id of a project, as :func:`project_id_of` gives it.

    Raises RoundError where it is asked in CVAT, saying what is not possible there: ``otherwise``.
    """
    from alc_backend.loop.workplace import refuse_in_cvat

    project_id = project_id_of(store, name)
    with store.reading() as session:
        refuse_in_cvat(session, project_id, otherwise)
    return project_id
