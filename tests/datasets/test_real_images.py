"""Real images with real Grounded-SAM mistakes, where the checkout has them beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alc_backend.core.metrics import confusion_matrix, mean_iou
from alc_backend.datasets.folder import open_folder

IMAGES = Path(__file__).parents[3] / "shared" / "data" / "voc_animals" / "train"


@pytest.mark.skipif(not IMAGES.is_dir(), reason="the images are not part of the project")
def test_three_hundred_images_are_read_without_a_problem():
    folder = open_folder(IMAGES)
    confusion = np.zeros((len(folder.classes), len(folder.classes) + 1), dtype=np.int64)
    superpixels = 0
    for sample in folder.samples():
        superpixels += len(np.unique(sample.superpixels)) - 1
        confusion += confusion_matrix(sample.truth, sample.labels, len(folder.classes))
    assert folder.problems == []
    assert superpixels == 1746
    assert mean_iou(confusion) == pytest.approx(0.441, abs=0.001)
