"""Small images for the tests of the core: random, adversarial, and one that is easy by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from alc_backend.core.statistics import ImageStatistics


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=0))
    return (exponentials / exponentials.sum(axis=0)).astype(np.float32)


@st.composite
def scenes(draw, most_classes=5, longest_side=7):
    """Probabilities, labels and superpixels of an image; many ties, voids and pieces.

    Predictions from uniform to one-hot; label maps from all void to none; superpixels in many
    pieces, of single pixels, with gaps in their ids and ids above 255 and 65535.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(2, most_classes))
    shape = draw(st.tuples(st.integers(1, longest_side), st.integers(1, longest_side)))
    logits = rng.normal(0, draw(st.sampled_from([0.0, 0.3, 2.0, 60.0])), (classes, *shape))
    if draw(st.booleans()):
        logits = logits.round()  # ties in mode and cosine
    probabilities = softmax(logits)
    if draw(st.integers(0, 4)) == 0:
        probabilities = (probabilities == probabilities.max(axis=0)).astype(np.float32)
        probabilities /= probabilities.sum(axis=0)  # one-hot, with exact zeros
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    labels[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = 255
    ids = draw(
        st.sampled_from([[0, 1, 2], [0, 3, 300, 70_000], [1], [0], [5, 2**31 - 1], range(40)])
    )
    return probabilities, labels, rng.choice(np.array(ids), shape).astype(np.int32)


def planted():
    """A 2 × 4 image, two classes: superpixel 1 on the left, 2 on the right."""
    first = np.array([[0.9, 0.8, 0.3, 0.3], [0.9, 0.2, 0.3, 0.3]], dtype=np.float32)
    superpixels = np.array([[1, 1, 2, 2], [1, 1, 2, 2]], dtype=np.int32)
    return np.stack([first, 1 - first]), np.zeros((2, 4), dtype=np.uint8), superpixels


def planted_image(**changes):
    probabilities, labels, superpixels = planted()
    arrays = {"probabilities": probabilities, "labels": labels, "superpixels": superpixels}
    return ImageStatistics(**(arrays | changes))
