"""``alc classes``: the classes of a project, further ones, and other names for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from alc_backend.cli.common import ProjectOption, open_store, project_id_of, project_in_label_studio

if TYPE_CHECKING:
    from alc_backend.labelstudio.client import Client
    from alc_backend.store.database import Store
    from alc_backend.store.models import Project

app = typer.Typer(no_args_is_help=True, help="List, add and rename the classes of a project.")
console = Console()

IN_CVAT = "classes cannot be added or renamed; export the dataset, and make a new project of it"
"""What is not possible in a project that is asked in CVAT."""


@app.command("list")
def list_classes(project: ProjectOption = None) -> None:
    """Show the classes with their ids and the names that they had before."""
    from alc_backend.store.models import Project

    store = open_store()
    project_id = project_id_of(store, project)
    with store.reading() as session:
        row = session.get_one(Project, project_id)
    _show(row)


@app.command("add")
def add(
    names: Annotated[list[str], typer.Argument(help="The names of the new classes.")],
    project: ProjectOption = None,
) -> None:
    """Add classes after the present ones, and their labels to the label config.

    Masks that were refused because they have such a class are read in now. Questions offer it from
    the next round on.
    """
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.projects import classes

    store = open_store()
    project_id = project_in_label_studio(store, project, IN_CVAT)
    with Client.from_settings(store.settings) as client:
        _show(classes.add_classes(store, client, project_id, names))
        _read_in(store, client, project_id)


@app.command("rename")
def rename(
    old: Annotated[str, typer.Argument(help="Its present name.")],
    new: Annotated[str, typer.Argument(help="Its new name.")],
    project: ProjectOption = None,
) -> None:
    """Give a class another name; answers and masks with the old one stay valid."""
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.projects import classes

    store = open_store()
    project_id = project_in_label_studio(store, project, IN_CVAT)
    with Client.from_settings(store.settings) as client:
        _show(classes.rename_class(store, client, project_id, old, new))
        _read_in(store, client, project_id)


def _show(project: Project) -> None:
    former = {new: old for old, new in project.renamed.items()}
    for number, name in enumerate(project.classes):
        before = f" (was {former[name]})" if name in former else ""
        console.print(f"{number:3} {name}{before}", markup=False, highlight=False)


def _read_in(store: Store, client: Client, project_id: int) -> None:
    """Look once more at the annotations that could not be understood."""
    from alc_backend.loop.annotations.reconciliation import reconcile
    from alc_backend.store.models import Project

    with store.reading() as session:
        connected = session.get_one(Project, project_id).query_project is not None
    if connected:
        counts = reconcile(store, client, project_id, full=True)
        console.print(", ".join(f"{count} {name}" for name, count in counts.items()))
