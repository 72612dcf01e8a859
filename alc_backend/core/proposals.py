"""What each superpixel probably is, learnt from the answers so far (beyond the paper).

A multinomial logistic regression gives every superpixel a probability for each class. A few of its
weights are shared by all classes, so that it is of use before the first answer: they weigh what the
network predicts, what the label map says, and how far to trust either. The others, one set for each
class, weigh the superpixel's features; whether and how much they help is decided by the likelihood
of answers that were held out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]

DIMENSIONS = 96
"""Principal components of the features that the model sees."""

SPREAD = 1.5
"""The root mean square length of a superpixel's principal components."""

LEAST_PROBABILITY = 0.01
"""Added to the network's mean probabilities: it is never sure that a class is impossible."""

TRUST = (1.0, 2.0, 0.0, 0.0, 0.0, 0.0)
"""The shared weights before the first answer: of the logarithm of the network's mean probability,
of being the present label, of that times the logarithm of the size and times the network's doubt,
of being the dominant class, and of being both."""

TRUST_PENALTY = 4.0
"""The penalty on moving a shared weight away from TRUST."""

CLASS_PENALTIES = (None, 4.0, 1.0)
"""The penalties on the weights of features that are tried; None leaves the features out."""

PARTS = 5
"""Parts of the answers, each of which is held out once to choose the penalty."""

FEWEST = 20
"""With fewer answers the features are left out: too few to hold any out."""

MOST_TAUGHT = 2**14
"""More answers than so many teach hardly more, and take longer."""

NEWS = 15
"""So many answers and refusals are worth learning anew, or NEWS_SHARE of what is known by then, at
most of MOST_TAUGHT."""

NEWS_SHARE = 0.05

LEAST = 1e-12


def is_worth_learning(new: int, known: int) -> bool:
    """Whether ``new`` answers and refusals, of ``known`` in all, may change the proposals."""
    return new >= max(NEWS, NEWS_SHARE * min(known, MOST_TAUGHT))


class Traits(NamedTuple):
    """What is known of N superpixels before anybody is asked; C classes, F features.

    ``features`` (N, F), any scale, F may be 0; ``predicted`` (N, C), the mean of the network's
    probabilities over the superpixel; ``labels`` uint8 (N,), the class ids of the present label
    map; ``dominant`` uint8 (N,), the class ids D(s) (eq. 5); ``sizes`` int64 (N,) in pixels;
    ``doubt`` (N,) in [0, 1], the share of its pixels that the network expects to be wrong: SIM
    divided by the size.
    """

    features: NDArray[np.floating]
    predicted: NDArray[np.floating]
    labels: NDArray[np.uint8]
    dominant: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    doubt: NDArray[np.floating]


class Known(NamedTuple):
    """What people have said.

    ``members`` int (A,) are the superpixels that were answered, ``classes`` int (A,) the class ids
    that were named; ``ruled_out`` bool (N, C) is true where a person said "not this class".
    """

    members: NDArray[np.intp]
    classes: NDArray[np.intp]
    ruled_out: NDArray[np.bool_]

    @classmethod
    def nothing(cls, count: int, classes: int) -> Known:
        """What is known of ``count`` superpixels before the first answer."""
        nobody = np.zeros(0, dtype=np.intp)
        return cls(nobody, nobody, np.zeros((count, classes), dtype=np.bool_))


class Proposals:
    """Proposes a class for every superpixel, and says how likely it is.

    The same traits and answers give the same proposals. What was proposed is never taken for an
    answer.
    """

    def __init__(self, traits: Traits) -> None:
        """Raises ValueError naming the array that does not fit the others."""
        _check(traits)
        self._classes = traits.predicted.shape[1]
        self._shared = _shared(traits)
        own = _own(traits, self._classes)
        constant = np.ones((len(own), 1))
        self._has_features = own.shape[1] > 0
        self._with_features, self._without = np.hstack([own, constant]), constant

    def beliefs(self, known: Known, penalty: float | None) -> Floats:
        """The probability of each class for each superpixel, (N, C), rows sum to 1.

        A class that a person ruled out has probability 0; where all are ruled out, so have all.
        ``penalty`` is :meth:`best_penalty` of these answers, or of most of them.
        """
        found = self._probabilities(self._fit(known, penalty))
        found[known.ruled_out] = 0.0
        total = found.sum(axis=1, keepdims=True)
        scaled: Floats = np.divide(found, total, out=np.zeros_like(found), where=total > LEAST)
        return scaled

    def best_penalty(self, known: Known) -> float | None:
        """The one of CLASS_PENALTIES under which answers that were held out are most likely."""
        if len(known.members) < FEWEST or not self._has_features:
            return None
        likelihoods = [
            float(np.log(self.held_out(known, penalty) + LEAST).sum())
            for penalty in CLASS_PENALTIES
        ]
        return CLASS_PENALTIES[int(np.argmax(likelihoods))]

    def held_out(self, known: Known, penalty: float | None) -> Floats:
        """The probability of each class that was named, learnt from the other answers, (A,).

        Every PARTS-th answer is held out at once: answers about neighbours stand side by side.
        """
        part = np.arange(len(known.members)) % PARTS
        found = np.zeros(len(part))
        for number in range(min(PARTS, len(part))):
            kept, held_out = part != number, part == number
            rest = known._replace(members=known.members[kept], classes=known.classes[kept])
            index, named = known.members[held_out], known.classes[held_out]
            probabilities = self._probabilities(self._fit(rest, penalty), index)
            found[held_out] = probabilities[np.arange(len(index)), named]
        return found

    def _fit(self, known: Known, penalty: float | None) -> Weights:
        """The most probable weights, given the answers."""
        own = self._without if penalty is None else self._with_features
        classes, width = self._classes, own.shape[1]
        begin = Weights(np.array(TRUST), np.zeros((classes, width)))
        answered = np.zeros(len(own), dtype=np.bool_)
        answered[known.members] = True
        against, excluded = np.nonzero(known.ruled_out & ~answered[:, None])
        rows = np.concatenate([known.members, against])
        if not len(rows):
            return begin
        evidence = Evidence(self._shared[rows], own[rows], known.classes, excluded)
        strength = np.full((classes, width), 1.0 if penalty is None else penalty)
        strength[:, -1] = 1.0
        found = minimize(
            lambda flat: evidence.loss(Weights.of(flat, classes), strength),
            begin.flat(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 100},
        )
        return Weights.of(found.x, classes)

    def _probabilities(self, weights: Weights, index: NDArray[np.intp] | None = None) -> Floats:
        """The softmax (A, C) for the superpixels ``index``, or for all."""
        rows = slice(None) if index is None else index
        own = self._without if weights.own.shape[1] == 1 else self._with_features
        return _softmax(weights.logits(self._shared[rows], own[rows]))


class Weights(NamedTuple):
    """The model: ``shared`` (S,) for all classes, ``own`` (C, K) for each, its constant last."""

    shared: Floats
    own: Floats

    @classmethod
    def of(cls, flat: Floats, classes: int) -> Weights:
        """The weights from the vector that :meth:`flat` gives."""
        count = len(TRUST)
        return cls(flat[:count], flat[count:].reshape(classes, -1))

    def flat(self) -> Floats:
        """All weights as one vector."""
        return np.concatenate([self.shared, self.own.ravel()])

    def logits(self, shared: Floats, own: Floats) -> Floats:
        """The logits (A, C) of superpixels with these values, (A, C, S) and (A, K)."""
        found: Floats = shared @ self.shared + own @ self.own.T
        return found


class Evidence(NamedTuple):
    """The superpixels that say something: first those with an answer, then those against a class.

    ``shared`` (A + B, C, S) and ``own`` (A + B, K) are their values, ``named`` (A,) the class ids
    that were named, ``excluded`` (B,) those that were ruled out.
    """

    shared: Floats
    own: Floats
    named: NDArray[np.intp]
    excluded: NDArray[np.intp]

    def loss(self, weights: Weights, strength: Floats) -> tuple[float, Floats]:
        """The negative logarithm of the posterior, and its gradient by all weights.

        Ruling out class c of a superpixel has the likelihood 1 - p(c).
        """
        probabilities = _softmax(weights.logits(self.shared, self.own))
        count = len(self.named)
        answered, against = np.arange(count), np.arange(count, len(probabilities))
        slope = probabilities.copy()
        slope[answered, self.named] -= 1.0
        loss = -np.log(probabilities[answered, self.named] + LEAST).sum()
        if len(against):
            wrong = np.minimum(probabilities[against, self.excluded], 1.0 - 1e-6)
            loss -= np.log(1.0 - wrong).sum()
            odds = wrong / (1.0 - wrong)
            slope[against] = -probabilities[against] * odds[:, None]
            slope[against, self.excluded] += odds
        moved = weights.shared - np.array(TRUST)
        loss += 0.5 * (strength * weights.own**2).sum() + 0.5 * TRUST_PENALTY * moved @ moved
        gradient = Weights(
            np.einsum("ac,acs->s", slope, self.shared) + TRUST_PENALTY * moved,
            slope.T @ self.own + strength * weights.own,
        )
        return float(loss), gradient.flat()


def _check(traits: Traits) -> None:
    count, classes = traits.predicted.shape
    for name, values in traits._asdict().items():
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} rows, predicted has {count}")
    for name, ids in (("labels", traits.labels), ("dominant", traits.dominant)):
        if count and int(ids.max()) >= classes:
            raise ValueError(f"{name} holds the class id {int(ids.max())} of {classes} classes")
    if not (np.isfinite(traits.features).all() and np.isfinite(traits.predicted).all()):
        raise ValueError("features and predicted must be finite")


def _shared(traits: Traits) -> Floats:
    """What the shared weights weigh, (N, C, S)."""
    count, classes = traits.predicted.shape
    rows = np.arange(count)
    found = np.zeros((count, classes, len(TRUST)))
    found[..., 0] = np.log(traits.predicted + LEAST_PROBABILITY)
    doubt = np.clip(traits.doubt, 1e-3, 1 - 1e-3)
    size = np.log(traits.sizes / max(float(np.median(traits.sizes)), 1.0)) if count else doubt
    for column, value in ((1, 1.0), (2, size / 2), (3, np.log(doubt / (1 - doubt)) / 2)):
        found[rows, traits.labels, column] = value
    found[rows, traits.dominant, 4] = 1.0
    found[rows, traits.labels, 5] = traits.labels == traits.dominant
    return found


def _own(traits: Traits, classes: int) -> Floats:
    """What each class weighs by itself, (N, K): principal components and the present label."""
    count, width = traits.features.shape
    if not count or not width:
        return np.zeros((count, 0))
    values = traits.features.astype(np.float64)
    values = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
    variance, directions = np.linalg.eigh(values.T @ values / count)
    order = np.argsort(-variance)[:DIMENSIONS]
    length = np.sqrt(max(float(variance[order].sum()), LEAST))
    components = values @ directions[:, order] * (SPREAD / length)
    labels = 0.5 * np.eye(classes)[traits.labels]
    return np.hstack([components, labels])


def _softmax(logits: Floats) -> Floats:
    found: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found
