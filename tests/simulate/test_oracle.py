from __future__ import annotations

import numpy as np
import pytest

from alc_backend.simulate.oracle import answer

MASK = np.ones((1, 4), dtype=bool)


@pytest.mark.parametrize(
    ("oracle", "truth", "star", "expected"),
    [
        ("pixel", [1, 1, 1, 2], 3, 2),  # the star alone decides
        ("object", [1, 1, 1, 2], 3, 1),  # more than half is right: accept
        ("object", [1, 1, 2, 2], 3, 2),  # exactly half is not more than half
        ("object", [1, 255, 255, 255], 0, 1),  # void does not count
        ("pixel", [2, 2, 2, 255], 3, 1),  # void at the star: nothing changes
        ("object", [2, 2, 2, 255], 3, 1),
    ],
)
def test_answers(oracle, truth, star, expected):
    truth = np.array([truth], dtype=np.uint8)
    labels = np.ones((1, 4), dtype=np.uint8)
    assert answer(oracle, truth, labels, MASK, 0, star, 1) == expected


def test_unknown_oracle():
    with pytest.raises(ValueError, match="object, pixel"):
        answer("delphi", MASK, MASK, MASK, 0, 0, 0)
