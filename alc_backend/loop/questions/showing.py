"""Which superpixels can be shown: an image that cannot be read stops no question about others.

Reads images and superpixel maps. Called by ``planning`` and ``repeats``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from alc_backend.datasets.images import read_image
from alc_backend.errors import DatasetError, NotFoundError
from alc_backend.loop.questions.learning import Learnt
from alc_backend.store.database import Store
from alc_backend.store.models import Image, Superpixel

log = logging.getLogger(__name__)


class Showing:
    """Tells of superpixels, by their indices, whether their images can be shown.

    ``problems`` says, image by image, why one cannot.
    """

    def __init__(self, store: Store, project_id: int, learnt: Learnt) -> None:
        self._store, self._files, self._learnt = store, store.files(project_id), learnt
        self._readable: dict[int, bool] = {}
        self.problems: list[str] = []

    def can_show(self, members: Iterable[int]) -> NDArray[np.intp]:
        """Those of the superpixels (indices) whose images can be shown, int (K,), in their order.

        Each image is read once. Raises StorageError when the storage cannot be reached.
        """
        indices = [int(index) for index in members]
        ids = {int(self._learnt.traits.superpixels[index]): index for index in indices}
        with self._store.reading() as session:
            rows = session.execute(
                select(Superpixel.id, Image.id, Image.key, Image.suffix)
                .join(Image, Image.id == Superpixel.image_id)
                .where(Superpixel.id.in_(ids))
            )
            shown = {ids[row[0]] for row in rows if self._is_readable(*row[1:])}
        return np.array([index for index in indices if index in shown], dtype=np.intp)

    def _is_readable(self, image_id: int, key: str, suffix: str) -> bool:
        if image_id not in self._readable:
            self._readable[image_id] = True
            try:
                read_image(self._files.image(image_id, suffix))
                self._files.read_superpixels(image_id)
            except (DatasetError, NotFoundError) as error:
                self._readable[image_id] = False
                self.problems.append(
                    f"no page asks about image {key!r}, which cannot be shown: {error}"
                )
                log.warning("%s", self.problems[-1])
        return self._readable[image_id]
