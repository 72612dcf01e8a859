"""Bringing images back that are out of their dataset.

Makes their tasks in the dataset project again where these were deleted, from the copies of the
images in the store. Writes Label Studio and the images in the database. Called by commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alc_backend.labelstudio import projects
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import read_dataset_config
from alc_backend.loop.projects.connection import make_tasks
from alc_backend.store import upkeep
from alc_backend.store.database import Store
from alc_backend.store.models import Image, Project


def restore_images(
    store: Store,
    client: Client,
    project_id: int,
    images: Sequence[Image],
    report: Callable[[str], None],
) -> list[Image]:
    """Bring images back into the dataset; returns those that were out of it.

    What was answered about them counts again, and the next round asks about the rest. Raises
    NotFoundError when the dataset project was deleted, LabelStudioError.
    """
    out = [image for image in images if image.removed is not None]
    with store.reading() as session:
        project = session.get_one(Project, project_id)
    gone: list[Image] = []
    if project.dataset_project is not None:
        config = projects.check_there(client, project.dataset_project, projects.DATASET)
        field = read_dataset_config(config["label_config"]).image_field
        gone = [image for image in out if not _has_task(client, image)]
        files = store.files(project_id)
        paths = [(image.key, files.image(image.id, image.suffix)) for image in gone]
        done = 0
        for urls, numbers in make_tasks(client, project.dataset_project, paths, report, field):
            made = [image.id for image in gone[done : done + len(urls)]]
            with store.session() as session:
                for image, url, number in zip(gone[done:], urls, numbers, strict=False):
                    row = session.get_one(Image, image.id)
                    row.url, row.dataset_task = url, number
                upkeep.set_removed(session, project_id, dict.fromkeys(made, None))
            done += len(urls)
    with store.session() as session:
        upkeep.set_removed(session, project_id, {image.id: None for image in out})
    return out


def _has_task(client: Client, image: Image) -> bool:
    number = image.dataset_task
    return number is not None and client.exists(f"/api/tasks/{number}")
