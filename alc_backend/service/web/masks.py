"""The masks of images as Label Studio shows them; those of large images are kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from alc_backend.common.types import Json
from alc_backend.errors import LabelStudioError, NotFoundError, StorageError
from alc_backend.labelstudio.dataset_config import ShownWith
from alc_backend.labelstudio.shown_regions import mask_regions
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Image, Project

log = logging.getLogger(__name__)

KEPT_FROM_PIXELS = 2**20
"""The regions of images from this size on are kept; smaller ones take less time than a file."""


class ShownMasks:
    """The regions of a project's images, made once for each state of a large image.

    ``tag`` is the tag of the label config that shows them; classes for which it has no label are
    not shown.
    """

    def __init__(self, store: Store, project: Project, tag: ShownWith) -> None:
        self._project, self._tag = project, tag
        self._files = store.files(project.id)
        self._by_class = store.settings.regions_by_class

    def regions(
        self, maps: LabelMaps, image: Image, scores: Mapping[int, float]
    ) -> list[Json] | None:
        """The regions of an image's label map in ``maps``; ``scores`` are its superpixels'.

        None when its files cannot be read, and empty when they would be too large for an
        annotation; the log names the image.
        """
        kind = f"{self._tag.shape}labels"
        try:
            made = self._regions(maps, image, scores)
            return [one for one in made if one["value"][kind][0] in self._tag.labels]
        except NotFoundError as error:
            log.warning("image %s is shown without masks: %s", image.key, error)
            return None

    def _regions(self, maps: LabelMaps, image: Image, scores: Mapping[int, float]) -> list[Json]:
        if image.height * image.width < KEPT_FROM_PIXELS:
            return self._made(maps, image, scores)
        about = [
            self._project.classes,
            self._tag.shape,
            self._tag.tag,
            self._project.image_name,
            self._by_class,
            sorted(scores.items()),
        ]
        version = maps.version(image.id, about)
        kept = self._files.read_regions(image.id, version)
        if kept is not None:
            return kept
        made = self._made(maps, image, scores)
        try:
            self._files.write_regions(image.id, version, made)
        except StorageError as error:  # they are made anew the next time
            log.warning("image %s: its regions are not kept: %s", image.key, error)
        return made

    def _made(self, maps: LabelMaps, image: Image, scores: Mapping[int, float]) -> list[Json]:
        try:
            return mask_regions(
                maps.read(image.id),
                self._files.read_superpixels(image.id),
                self._project.classes,
                shape=self._tag.shape,
                from_name=self._tag.tag,
                to_name=self._project.image_name,
                by_class=self._by_class,
                scores=scores,
            )
        except LabelStudioError as error:
            log.warning("image %s is shown without masks: %s", image.key, error)
            return []
