"""The present masks of a project as a function of CVAT's auto-annotation.

`cvat-cli task auto-annotate 7 --function-module alc_backend.cvat.function -p project=str:pets`
draws them into the frames of task 7 whose names are those of the project's images. CVAT matches
labels by name, and has none for background and void.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import cvat_sdk.auto_annotation as auto
import numpy as np
from cvat_sdk.masks import encode_mask
from numpy.typing import NDArray
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.core.outlines import outlines
from alc_backend.datasets.classes import background
from alc_backend.datasets.segments import segments
from alc_backend.errors import NotFoundError, SettingsError
from alc_backend.settings import settings
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, Image, Project

log = logging.getLogger(__name__)

TOLERANCE = 1.0
"""How far polygons may lie from their masks, in pixels, where CVAT asks for polygons."""

LEAVE, GROUNDED_SAM = "leave", "grounded-sam"
"""What becomes of frames that are no image of the project."""


class Masks:
    """The function: its labels, and what it finds in a frame."""

    def __init__(self, store: Store, project: Project, unseen: str) -> None:
        self._store, self._project, self._unseen = store, project, unseen
        self._background = background(project.classes)
        self._warmer: Any = None
        self.spec = auto.DetectionFunctionSpec(
            labels=[
                auto.label_spec(name, class_id, type="mask")
                for class_id, name in enumerate(project.classes)
                if class_id != self._background
            ]
        )

    def detect(
        self, context: auto.DetectionFunctionContext, image: Picture.Image
    ) -> Sequence[auto.DetectionAnnotation]:
        """The masks of a frame, one for each part of a superpixel that has one class.

        A frame that is no image of the project, or has another size, gets none, and a line in the
        log; with Grounded-SAM, it gets what that finds.
        """
        found = self._image(context.frame_name)
        if found is None:
            maps = self._found_anew(context.frame_name, image)
        elif (found.width, found.height) != image.size:
            log.warning(
                "frame %s has %d×%d pixels, its image %d×%d; it gets no masks",
                context.frame_name, *image.size, found.width, found.height,
            )  # fmt: skip
            return []
        else:
            maps = self._maps(found)
        return [] if maps is None else self._shapes(*maps, polygons=context.conv_mask_to_poly)

    def _image(self, name: str) -> Image | None:
        """The image that a frame shows, by its name without the extension."""
        key = PurePosixPath(name).with_suffix("").as_posix()
        with self._store.reading() as session:
            return session.scalars(
                select(Image).where(
                    Image.project_id == self._project.id,
                    Image.split == TRAIN,
                    Image.removed.is_(None),
                    Image.key == key,
                )
            ).first()

    def _maps(self, image: Image) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """The present label map and the superpixel map of an image, both (H, W)."""
        files = self._store.files(self._project.id)
        with self._store.reading() as session:
            maps = LabelMaps(session, files, self._project.id, images=[image.id])
        return maps.read(image.id), files.read_superpixels(image.id)

    def _found_anew(
        self, name: str, image: Picture.Image
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]] | None:
        """The maps that Grounded-SAM makes of a frame; None where that is not wanted."""
        if self._unseen == LEAVE:
            log.warning("frame %s is no image of project %s", name, self._project.name)
            return None
        if self._warmer is None:
            from alc_backend.foundation.warm_start import Warmer, WarmStart

            start = replace(WarmStart.of(self._project.warm_start), superpixels=GROUNDED_SAM)
            self._warmer = Warmer(start, self._project.classes, self._store.settings)
        found = self._warmer.from_image(np.asarray(image.convert("RGB")))
        return found.labels, found.superpixels

    def _shapes(
        self, labels: NDArray[np.uint8], superpixels: NDArray[np.int32], *, polygons: bool
    ) -> list[auto.DetectionAnnotation]:
        height, width = labels.shape
        index, pieces = segments(labels, superpixels)
        shapes: list[auto.DetectionAnnotation] = []
        for piece in pieces:
            if piece.class_id == self._background:
                continue
            left, top, wide, high = piece.box
            part = index[top : top + high, left : left + wide] == piece.id
            if polygons:
                shapes += [
                    auto.polygon(piece.class_id, (outline + np.array([left, top])).ravel().tolist())
                    for outline in outlines(part, tolerance=TOLERANCE)
                ]
                continue
            mask = np.zeros((height, width), dtype=np.bool_)
            mask[top : top + high, left : left + wide] = part
            box = [left, top, left + wide, top + high]
            shapes.append(auto.mask(piece.class_id, encode_mask(mask, box)))
        return shapes


def create(project: str, unseen: str = LEAVE) -> Masks:
    """The function for a project, by its name; cvat-cli calls this with its ``-p`` parameters.

    ``unseen`` is what becomes of frames that are no image of the project: ``leave`` or
    ``grounded-sam``. Raises NotFoundError for an unknown project, SettingsError for another word.
    """
    if unseen not in (LEAVE, GROUNDED_SAM):
        raise SettingsError(f"unseen must be {LEAVE} or {GROUNDED_SAM}, not {unseen!r}")
    store = Store(settings())
    with store.reading() as session:
        found = session.scalars(select(Project).where(Project.name == project)).first()
        known = session.scalars(select(Project.name)).all()
    if found is None:
        raise NotFoundError(f"there is no project {project!r}; known: {', '.join(known) or 'none'}")
    return Masks(store, found, unseen)
