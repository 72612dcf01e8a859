"""The pixels that may be queried: representatives of superpixels, or alternatives to compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.core.statistics import ImageStatistics


@dataclass(frozen=True)
class Pool:
    """The candidate queries of an image; every array has shape (M,).

    ``ids`` are superpixel ids; ``rows`` and ``cols`` the pixels to ask about; ``dominant`` the
    class ids D(s) (eq. 5); ``pseudo`` the class ids y(x_r), the predicted class where that is void;
    ``sizes`` the numbers of pixels of the superpixels; ``members`` the indices of the superpixels
    in the image's ``ids``.
    """

    ids: NDArray[np.int32]
    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    dominant: NDArray[np.uint8]
    pseudo: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    members: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.ids)

    def layers(self) -> list[NDArray[np.intp]]:
        """The indices of the entries, in groups with at most one entry of each superpixel."""
        order = np.argsort(self.members, kind="stable")
        ordered = self.members[order]
        starts = np.searchsorted(ordered, ordered)
        turn = np.empty(len(self), dtype=np.intp)
        turn[order] = np.arange(len(self)) - starts
        return [np.flatnonzero(turn == number) for number in range(turn.max(initial=-1) + 1)]

    def check(self, image: ImageStatistics) -> None:
        """Raise ValueError unless this pool lies in the superpixels of ``image``.

        A pool made from other predictions on the same superpixels goes unnoticed.
        """
        height, width = image.shape
        fits = (
            ((self.members >= 0) & (self.members < len(image))).all()
            and ((self.rows >= 0) & (self.rows < height)).all()
            and ((self.cols >= 0) & (self.cols < width)).all()
            and np.array_equal(image.ids[self.members], self.ids)
            and np.array_equal(image.index[self.rows * width + self.cols], self.members + 1)
        )
        if not fits:
            raise ValueError("pool does not belong to image: its pixels lie in other superpixels")


def representative_pixels(image: ImageStatistics) -> Pool:
    """The diversified pixel pool: one entry per superpixel, ids ascending (eqs. 3-6).

    The dominant class is the mode of the pixels' predicted classes (of equals the lowest id). The
    representative pixel is the one, among those predicted as the dominant class, whose prediction
    has the largest cosine with their mean (of equals the first in raster order; cosines are
    compared in float64, so that rounding may decide between exactly equal ones).
    """
    return _pool(image, np.arange(len(image)), image.representatives)


def pixelpick(
    image: ImageStatistics, count: int, *, seed: int | tuple[int, ...], share: float = 0.05
) -> Pool:
    """PixelPick's pool (App. D.3): a uniform draw from the best-ranked pixels of the image.

    All queryable pixels are ranked by their own SIM at ε = 0 (ties in raster order); ``count`` of
    the best ``share`` (at least one pixel) are drawn without repetition, or all when there are
    fewer. Entries are in raster order; several may lie in one superpixel. To exclude a superpixel,
    set it to 0 in the map. ``count`` is the budget of an image: B divided by the number of images.
    Raises ValueError for a negative ``count`` or a ``share`` outside (0, 1].
    """
    if count < 0:
        raise ValueError(f"count must not be negative, not {count}")
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must lie in (0, 1], not {share!r}")
    queryable = np.flatnonzero(image.index)
    order = np.argsort(-image.pixel_sims()[queryable], kind="stable")
    best = queryable[order[: int(np.ceil(share * len(queryable)))]]
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(best, size=min(count, len(best)), replace=False))
    return _pool(image, image.index[drawn].astype(np.intp) - 1, drawn)


def best_pixels(image: ImageStatistics, count: int, *, look_ahead: bool = True) -> Pool:
    """The pool without diversity (Table 3): the ``count`` best queryable pixels of the image.

    Pixels are ranked by their own SIM at ε = 0, or by CIL (eq. 8) without ``look_ahead``; ties in
    raster order. Many may lie in one superpixel. Raises ValueError for a negative ``count``.
    """
    if count < 0:
        raise ValueError(f"count must not be negative, not {count}")
    scores = image.pixel_sims() if look_ahead else image.doubt
    queryable = np.flatnonzero(image.index)
    order = np.argsort(-scores[queryable], kind="stable")
    best = np.sort(queryable[order[:count]])
    return _pool(image, image.index[best].astype(np.intp) - 1, best)


def _pool(image: ImageStatistics, members: NDArray[np.intp], pixels: NDArray[np.intp]) -> Pool:
    rows, cols = np.divmod(pixels, image.shape[1])
    given = image.labels[rows, cols]
    return Pool(
        ids=image.ids[members],
        rows=rows,
        cols=cols,
        dominant=image.dominant[members],
        pseudo=np.where(given == VOID, image.predicted[pixels], given),
        sizes=image.sizes[members],
        members=members,
    )
