"""What A²LC's corrector relabels."""

from __future__ import annotations

import numpy as np
import pytest

from alc_backend.simulate.corrector import relabelled

CLASSES, COUNT, ASKED = 4, 700, 600
TRUE = np.array([0, 1, 3, 2])
"""The true class, by the class that the network predicts: it takes 2 for 3 and 3 for 2."""


@pytest.fixture(scope="module")
def seen():
    """What a network says of superpixels that it is sure about, and their true classes."""
    rng = np.random.default_rng(0)
    classes = rng.choice(CLASSES, COUNT, p=[0.4, 0.1, 0.3, 0.2])
    predicted = 0.94 * np.eye(CLASSES)[classes] + 0.06 / CLASSES
    predicted += rng.normal(0, 0.01, predicted.shape)
    return predicted.astype(np.float32), classes.astype(np.uint8), TRUE[classes]


def relabelling(seen, corrected, labels=None, seed=0):
    predicted, classes, truth = seen
    answers = {index: int(truth[index]) for index in range(ASKED)}
    given = classes if labels is None else labels
    return relabelled(predicted, given, answers, np.array(corrected, dtype=np.intp), seed)


@pytest.fixture(scope="module")
def found(seen):
    """What is relabelled where 2 is named most often and 3 is not rare, by the index."""
    return relabelling(seen, [3] * 5 + [2] * 9 + [1])


def test_what_nobody_was_asked_about_is_relabelled(seen, found):
    _, classes, truth = seen
    expected = {index for index in range(ASKED, COUNT) if TRUE[classes[index]] in (2, 3)}
    assert found.keys() == expected
    assert all(truth[index] == class_id for index, class_id in found.items())
    assert len(expected) > 20


def test_rare_corrections_teach_nothing_and_the_seed_decides(seen, found):
    _, classes, _ = seen
    fewer = relabelling(seen, [3] * 2 + [2] * 9)  # 3 is the rarer half, and the rarest label stays
    assert set(fewer.values()) <= {2}
    assert all(classes[index] != 3 for index in fewer)
    assert fewer.items() <= found.items()  # the network is the same: the seed is


def test_labels_that_are_right_stay(seen):
    assert relabelling(seen, [3] * 5 + [2] * 9 + [1], labels=seen[2].astype(np.uint8)) == {}


def test_without_corrections_nothing_is_relabelled(seen):
    assert relabelling(seen, []) == {}
    predicted, classes, _ = seen
    assert relabelled(predicted, classes, {}, np.array([1]), 0) == {}
