"""``alc review``: looking at what annotators answered, on pages of look-alikes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from alc_backend.cli.common import ProjectOption, open_store, print_table, project_in_label_studio
from alc_backend.settings import MOST_QUERIES

console = Console()


def review(
    project: ProjectOption = None,
    doubtful: Annotated[
        int | None,
        typer.Option(
            help="So many accepted superpixels that the newest network doubts most.",
            min=1,
            max=MOST_QUERIES,
        ),
    ] = None,
    annotator: Annotated[
        str | None, typer.Option(help="What this user (number in Label Studio) corrected.")
    ] = None,
    last: Annotated[
        int,
        typer.Option(
            help="With --annotator: so many of the last corrections.", min=1, max=MOST_QUERIES
        ),
    ] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make pages on which somebody reviews answers, and list those that wait.

    What stays ticked stays as it was answered. What is unticked is asked again at once, singly, and
    that answer decides; no answer is deleted. Label Studio hands these pages out to nobody: open
    them by the addresses that are listed. Each answer is reviewed once. With neither --doubtful nor
    --annotator, no pages are made.
    """
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.questions import reviewing

    store = open_store()
    project_id = project_in_label_studio(
        store, project, "answers are looked at again in its own jobs"
    )
    found: list[reviewing.Answered] = []
    if annotator is not None:
        found += reviewing.corrections(store, project_id, annotator, last)
    if doubtful is not None:
        found += reviewing.doubtful(store, project_id, doubtful)
    found = list(dict.fromkeys(found))
    with Client.from_settings(store.settings) as client:
        pages = reviewing.ask(store, client, project_id, found)
    if as_json:
        print(json.dumps({"pages": [asdict(page) for page in pages]}, indent=1))
        return
    if (annotator, doubtful) != (None, None) and not found:
        console.print("there is no such answer that nobody has reviewed yet")
    if not pages:
        console.print("no page waits for a review")
        return
    table = Table("answered", "tiles", "open and answer it at")
    for page in pages:
        table.add_row(page.answered, str(page.tiles), page.address)
    print_table(console, table)
