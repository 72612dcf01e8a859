"""Statistics of one image that pool, acquisitions and expansion share, computed once."""

from __future__ import annotations

from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.core import kernels_numpy
from alc_backend.core.arrays import (
    checked_labels,
    checked_probabilities,
    checked_superpixels,
    dense,
    refuse,
)
from alc_backend.core.kernels import fastest_kernels

ENTROPY_BLOCK = 16384
"""Pixels whose logarithms are taken at a time, so that temporaries stay in the CPU's cache."""

LEAST_LOG = np.float32(-104)
"""A number below the logarithm of every positive float32."""


class ImageStatistics:
    """The probabilities of one image with its current labels and superpixels, checked.

    Labels and superpixels are copied, because the compiled kernels rely on checked values. Takes
    21 bytes a pixel and three tables of N·C numbers.

    With P = H·W pixels in raster order and N superpixels, ids ascending:

    - ``probabilities`` float32 (C, H, W), ``labels`` uint8 (H, W), ``shape`` (H, W);
    - ``ids`` int32 (N,), ``sizes`` int64 (N,) in pixels, ``index`` int32 (P,): the superpixel's
      index in ``ids`` plus 1, 0 = not queryable;
    - ``predicted`` uint8 (P,): ŷ(x), of equals the lowest class;
    - ``self_confidence`` float32 (P,): f(y(x); x) in [0, 1], void labels replaced by ŷ;
    - ``squares`` float64 (P,): ‖f(x)‖²;
    - ``dominant`` uint8 (N,): D(s), the mode of ŷ, of equals the lowest class (eq. 5).
    """

    def __init__(
        self,
        probabilities: Any,
        labels: Any,
        superpixels: Any,
        *,
        kernels: ModuleType | None = None,
    ) -> None:
        """Check the arrays and compute the statistics; ValueError names an array that does not fit.

        ``probabilities`` (C, H, W), 2 <= C <= 255, softmax over C, any floating dtype and strides
        (contiguous float32 is not copied, anything else converted to it once); ``labels`` uint8
        (H, W), class ids, 255 = void; ``superpixels`` integer (H, W), 0 = not queryable.
        ``kernels`` is one of the two modules of kernels, which give the same results; by
        default the faster one that is installed.
        """
        self._kernels = kernels or fastest_kernels()
        self.probabilities = checked_probabilities(probabilities)
        classes, height, width = self.probabilities.shape
        self.shape = (height, width)
        self.labels = checked_labels(labels, self.shape, classes).copy()
        self.ids, self.index = dense(checked_superpixels(superpixels, self.shape))
        self.index.setflags(write=False)
        self._flat = self.probabilities.reshape(classes, -1)
        pixels = height * width
        self.predicted = np.empty(pixels, dtype=np.uint8)
        self.self_confidence = np.empty(pixels, dtype=np.float32)
        self.squares = np.empty(pixels, dtype=np.float64)
        votes = np.zeros((len(self.ids) + 1, classes), dtype=np.int32)
        unsound = self._kernels.survey(
            self._flat,
            self.labels.reshape(-1),
            self.index,
            self.predicted,
            self.self_confidence,
            self.squares,
            votes,
        )
        if unsound:
            refuse(self._flat)
        self._dominant = votes.argmax(axis=1).astype(np.uint8)
        self.dominant = self._dominant[1:]
        self.sizes = votes[1:].sum(axis=1, dtype=np.int64)
        self._agreeing = votes.max(axis=1)

    @property
    def classes(self) -> int:
        """The number of classes C."""
        return len(self.probabilities)

    def __len__(self) -> int:
        """The number of superpixels N."""
        return len(self.ids)

    @cached_property
    def _sums(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        pull, total = np.zeros((2, len(self) + 1, self.classes))
        self._kernels.sums(
            self._flat,
            self.index,
            self.predicted,
            self._dominant,
            self.self_confidence,
            self.squares,
            kernels_numpy.rounder_for(len(self.index)),
            pull,
            total,
        )
        total[1:] /= self._agreeing[1:, None]
        return pull, total

    @cached_property
    def representatives(self) -> NDArray[np.intp]:
        """The flat index of the representative pixel of every superpixel (eqs. 3-6), (N,)."""
        chosen = np.zeros(len(self) + 1, dtype=np.intp)
        self._kernels.representatives(
            self._flat,
            self.index,
            self.predicted,
            self._dominant,
            self.squares,
            self._sums[1],
            chosen,
        )
        return chosen[1:]

    @cached_property
    def doubt(self) -> NDArray[np.float64]:
        """1 - self-confidence of every pixel (eq. 8), in [0, 1], (P,)."""
        return 1.0 - self.self_confidence.astype(np.float64)

    @cached_property
    def rivalry(self) -> NDArray[np.float64]:
        """The second largest probability of every pixel divided by the largest, in [0, 1], (P,)."""
        rivalry = np.empty(len(self.index))
        self._kernels.rivalry(self._flat, self.predicted, rivalry)
        return rivalry

    def sims(self, pixels: NDArray[np.intp], members: NDArray[np.intp]) -> NDArray[np.float64]:
        """SIM at ε = 0 of queried pixels, float64 (M,): f̂(x_r) · Σ over s of f̂(x)·doubt(x) (eq. 9).

        ``pixels`` (M,) are flat indices, ``members`` (M,) the indices of their superpixels in
        ``ids``. One weighted sum per superpixel serves every pixel in it.
        """
        predictions = self._flat[:, pixels].T.astype(np.float64)
        products = np.einsum("mc,mc->m", predictions, self._sums[0][members + 1])
        return np.asarray(products / np.sqrt(self.squares[pixels]))

    def mean_sims(self) -> NDArray[np.float64]:
        """Σ over s of cos(f(x), m)·doubt(x) for every superpixel, float64 (N,).

        m is the mean prediction of the superpixel's pixels that are predicted as its dominant
        class (eq. 6).
        """
        pull, means = self._sums
        lengths = np.linalg.norm(means[1:], axis=1)
        return np.asarray(np.einsum("nc,nc->n", means[1:], pull[1:]) / lengths)

    def similarities(self, pixels: NDArray[np.intp]) -> NDArray[np.float64]:
        """The cosine of every pixel's prediction with that at its superpixel's reference pixel.

        ``pixels`` (N,) are the flat indices of the reference pixels. Returns float64 (P,) in
        [0, 1]: exactly 1 for equal predictions, 0 for pixels that are not queryable.
        """
        references = np.zeros((len(self) + 1, self.classes))
        references[1:] = self._flat[:, pixels].T
        products = self._dots(references)
        squares = np.concatenate([np.ones(1), self.squares[pixels]])
        products /= np.sqrt(squares[self.index] * self.squares)
        return np.minimum(products, 1.0, out=products)

    def pixel_sims(self) -> NDArray[np.float64]:
        """SIM at ε = 0 of every pixel, as if it were queried, (P,); 0 where not queryable."""
        products = self._dots(self._sums[0])
        products /= np.sqrt(self.squares)
        return products

    def entropy(self) -> NDArray[np.float32]:
        """The entropy of every pixel's prediction, -Σ_c f log f in nats, (P,)."""
        entropy = np.empty(len(self.index), dtype=np.float32)
        for start in range(0, len(entropy), ENTROPY_BLOCK):
            block = self._flat[:, start : start + ENTROPY_BLOCK]
            with np.errstate(divide="ignore"):
                logarithms = np.log(block)
            np.clip(logarithms, LEAST_LOG, 0, out=logarithms)  # so that 0 log 0 = 0
            np.einsum("cp,cp->p", logarithms, block, out=entropy[start : start + ENTROPY_BLOCK])
        return -entropy

    def sums(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The sums of ``values`` (P,) over each superpixel, float64 (N,)."""
        out = np.empty(len(self) + 1)
        self._kernels.totals(self.index, np.asarray(values, dtype=np.float64), out)
        return out[1:]

    def mean_probabilities(self) -> NDArray[np.float32]:
        """The mean of the probabilities over each superpixel, float32 (N, C)."""
        out = np.empty((len(self) + 1, self.classes))
        self._kernels.class_totals(self._flat, self.index, out)
        means: NDArray[np.float32] = (out[1:] / self.sizes[:, None]).astype(np.float32)
        return means

    def means(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The means of ``values`` (P,) over each superpixel, float64 (N,)."""
        means: NDArray[np.float64] = self.sums(values) / self.sizes
        return means

    def _dots(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        products = np.empty(len(self.index))
        self._kernels.dots(self._flat, self.index, table, products)
        return products
