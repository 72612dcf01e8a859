"""``alc report``: a page of simulations' results, or of a live project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from alc_backend.cli.common import ProjectOption, open_store, project_id_of, telling
from alc_backend.errors import SettingsError

console = Console()


def report(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Results that `alc simulate --json` wrote.")
    ] = None,
    project: ProjectOption = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html and the plots.")] = Path(
        "report"
    ),
) -> None:
    """Make a page of simulations' results or, without any, of a live project.

    Each plot is written beside it, as PNG and as CSV.
    """
    from alc_backend.loop.exports import report as live_report
    from alc_backend.simulate.report import documents, page

    if files and project is not None:
        raise SettingsError("give either results of simulations or --project")
    if files:
        stems = [path.stem for path in files]
        names = stems if len(set(stems)) == len(stems) else [str(path) for path in files]
        read = [(name, documents.read(path)) for name, path in zip(names, files, strict=True)]
        document, title = documents.together(read), "Active Label Correction, simulated"
    else:
        store = open_store()
        project_id = project_id_of(store, project)
        with console.status("") as status:
            tell = telling(status)
            document = live_report.document(
                store, project_id, lambda done, total, message: tell(message)
            )
        title = f"Active Label Correction of {document['rows'][0]['label']}"
    path = page.write(document, title, out)
    console.print(f"written to {path}", markup=False)
