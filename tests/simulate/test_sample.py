from __future__ import annotations

import numpy as np

from alc_backend.core.metrics import confusion_matrix, mean_iou
from alc_backend.datasets.folder import open_folder
from alc_backend.simulate.sample import CLASSES, TRAINING, VALIDATION, make_scene, write_sample


def test_scenes_are_the_same_every_time():
    first, second, other = make_scene(0, 5), make_scene(0, 5), make_scene(1, 5)
    for name in ("image", "truth", "labels", "objects"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.image, other.image)


def test_the_sample_is_a_sound_dataset_with_every_kind_of_mistake(tmp_path):
    training, validation = write_sample(tmp_path)
    folder = open_folder(training)
    samples = list(folder.samples())
    assert folder.problems == []
    assert len(samples) == TRAINING
    held_out = open_folder(validation, validation=True)
    held_out.classes = folder.classes
    assert len(list(held_out.validation_samples())) == VALIDATION
    assert len(CLASSES) >= 7
    assert samples[0].height >= 180
    assert samples[0].width >= 240

    wrong = right = false = missed = 0
    confusion = 0
    for sample in samples:
        confusion = confusion + confusion_matrix(sample.truth, sample.labels, len(CLASSES))
        missed += bool(((sample.truth > 0) & (sample.superpixels == 0)).sum() > 200)
        for number in np.unique(sample.superpixels)[1:]:
            inside = sample.superpixels == number
            truth = np.bincount(sample.truth[inside]).argmax()
            false += truth == 0
            right += truth == sample.labels[inside][0]
            wrong += truth not in (0, sample.labels[inside][0])
    assert min(wrong, right) > 50
    assert min(false, missed) > 5
    assert 0.2 < mean_iou(confusion) < 0.6
