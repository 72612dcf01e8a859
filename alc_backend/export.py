"""The repaired dataset of a project, written to a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.datasets.export import export_label_maps
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, Project


def export_project(store: Store, project_id: int, folder: Path) -> int:
    """Replay the label maps and write them to ``folder``; returns how many."""
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        maps = LabelMaps(session, store.files(project_id), project_id)

    def replayed() -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for image in store.images(project_id, TRAIN):
            yield image.key, maps.read(image.id)

    return export_label_maps(folder, project.classes, replayed())
