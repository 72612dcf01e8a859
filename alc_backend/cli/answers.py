"""``alc answers``: the history of the ledger, undoing, agreement."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from alc_backend.cli.common import ProjectOption, open_store, project_id_of

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
    entries = history.log(
        store,
        project_id_of(store, project),
        images=None if image is None else [image],
        annotator=annotator,
        last=last,
    )
    if as_json:
        print(json.dumps({"answers": entries}, indent=1))
        return
    table = Table("answer", "when", "by", "image", "superpixel", "what", "pixels", "round", "")
    for entry in entries:
        table.add_row(
            str(entry["answer"]),
            entry["recorded_at"],
            entry["annotator"],
            entry["image"],
            str(entry["superpixel"]),
            _what(entry),
            _shown(entry["pixels"]),
            str(entry["round"]),
            "" if entry["in_force"] else "no longer counts",
        )
    console.print(table)


@app.command("revert")
def revert(
    answer: Annotated[int, typer.Argument(help="Its number in `alc answers log`.")],
    project: ProjectOption = None,
) -> None:
    """Undo an answer: its annotation is deleted in Label Studio, and the question asked again."""
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.annotations import history

    store = open_store()
    with Client.from_settings(store.settings) as client:
        undone = history.revert(store, client, project_id_of(store, project), answer)
    console.print(f"answer {undone.id} (annotation {undone.annotation_id}) is undone")


@app.command("agreement")
def agreement(project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show how far annotators agree who were asked the same."""
    from alc_backend.loop.annotations import history

    store = open_store()
    found = history.agreed(store, project_id_of(store, project))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    console.print(f"{found['overlap']} annotators are asked each query")
    if found["items"]:
        share = found["unanimous"] / found["items"]
        alpha = "" if found["alpha"] is None else f", Krippendorff's alpha {found['alpha']:.3f}"
        console.print(
            f"{found['items']} queries were answered by two or more: {found['unanimous']} of them "
            f"the same way ({share:.1%}){alpha}"
        )
    console.print(
        f"{found['waiting']} wait for another annotator, {found['disputed']} are disputed"
    )
    table = Table("annotator", "accept", "correct", "skip", "edit")
    for name, counts in found["annotators"].items():
        table.add_row(name, *(str(counts.get(k, 0)) for k in ("accept", "correct", "skip", "edit")))
    console.print(table)


def _what(entry: dict[str, Any]) -> str:
    before, after = entry["before"] or "–", entry["after"] or "–"
    return {
        "accept": f"accepts {after}",
        "skip": f"skips {before}",
        "deleted": f"withdrawn ({before})",
    }.get(entry["kind"], f"{entry['kind']}: {before} → {after}")


def _shown(value: int | None) -> str:
    return "–" if value is None else str(value)
