"""Label maps of many images: what the ledger says of each is read when its map is asked for."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import LedgerEntry, Project

AHEAD = 100
"""Images, in the order in which their maps are asked for, whose entries are read together."""


class LabelMapReader:
    """The label maps of a project as they were after one entry of the ledger.

    Entries that come later change nothing. What is read opens a session of its own: whoever asks
    has none open. Threads may share it.
    """

    def __init__(
        self,
        store: Store,
        project_id: int,
        upto: int,
        *,
        overlap: int | None = None,
        order: Sequence[int] = (),
    ) -> None:
        """Make a reader; nothing is read of the ledger yet.

        ``upto`` and ``overlap`` are those of :class:`LabelMaps`; ``order`` are the images (row ids)
        in the order in which their maps will be asked for, where there is one.
        """
        self._store, self._project_id, self._upto = store, project_id, upto
        if overlap is None:
            with store.reading() as session:
                overlap = session.get_one(Project, project_id).overlap
        self._overlap = overlap
        self._order = list(order)
        self._turns = {image_id: turn for turn, image_id in enumerate(self._order)}
        self._lock = threading.Lock()
        self._known: tuple[frozenset[int], LabelMaps] | None = None

    def read(self, image_id: int, hidden: Collection[int] = ()) -> NDArray[np.uint8]:
        """The label map of an image, as :meth:`LabelMaps.read` gives it."""
        return self.of(image_id).read(image_id, hidden)

    def of(self, image_id: int) -> LabelMaps:
        """The label maps of an image and perhaps others that come after it."""
        with self._lock:
            known = self._known
        if known is not None and image_id in known[0]:
            return known[1]
        turn = self._turns.get(image_id)
        images = [image_id] if turn is None else self._order[turn : turn + AHEAD]
        with self._store.reading() as session:
            maps = LabelMaps(
                session,
                self._store.files(self._project_id),
                self._project_id,
                self._upto,
                overlap=self._overlap,
                images=images,
                removed=True,
            )
        with self._lock:
            self._known = frozenset(images), maps
        return maps

    def entries(self, image_id: int) -> list[LedgerEntry]:
        """The entries in force about an image, in replay order."""
        return self.of(image_id).entries(image_id)
