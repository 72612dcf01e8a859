"""``alc images``: which images belong to a dataset, taking images out, and bringing them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from alc_backend.cli.common import (
    ProjectOption,
    open_store,
    project_id_of,
    project_in_label_studio,
    telling,
)

if TYPE_CHECKING:
    from alc_backend.store.models import Image

app = typer.Typer(
    no_args_is_help=True, help="List the images of a dataset, remove some, bring some back."
)
console = Console()

IN_CVAT = "no image can be taken out of a dataset"
"""What is not possible in a project that is asked in CVAT."""

KeysArgument = Annotated[list[str], typer.Argument(help="The keys of images.")]


@app.command("list")
def list_images(
    project: ProjectOption = None,
    removed: Annotated[
        bool, typer.Option("--removed", help="Only images that are out of the dataset.")
    ] = False,
) -> None:
    """Show the keys of the images, their tasks, and why they are out of the dataset."""
    from sqlalchemy import select

    from alc_backend.store.models import TRAIN, Image

    store = open_store()
    project_id = project_id_of(store, project)
    with store.reading() as session:
        found = session.scalars(
            select(Image)
            .where(Image.project_id == project_id, Image.split == TRAIN)
            .order_by(Image.key)
        ).all()
    for image in found:
        if image.removed is not None or not removed:
            task = "no task" if image.dataset_task is None else f"task {image.dataset_task}"
            out = "" if image.removed is None else f", out of the dataset: {image.removed}"
            console.print(f"{image.key}: {task}{out}", markup=False, highlight=False)


@app.command("remove")
def remove(keys: KeysArgument, project: ProjectOption = None) -> None:
    """Take images out of the dataset: not asked about, trained on or exported any more.

    Their answers are kept. The tasks in the dataset project stay; deleting one there takes its
    image out, too.
    """
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop import image_tasks
    from alc_backend.store.kinds import Removal

    store = open_store()
    project_id = project_in_label_studio(store, project, IN_CVAT)
    images = image_tasks.images_named(store, project_id, keys)
    with Client.from_settings(store.settings) as client:
        gone = image_tasks.remove_images(store, client, project_id, images, Removal.BY_HAND)
    _say(gone, "removed; `alc images restore` brings it back", "not in the dataset anyway")


@app.command("restore")
def restore(keys: KeysArgument, project: ProjectOption = None) -> None:
    """Bring images back into the dataset; a task that was deleted is made again."""
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop import image_tasks
    from alc_backend.loop.projects.membership import restore_images

    store = open_store()
    project_id = project_in_label_studio(store, project, IN_CVAT)
    images = image_tasks.images_named(store, project_id, keys)
    with Client.from_settings(store.settings) as client, console.status("") as status:
        back = restore_images(store, client, project_id, images, telling(status))
    _say(back, "back; the next round asks about it", "in the dataset already")


def _say(images: list[Image], what: str, otherwise: str) -> None:
    for image in images:
        console.print(f"{image.key}: {what}", markup=False, highlight=False)
    if not images:
        console.print(f"none: {otherwise}")
