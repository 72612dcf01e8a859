"""The true label maps of images, where they are known."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from alc_backend.errors import NotFoundError
from alc_backend.store.files import ProjectFiles
from alc_backend.store.models import Image

log = logging.getLogger(__name__)


def read(files: ProjectFiles, image: Image) -> NDArray[np.uint8] | None:
    """The true label map of an image, uint8 (H, W), or None where it is not known.

    One that is lost or damaged is as if it were not known, with a line in the log.
    """
    if not image.has_truth:
        return None
    try:
        return files.read_label_map("ground_truth", image.id)
    except NotFoundError as error:
        log.warning("%s is not compared with its ground truth, which is lost: %s", image.key, error)
        return None
