"""``alc init --cvat-task`` and ``--cvat-project``: a project from a server of CVAT."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from alc_backend.cli.common import telling
from alc_backend.cli.warm_start import choose_superpixels

if TYPE_CHECKING:
    from alc_backend.foundation.warm_start import WarmStart
    from alc_backend.store.database import Store

console = Console()


def init_from_cvat(
    store: Store, source: str, number: int, name: str | None, method: str, start: WarmStart
) -> None:
    """Make a project of a "task" or a "project" of CVAT, or add to it what is new there.

    ``name`` is the project's, None for that in CVAT. Raises DatasetError where the name is taken or
    there are no masks, CvatError, SettingsError.
    """
    from alc_backend.cvat.client import Cvat
    from alc_backend.loop.cvat import projects
    from alc_backend.loop.projects.connection import checked_secret
    from alc_backend.store.importing import import_dataset

    checked_secret(store.settings)
    known = projects.known_project(store, source, number)
    with (
        Cvat.from_settings(store.settings) as server,
        tempfile.TemporaryDirectory(prefix="alc-cvat-") as folder,
        console.status("reading CVAT") as status,
    ):
        tell = telling(status)
        dataset, places = projects.read_source(server, source, number, Path(folder), tell)
        choose_superpixels(dataset, method, start, store.settings)
        if known is None:
            known_name = name or server.name_of(source, number)
            project_id = projects.create_project(
                store, known_name, dataset.classes, start.as_dict(), source=source, number=number
            )
        else:
            project_id, known_name = known.id, known.name
        summary = import_dataset(
            store, dataset, known_name, warm_start=start.as_dict(),
            progress=lambda done, key: tell(f"importing: {done} ({key})"),
        )  # fmt: skip
        summary.show(console)
        projects.remember_frames(store, project_id, places)
        questions = projects.connect(store, server, project_id, tell)
    url = str(store.settings.cvat_url).rstrip("/")
    console.print(f"masks:     {url}/{source}s/{number}", soft_wrap=True)
    console.print(f"questions: {url}/projects/{questions} (a task for each round)", soft_wrap=True)
    console.print(
        "Start the first round with `alc round start`. Its questions are answered in CVAT's tag "
        "annotation: F keeps a tag, a digit gives another one."
    )
