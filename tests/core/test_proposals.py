"""What is learnt from answers: the gradient, what helps, what people ruled out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from alc_backend.core.proposals import (
    CLASS_PENALTIES,
    TRUST,
    Evidence,
    Known,
    Proposals,
    Traits,
    Weights,
)
from alc_backend.core.questions import Questions
from alc_backend.store.traits import ShardTraits

CLASSES = 4


def world(seed=0, count=400, telling=1.0, right=0.4):
    """Superpixels whose features tell the class as well as ``telling`` says; and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, count)
    centers = rng.normal(size=(CLASSES, 20))
    features = telling * centers[truth] + 0.5 * rng.normal(size=(count, 20))
    labels = np.where(rng.random(count) < right, truth, rng.integers(0, CLASSES, count))
    predicted = rng.dirichlet(np.ones(CLASSES), count)
    traits = Traits(
        features.astype(np.float16),
        predicted.astype(np.float32),
        labels.astype(np.uint8),
        predicted.argmax(axis=1).astype(np.uint8),
        rng.integers(10, 1000, count),
        rng.random(count),
    )
    return traits, truth


def known_of(truth, members, ruled_out=None):
    nothing = Known.nothing(len(truth), CLASSES)
    members = np.asarray(members, dtype=np.intp)
    return Known(members, truth[members], nothing.ruled_out if ruled_out is None else ruled_out)


def share_right(beliefs, truth, members):
    others = np.setdiff1d(np.arange(len(truth)), members)
    return (beliefs[others].argmax(axis=1) == truth[others]).mean()


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(1)
    evidence = Evidence(
        rng.normal(size=(9, CLASSES, len(TRUST))),
        rng.normal(size=(9, 3)),
        rng.integers(0, CLASSES, 6),
        rng.integers(0, CLASSES, 3),
    )
    strength = rng.uniform(0.5, 2, (CLASSES, 3))
    flat = rng.normal(size=len(TRUST) + CLASSES * 3)

    def loss(values):
        return evidence.loss(Weights.of(values, CLASSES), strength)

    numeric = approx_fprime(flat, lambda values: loss(values)[0], 1e-6)
    np.testing.assert_allclose(loss(flat)[1], numeric, rtol=1e-3, atol=1e-3)


def test_before_the_first_answer_network_and_label_decide():
    traits, _ = world(count=50)
    beliefs = Proposals(traits).beliefs(Known.nothing(50, CLASSES), None)
    np.testing.assert_allclose(beliefs.sum(axis=1), 1)
    expected = np.log(traits.predicted + 0.01)
    expected[np.arange(50), traits.labels] += 2
    assert np.array_equal(beliefs.argmax(axis=1), expected.argmax(axis=1))


def test_features_that_tell_are_learnt_from_forty_answers():
    traits, truth = world()
    members = np.arange(40)
    proposals, known = Proposals(traits), known_of(truth, members)
    penalty = proposals.best_penalty(known)
    assert penalty is not None
    before = share_right(proposals.beliefs(Known.nothing(400, CLASSES), None), truth, members)
    assert before < 0.6
    assert share_right(proposals.beliefs(known, penalty), truth, members) > 0.9


def test_features_that_tell_nothing_are_left_out():
    traits, truth = world(telling=0.0, right=0.95)
    known = known_of(truth, np.arange(60))
    assert Proposals(traits).best_penalty(known) is None


def test_few_answers_and_no_features_need_no_choice():
    traits, truth = world()
    assert Proposals(traits).best_penalty(known_of(truth, np.arange(5))) is None
    bare = traits._replace(features=np.zeros((400, 0), np.float16))
    assert Proposals(bare).best_penalty(known_of(truth, np.arange(100))) is None


def test_labels_that_prove_right_are_trusted_more():
    traits, truth = world(telling=0.0, right=0.99)
    sure = traits.labels == truth
    members = np.flatnonzero(sure)[:80]
    proposals = Proposals(traits)
    rows = np.setdiff1d(np.arange(400), members)
    labels = traits.labels[rows]
    before = proposals.beliefs(Known.nothing(400, CLASSES), None)[rows, labels].mean()
    after = proposals.beliefs(known_of(truth, members), None)[rows, labels].mean()
    assert after > before + 0.05


def test_what_was_ruled_out_is_not_believed_and_teaches():
    traits, truth = world(seed=3)
    likes = np.flatnonzero(truth == 2)
    ruled_out = np.zeros((400, CLASSES), dtype=bool)
    ruled_out[likes[:25], 1] = True
    ruled_out[0] = True
    members = np.flatnonzero(truth != 2)[:40]
    proposals = Proposals(traits)
    without = proposals.beliefs(known_of(truth, members), 1.0)
    beliefs = proposals.beliefs(known_of(truth, members, ruled_out), 1.0)
    assert (beliefs[ruled_out] == 0).all()
    assert (beliefs[0] == 0).all()
    np.testing.assert_allclose(np.delete(beliefs, 0, axis=0).sum(axis=1), 1)
    assert beliefs[likes[25:], 1].mean() < without[likes[25:], 1].mean()


def test_the_same_answers_give_the_same_beliefs():
    traits, truth = world(seed=5)
    found = [Proposals(traits).beliefs(known_of(truth, np.arange(30)), 1.0) for _ in range(2)]
    assert np.array_equal(*found)


def test_no_superpixels():
    none = Traits(
        np.zeros((0, 8)), np.zeros((0, CLASSES)), *np.zeros((2, 0), np.uint8),
        np.zeros(0, np.int64), np.zeros(0),
    )  # fmt: skip
    assert Proposals(none).beliefs(Known.nothing(0, CLASSES), None).shape == (0, CLASSES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": np.zeros(3, np.uint8)}, "labels has 3 rows, predicted has 400"),
        ({"dominant": np.full(400, 9, np.uint8)}, "dominant holds the class id 9 of 4 classes"),
        ({"features": np.full((400, 2), np.nan)}, "features and predicted must be finite"),
    ],
)
def test_arrays_that_do_not_fit_are_named(changes, said):
    traits, _ = world()
    with pytest.raises(ValueError, match=said):
        Proposals(traits._replace(**changes))


def test_the_penalties_that_are_tried_include_leaving_features_out():
    assert CLASS_PENALTIES[0] is None


def test_without_superpixels_there_is_nothing_to_propose():
    none = ShardTraits.joined([], CLASSES)
    proposals = Proposals(
        Traits(
            none.features, none.predicted, none.labels, none.dominant, none.sizes, none.doubt
        )
    )  # fmt: skip
    nothing = Known.nothing(0, CLASSES)
    penalty = proposals.best_penalty(nothing)
    beliefs = proposals.beliefs(nothing, penalty)
    assert beliefs.shape == (0, CLASSES)
    assert proposals.held_out(nothing, penalty).shape == (0,)
    assert Questions(none.labels, none.sizes, none.doubt, none.class_pixels, beliefs).next() is None
