from __future__ import annotations

import numpy as np
import pytest

from alc_backend.core.conformal import FEWEST, candidate_sets


def test_likely_classes_stand_in_their_order():
    held_out = np.full(40, 0.7)
    beliefs = np.array([[0.2, 0.7, 0.1], [0.1, 0.05, 0.85], [0.4, 0.3, 0.3]])
    assert candidate_sets(beliefs, held_out) == [[1], [2], []]


def test_doubtful_answers_make_large_sets():
    held_out = np.r_[np.full(30, 0.9), np.full(10, 0.1)]  # a quarter was found unlikely before
    beliefs = np.array([[0.6, 0.3, 0.1], [0.05, 0.9, 0.05]])
    assert candidate_sets(beliefs, held_out, alpha=0.2) == [[0, 1, 2], [1]]


def test_equally_likely_classes_stand_by_their_ids():
    assert candidate_sets(np.full((1, 4), 0.25), np.full(40, 0.2)) == [[0, 1, 2, 3]]


def test_few_answers_make_no_sets():
    assert candidate_sets(np.eye(3), np.ones(FEWEST - 1)) == [[], [], []]


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_the_right_class_is_in_its_set_as_often_as_wanted(alpha):
    random = np.random.default_rng(0)
    logits = random.normal(size=(6000, 5)) * 1.5
    beliefs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(5, p=row) for row in beliefs])
    right = beliefs[np.arange(6000), truth]
    sets = candidate_sets(beliefs[3000:], right[:3000], alpha)
    inside = np.mean([t in found for t, found in zip(truth[3000:], sets, strict=True)])
    assert 1 - alpha - 0.03 <= inside <= 1 - alpha + 0.03
