"""The built-in sample of two classes."""

from __future__ import annotations

import numpy as np

from alc_backend.core.metrics import confusion_matrix, mean_iou
from alc_backend.datasets.folder import open_folder
from alc_backend.simulate.polyps import CLASSES, make_polyps, write_polyps
from alc_backend.simulate.sample import make_scene


def test_polyps_are_the_same_every_time():
    first, second, other = make_polyps(0, 5), make_polyps(0, 5), make_polyps(1, 5)
    for name in ("image", "truth", "labels", "objects"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.image, other.image)
    assert not np.array_equal(first.image, make_scene(0, 5).image)


def test_they_begin_as_badly_as_the_papers_and_can_be_put_right(tmp_path):
    """20 % mIoU before any click, because the detector takes mucosa for polyps; see Figure 5b."""
    training, validation = write_polyps(tmp_path)
    folder = open_folder(training)
    samples = list(folder.samples())
    assert folder.problems == []
    held_out = open_folder(validation, validation=True)
    held_out.classes = folder.classes
    assert len(list(held_out.validation_samples())) == 32

    given = corrected = 0
    kinds, sizes = [], []
    for sample in samples:
        answered = sample.labels.copy()
        sizes.append(int((sample.truth == 1).sum()))
        for number in np.unique(sample.superpixels)[1:]:
            inside = sample.superpixels == number
            answered[inside] = kind = np.bincount(sample.truth[inside]).argmax()
            kinds.append(int(kind))
            assert set(np.unique(sample.labels[inside])) == {1}
        assert not sample.labels[sample.superpixels == 0].any()
        given = given + confusion_matrix(sample.truth, sample.labels, len(CLASSES))
        corrected = corrected + confusion_matrix(sample.truth, answered, len(CLASSES))
    assert 0.15 < mean_iou(given) < 0.25
    assert mean_iou(corrected) > 0.85
    assert kinds.count(0) > 3 * kinds.count(1) > 100
    assert min(sizes) < 500 < 5000 < max(sizes)
