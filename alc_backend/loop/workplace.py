"""Where the annotators of a project work, as pages and commands tell it: its name and its links.

Reads the database; changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from alc_backend.errors import RoundError
from alc_backend.settings import Settings
from alc_backend.store.cvat import CvatProject
from alc_backend.store.models import Image, Project

LABEL_STUDIO, CVAT = "Label Studio", "CVAT"


@dataclass(frozen=True)
class Workplace:
    """Label Studio or CVAT, by its ``name``.

    ``questions`` and ``masks`` are the addresses of a project's questions and of its images with
    their masks; None until it is connected. ``task`` leads to an image's masks, followed by its
    task or address.
    """

    name: str
    questions: str | None = None
    masks: str | None = None
    task: str = ""

    def masks_of(self, image: Image) -> str | None:
        """The address of an image's masks; None where it is not there."""
        if self.name == CVAT:
            return None if image.url is None else self.task + image.url
        return None if image.dataset_task is None else f"{self.task}{image.dataset_task}"


def workplace(session: Session, project: Project, settings: Settings) -> Workplace:
    """Where the annotators of a project work."""
    row = session.get(CvatProject, project.id)
    if row is not None:
        url = (settings.cvat_url or "").rstrip("/")
        questions = None if row.questions is None else f"{url}/projects/{row.questions}"
        return Workplace(CVAT, questions, f"{url}/{row.source}s/{row.number}", url)
    if project.query_project is None:
        return Workplace(LABEL_STUDIO)
    url = f"{settings.label_studio_links}/projects"
    masks = f"{url}/{project.dataset_project}/data"
    return Workplace(LABEL_STUDIO, f"{url}/{project.query_project}/data", masks, f"{masks}?task=")


def refuse_in_cvat(session: Session, project_id: int, what: str) -> None:
    """Raise RoundError where a project is asked in CVAT, and ``what`` was asked for, a sentence."""
    if session.get(CvatProject, project_id) is not None:
        raise RoundError(f"the project is asked in CVAT, where {what}")
