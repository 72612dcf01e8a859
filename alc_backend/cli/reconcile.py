"""``alc reconcile``: the answers whose webhooks were lost."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from alc_backend.cli.common import ProjectOption, open_store, project_id_of, telling

console = Console()


def reconcile(
    project: ProjectOption = None,
    full: Annotated[
        bool, typer.Option(help="Look at every answered task, not only at what has changed.")
    ] = False,
    accept_deletions: Annotated[
        bool, typer.Option(help="Withdraw answers even when a large share of them is gone.")
    ] = False,
) -> None:
    """Collect the answers from Label Studio, or CVAT, that webhooks lost."""
    from alc_backend.loop.rounds.platforms import platform_of

    store = open_store()
    project_id = project_id_of(store, project)
    with console.status("") as status:
        tell = telling(status)
        counts = platform_of(store, project_id).collect(
            project_id,
            full=full,
            accept_deletions=accept_deletions,
            progress=lambda done, total, message: tell(f"{message}: {done} tasks"),
        )
    console.print(", ".join(f"{count} {name}" for name, count in counts.items()) or "no answers")
