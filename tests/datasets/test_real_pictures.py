"""Real pictures with real Grounded-SAM mistakes, where the checkout has them beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alc_backend.core.metrics import confusion_matrix, mean_iou
from alc_backend.datasets.folder import open_folder

PICTURES = Path(__file__).parents[3] / "shared" / "data" / "voc_animals" / "train"


@pytest.mark.skipif(not PICTURES.is_dir(), reason="the pictures are not part of the project")
def test_three_hundred_pictures_are_read_without_a_problem():
    folder = open_folder(PICTURES)
    confusion = np.zeros((len(folder.classes), len(folder.classes) + 1), dtype=np.int64)
    superpixels = 0
    for sample in folder.samples():
        superpixels += len(np.unique(sample.superpixels)) - 1
        confusion += confusion_matrix(sample.truth, sample.labels, len(folder.classes))
    assert folder.problems == []
    assert superpixels == 1746
    assert mean_iou(confusion) == pytest.approx(0.441, abs=0.001)
