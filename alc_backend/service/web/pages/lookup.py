"""Projects and images by the ids in a page's address."""

from __future__ import annotations

from alc_backend.errors import NotFoundError
from alc_backend.loop.workplace import Workplace, workplace
from alc_backend.store.database import Store
from alc_backend.store.models import MAX_ID, TRAIN, Image, Project


def project_of(store: Store, project_id: int) -> Project:
    """The project with this id; NotFoundError when there is none."""
    with store.reading() as session:
        project = session.get(Project, project_id) if 0 < project_id <= MAX_ID else None
    if project is None:
        raise NotFoundError(f"there is no project {project_id}")
    return project


def place_of(store: Store, project: Project) -> Workplace:
    """Where the annotators of a project work."""
    with store.reading() as session:
        return workplace(session, project, store.settings)


def image_of(store: Store, image_id: int) -> Image:
    """The image under correction with this id; NotFoundError when there is none."""
    with store.reading() as session:
        image = session.get(Image, image_id) if 0 < image_id <= MAX_ID else None
    if image is None or image.split != TRAIN:
        raise NotFoundError(f"there is no image {image_id}")
    return image
