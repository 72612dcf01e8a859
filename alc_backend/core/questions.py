"""Which question comes next: about one superpixel, or a page of look-alikes (beyond the paper).

A single question shows a superpixel with its present label; the annotator accepts it or names
another class. A page shows several superpixels for which one class is proposed; the annotator
unticks those that are something else. Both are worth the expected gain for each second they take.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.acquisition import ACCURACY
from alc_backend.core.cost import ACCEPT_S, CLASSIFICATION_S

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

KINDS = ("mixed", "single", "pages")
"""The questions that may be asked: both, or one of them alone."""

PAGE_S, TILE_S = 1.0, 1.04
"""Seconds that a page takes, and each tile on it: verifying one mask of a cluster took 1.04 s in a
study of a million masks (Papadopoulos, Weber and Torralba, ICCV 2021)."""

TILES = 12
"""Tiles of a page: as many as a screen holds."""

REFUSALS = 3
"""A superpixel of which so many classes were ruled out is on no page any more: it is probably a
mixture, and quicker to ask about by itself."""

CAUTION = 0.3
"""What a wrong tile costs, as a share of what it would gain were it right: some annotators leave it
ticked, and then nobody asks again. Without it, annotators who overlook a few spoil most of what
pages gain over single questions."""

SHORTLIST = 4096
"""Superpixels that are compared for each question when there are more; the list is made anew after
REFRESH questions and whenever beliefs change."""

REFRESH = 64

LEAST_DOUBT = 1e-6
"""The least chance that a present label is wrong."""


class Pace(NamedTuple):
    """Seconds: for accepting a label, for naming another class, for a page, and for each tile.

    ``classify`` are those for naming the class of an object that no label is shown of.
    """

    accept: float = ACCEPT_S
    correct: float = CLASSIFICATION_S
    page: float = PAGE_S
    tile: float = TILE_S
    classify: float = CLASSIFICATION_S


class Question(NamedTuple):
    """A question: a page that proposes the class ``proposed``, or None for a single one.

    ``members`` int (K,) are the superpixels it is about, best first; one if it is single.
    """

    members: Indices
    proposed: int | None


PUBLISHED = Pace()
"""The seconds that were published."""


class Questions:
    """Chooses one question after the other, given what each superpixel probably is.

    The gain of putting a superpixel of z pixels right, from its present label y to class c, is
    z (1/U(y) + 1/U(c) + A/P): that in the mean IoU over the classes, plus ACCURACY times that in
    pixel accuracy, with P the pixels of the dataset and A = ACCURACY times the classes present.
    U(c) counts the pixels labelled c and those of superpixels that are most likely c instead of
    what they are labelled. As in ``default``, it shrinks with every answer about one labelled c, by
    the pixels that the network expected to be wrong there, so that what remains of a class is worth
    more once it has been begun.

    - A single question gains this for the likeliest class other than y, with the chance that y is
      wrong.
    - A tile that proposes another class gains it with the chance that the proposal is right.
    - A tile that shows the present label gains what a single question does, but takes longer: one
      that is unticked has to be asked about again.
    - From either tile, CAUTION times the gain is taken with the chance that what it shows is wrong.
    """

    def __init__(
        self,
        labels: NDArray[np.uint8],
        sizes: NDArray[np.int64],
        doubt: NDArray[np.floating],
        class_pixels: NDArray[np.int64],
        beliefs: Floats,
        *,
        pace: Pace = PUBLISHED,
        tiles: int = TILES,
        kind: str = "mixed",
    ) -> None:
        """All superpixels are open, the N with ``labels`` (N,), ``sizes`` (N,) in pixels.

        ``doubt`` (N,) is that of :class:`~alc_backend.core.proposals.Traits`: the share of a
        superpixel's pixels that the network expects to be wrong. ``class_pixels`` (C,) are the
        pixels of each class in the label maps of the whole dataset; ``beliefs`` (N, C) are
        :meth:`~alc_backend.core.proposals.Proposals.beliefs`. ``tiles`` is the most that a page
        holds. Raises ValueError for another ``kind`` than those of KINDS.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        self._kind, self._pace, self._tiles = kind, pace, tiles
        self._labels = labels.astype(np.intp)
        self._sizes = sizes.astype(np.float64)
        self._doubtful = doubt.astype(np.float64) * self._sizes
        self._pixels = class_pixels.astype(np.float64)  # less those that answers removed
        self._total = max(float(self._pixels.sum()), 1.0)
        self._present = int(np.count_nonzero(class_pixels))
        self._open = np.ones(len(labels), dtype=np.bool_)
        self._refused = np.zeros((len(labels), len(class_pixels)), dtype=np.bool_)
        self.learn(beliefs)

    def learn(self, beliefs: Floats) -> None:
        """Use other beliefs from now on, float64 (N, C)."""
        self._beliefs = beliefs.copy()
        self._moving = self._expected(np.flatnonzero(self._open))
        self._listed: Indices | None = None
        self._turns = 0

    def answer(self, index: int) -> None:
        """Somebody has said what the superpixel is: it is asked about no more."""
        if not self._open[index]:
            return
        self._moving -= self._expected(np.array([index]))
        self._open[index] = False
        self._pixels[self._labels[index]] -= self._doubtful[index]

    def set_aside(self, question: Question) -> None:
        """The question is on its way: what it is about is in no other one until it is answered."""
        self._open[question.members] = False

    def rule_out(self, index: int, class_id: int) -> None:
        """Somebody has said that the superpixel is not of this class."""
        here = np.array([index])
        self._moving -= self._expected(here)
        self._refused[index, class_id] = True
        self._beliefs[index, class_id] = 0.0
        left = self._beliefs[index].sum()
        if left > 0:
            self._beliefs[index] /= left
        self._moving += self._expected(here)

    def holding(self, share: float) -> int:
        """The fewest open superpixels that hold a ``share``, 0..1, of all expected gain."""
        gains, _ = self._mending_gains(np.flatnonzero(self._open))
        reached = np.cumsum(np.sort(gains)[::-1])
        if not len(reached):
            return 0
        return min(int(np.searchsorted(reached, share * reached[-1])) + 1, len(reached))

    def next(self) -> Question | None:
        """The best question about what is open; None when nothing is.

        Of equals, the superpixel that stands first in the arrays and the class with the lowest id.
        """
        index = self._candidates()
        if not len(index):
            return None
        best, found = -1.0, None
        if self._kind != "pages":
            best, found = self._single(index)
        if self._kind != "single":
            worth, page = self._page(index)
            if worth > best:
                found = page
        return found

    def _candidates(self) -> Indices:
        """The open superpixels that are compared, ascending."""
        if self._listed is None or self._turns >= REFRESH:
            self._turns = 0
            self._listed = np.flatnonzero(self._open)
            if len(self._listed) > SHORTLIST:
                self._listed = self._shortlist(self._listed)
        self._turns += 1
        found = self._listed[self._open[self._listed]]
        if not len(found) and self._open.any():
            self._listed = None
            return self._candidates()
        return found

    def _shortlist(self, index: Indices) -> Indices:
        """Those of ``index`` that gain most for each second, as a tile or by a single question."""
        gains, seconds = self._tile_gains(index)
        order = np.argsort(-(gains / seconds).max(axis=1), kind="stable")
        single = np.argsort(-self._single_worth(index), kind="stable")
        return index[np.union1d(order[:SHORTLIST], single[:SHORTLIST])]

    def _expected(self, index: Indices) -> Floats:
        """The pixels of these superpixels that are expected to become of each class, (C,).

        Only of the likeliest class of each: small chances, of very many superpixels, would make a
        rare class look large.
        """
        likeliest = self._beliefs[index].argmax(axis=1)
        moving = self._beliefs[index, likeliest] * self._sizes[index]
        moving[likeliest == self._labels[index]] = 0.0
        found = np.bincount(likeliest, moving, minlength=len(self._pixels))
        return found.astype(np.float64)

    def _worth(self) -> tuple[Floats, float]:
        """1/U(c) for each class, (C,), and A/P: the worth of a pixel."""
        union = np.maximum(self._pixels, 0.0) + np.maximum(self._moving, 0.0)
        return 1.0 / np.maximum(union, 1.0), ACCURACY * self._present / self._total

    def _mending_gains(self, index: Indices) -> tuple[Floats, Floats]:
        """What putting each right would gain times the chance that it is wrong, and that chance.

        Both (K,). Nothing is ever quite sure, so that all is asked about in the end.
        """
        share, pixel = self._worth()
        labels, rows = self._labels[index], np.arange(len(index))
        others = self._beliefs[index]
        wrong = np.maximum(1.0 - others[rows, labels], LEAST_DOUBT)
        others[rows, labels] = -1.0
        likeliest = others.argmax(axis=1)
        return wrong * self._sizes[index] * (share[labels] + share[likeliest] + pixel), wrong

    def _single_worth(self, index: Indices) -> Floats:
        """What a single question about each gains for each second, (K,)."""
        gains, wrong = self._mending_gains(index)
        worth: Floats = gains / (self._pace.accept * (1.0 - wrong) + self._pace.correct * wrong)
        return worth

    def _tile_gains(self, index: Indices) -> tuple[Floats, Floats]:
        """What a tile about each superpixel and class gains, and its seconds; both (K, C)."""
        share, pixel = self._worth()
        labels, rows = self._labels[index], np.arange(len(index))
        worth = share[labels][:, None] + share[None, :] + pixel
        worth = worth * self._sizes[index, None]
        beliefs = self._beliefs[index]
        gains = worth * beliefs
        seconds = np.full(gains.shape, self._pace.tile)
        mending, wrong = self._mending_gains(index)
        gains[rows, labels] = mending
        gains -= CAUTION * worth * (1.0 - beliefs)
        seconds[rows, labels] += self._pace.correct * wrong
        gains[self._refused[index].sum(axis=1) >= REFUSALS] = 0.0
        gains[self._refused[index]] = 0.0
        return gains, seconds

    def _single(self, index: Indices) -> tuple[float, Question]:
        """The best single question, and its worth for each second."""
        worth = self._single_worth(index)
        best = int(worth.argmax())
        return float(worth[best]), Question(index[[best]], None)

    def _page(self, index: Indices) -> tuple[float, Question | None]:
        """The best page, and its worth for each second: of proposals, or of present labels."""
        gains, seconds = self._tile_gains(index)
        best, found = 0.0, None
        for class_id in range(gains.shape[1]):
            present = self._labels[index] == class_id
            for group in (np.flatnonzero(~present), np.flatnonzero(present)):
                order = self._best_tiles(gains[group, class_id], seconds[group, class_id])
                chosen = group[order]
                taken = np.cumsum(seconds[chosen, class_id]) + self._pace.page
                worth = np.cumsum(gains[chosen, class_id]) / taken
                if len(worth) and worth.max() > best:
                    best = float(worth.max())
                    found = Question(index[chosen[: int(worth.argmax()) + 1]], class_id)
        return best, found

    def _best_tiles(self, gains: Floats, seconds: Floats) -> Indices:
        """The tiles that gain most for each second, as many as a page holds, best first."""
        worth = gains / seconds
        order = np.argsort(-worth, kind="stable")[: self._tiles]
        return np.asarray(order[gains[order] > 0])
