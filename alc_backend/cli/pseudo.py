"""``alc pseudo``: the first label maps of new images."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from alc_backend.cli.common import ProjectOption, open_store, project_in_label_studio
from alc_backend.cli.labelling import label_waiting

console = Console()


def pseudo(
    project: ProjectOption = None,
    here: Annotated[
        bool, typer.Option(help="Label them in this process; no worker is needed.")
    ] = False,
    retry: Annotated[
        bool, typer.Option(help="Try the images again that could not be done.")
    ] = False,
    cancel: Annotated[bool, typer.Option(help="Leave the images that still wait.")] = False,
    wait: Annotated[bool, typer.Option(help="Stay until all are done.")] = True,
    box_threshold: Annotated[
        float | None,
        typer.Option(help="From now on another score that objects must exceed.", min=0, max=1),
    ] = None,
) -> None:
    """Give new images of the dataset project their first label maps, and watch.

    Ctrl-C stops watching; workers go on.
    """
    from alc_backend.foundation.warm_start import WarmStart
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.projects import image_queue
    from alc_backend.store.models import Project

    store = open_store()
    project_id = project_in_label_studio(
        store, project, "new images come by running `alc init` again"
    )
    if cancel:
        console.print(f"{image_queue.cancel(store, project_id)} waiting images were left")
        return
    if box_threshold is not None:
        with store.session() as session:
            row = session.get_one(Project, project_id)
            kept = WarmStart.of(row.warm_start).as_dict()
            row.warm_start = {**kept, "threshold": box_threshold}
    with Client.from_settings(store.settings) as client:
        noted, present = image_queue.note(store, client, project_id, retry=retry)
    console.print(f"{noted} new images, {present} already there")
    label_waiting(store, project_id, here=here, wait=wait)
