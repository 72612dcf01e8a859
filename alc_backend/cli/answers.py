"""``alc answers``: who answered what, undoing an answer, and how far annotators agree."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from alc_backend.cli.common import ProjectOption, open_store, print_table, project_id_of

if TYPE_CHECKING:
    from alc_backend.loop.annotations.history import HistoryLine, Undone

app = typer.Typer(
    no_args_is_help=True, help="Show who answered what, undo an answer, measure agreement."
)
console = Console()

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("log")
def log(
    project: ProjectOption = None,
    image: Annotated[str | None, typer.Option(help="Only answers about this image.")] = None,
    annotator: Annotated[
        str | None, typer.Option(help="Only answers of this user (number in Label Studio).")
    ] = None,
    last: Annotated[int, typer.Option(help="Only so many of the last answers.", min=1)] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show who changed which superpixel from what to what, and when."""
    from alc_backend.loop.annotations import history

    store = open_store()
    lines = history.list_entries(
        store,
        project_id_of(store, project),
        images=None if image is None else [image],
        annotator=annotator,
        last=last,
    )
    if as_json:
        print(json.dumps({"answers": [asdict(line) for line in lines]}, indent=1))
        return
    table = Table("answer", "when", "by", "image", "superpixel", "what", "pixels", "round", "")
    for line in lines:
        table.add_row(
            str(line.answer),
            line.recorded_at,
            line.annotator,
            line.image,
            str(line.superpixel),
            _what(line),
            "–" if line.pixels is None else str(line.pixels),
            str(line.round),
            "" if line.in_force else "no longer counts",
        )
    print_table(console, table)


@app.command("revert")
def revert(
    answers: Annotated[list[int], typer.Argument(help="Their numbers in `alc answers log`.")],
    project: ProjectOption = None,
) -> None:
    """Undo answers: their annotations are deleted in Label Studio, and the questions asked again.

    An answer on a page is undone with the whole page, which is one annotation; what the machine
    wrote by itself with its whole batch, of which Label Studio knows nothing. What cannot be undone
    is told, and stops no other.
    """
    from alc_backend.errors import NotFoundError, RoundError
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.annotations import history

    store = open_store()
    project_id = project_id_of(store, project)
    refused: list[str] = []
    undone_with_others: set[int] = set()
    with ExitStack() as opened:
        client = cache(lambda: opened.enter_context(Client.from_settings(store.settings)))
        for answer in dict.fromkeys(answers):
            if answer in undone_with_others:
                continue
            try:
                undone = history.revert(store, client, project_id, answer)
            except (NotFoundError, RoundError) as error:
                refused.append(str(error))
                continue
            undone_with_others.update(undone.entries)
            console.print(_undone(undone))
    if refused:
        raise RoundError("; ".join(refused))


def _undone(undone: Undone) -> str:
    """What was undone, in a sentence."""
    entry, others = undone.entry, len(undone.entries) - 1
    if entry.is_by_machine:
        return f"batch {-entry.annotation_id} of the machine is undone: {others + 1} labels"
    with_page = f", and so are the {others} other answers of its page" if others else ""
    return f"answer {entry.id} (annotation {entry.annotation_id}) is undone{with_page}"


@app.command("agreement")
def agreement(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show how far annotators agree who were asked the same."""
    from alc_backend.loop.annotations import history

    store = open_store()
    team = history.team_agreement(store, project_id_of(store, project))
    if as_json:
        print(json.dumps(team.as_json(), indent=1))
        return
    console.print(f"{team.overlap} annotators are asked each query")
    among = team.among
    if among.items:
        alpha = "" if among.alpha is None else f", Krippendorff's alpha {among.alpha:.3f}"
        console.print(
            f"{among.items} queries were answered by two or more: {among.unanimous} of them "
            f"the same way ({among.unanimous / among.items:.1%}){alpha}"
        )
    console.print(f"{team.waiting} wait for another annotator, {team.disputed} are disputed")
    kinds = ("accept", "correct", "ruled out", "skip", "edit")
    table = Table("annotator", *kinds)
    for name, counts in team.annotators.items():
        table.add_row(name, *(str(counts.get(kind, 0)) for kind in kinds))
    print_table(console, table)


def _what(line: HistoryLine) -> str:
    """What an entry of the ledger does, in words."""
    before, after = line.before or "–", line.after or "–"
    told = {
        "accept": f"accepts {after}",
        "ruled out": f"rules out {line.proposed} ({before})",
        "skip": f"skips {before}",
        "deleted": f"withdrawn ({before})",
        "reviewed": f"reviews {line.proposed}: " + ("leaves it" if line.after else "doubts it"),
        "machine": f"machine, batch {-line.annotation}: {before} → {after}",
    }.get(line.kind, f"{line.kind}: {before} → {after}")
    on_page = line.position and line.annotation > 0
    return f"{told} (tile {line.position})" if on_page else told
