"""Which superpixels of a dataset a user study asks about: clear ones, of known truth.

How many of their labels are wrong is fixed, and every other choice is a draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from alc_backend.core.arrays import VOID
from alc_backend.core.draws import draw
from alc_backend.errors import SettingsError
from alc_backend.study.record import Asked

CLEAR = 0.8
"""The least share of a superpixel's pixels that must be of its class, and have its label."""

SMALLEST = 0.002
"""The least area of a superpixel, as a share of its image's: what a person can see."""


def candidates(
    key: str,
    labels: NDArray[np.uint8],
    superpixels: NDArray[np.int32],
    truth: NDArray[np.uint8],
) -> Iterator[Asked]:
    """The superpixels of an image that a person can be asked about.

    All maps have the shape (H, W). Left out are the small ones, and those of which less than CLEAR
    is of one class or has one label. The pixel that is asked about lies farthest from the edge of
    what is of that class and has that label.
    """
    least = SMALLEST * labels.size
    for number, window in enumerate(ndimage.find_objects(superpixels), start=1):
        if window is None:
            continue
        inside = superpixels[window] == number
        size = int(inside.sum())
        if size < least:
            continue
        label, labelled = _most_common(labels[window][inside])
        class_id, true = _most_common(truth[window][inside])
        if VOID in (label, class_id) or min(labelled, true) < CLEAR * size:
            continue
        both = inside & (labels[window] == label) & (truth[window] == class_id)
        depth = ndimage.distance_transform_edt(np.pad(both, 1))[1:-1, 1:-1]
        row, col = np.unravel_index(int(depth.argmax()), depth.shape)
        yield Asked(
            image=key,
            superpixel=number,
            row=int(row) + window[0].start,
            col=int(col) + window[1].start,
            label=label,
            truth=class_id,
        )


def _most_common(values: NDArray[np.uint8]) -> tuple[int, int]:
    """The value that occurs most often, the lowest of equals, and how often it does."""
    counts = np.bincount(values)
    return int(counts.argmax()), int(counts.max())


def drawn(
    found: Sequence[Asked], count: int, share_wrong: float, seed: int, *, group: int | None = None
) -> list[Asked]:
    """``count`` questions, of which the share ``share_wrong`` shows a wrong label.

    Images are asked about once before any is asked about twice. With ``group``, questions that
    show the same label come up to so many at a time, for the pages that they stand on. Raises
    SettingsError where the dataset has too few.
    """
    left = {True: round(count * share_wrong)}
    left[False] = count - left[True]
    for is_wrong, wanted in left.items():
        there = sum(asked.is_wrong == is_wrong for asked in found)
        if there < wanted:
            kind = "a wrong" if is_wrong else "the right"
            raise SettingsError(
                f"the dataset has {there} clear superpixels with {kind} label, and {wanted} are "
                "asked for: choose fewer --questions, another --share-wrong, or more images"
            )
    rest = sorted(found, key=lambda asked: draw(f"study/{asked.image}/{asked.superpixel}", seed))
    if group is None:
        chosen = _take(rest, left, count, Counter())
    else:
        chosen = _in_groups(rest, left, share_wrong, group, seed)
    return sorted(chosen, key=lambda asked: draw(f"turn/{asked.image}/{asked.superpixel}", seed))


def _in_groups(
    rest: list[Asked], left: dict[bool, int], share_wrong: float, group: int, seed: int
) -> list[Asked]:
    """As many as are ``left`` of either kind, by groups that show the same label."""
    used: Counter[str] = Counter()
    chosen: list[Asked] = []
    while sum(left.values()):
        labels = sorted({a.label for a in rest}, key=lambda label: draw(f"label/{label}", seed))
        for label in labels:
            size = min(group, sum(left.values()))
            wrong = min(left[True], max(round(size * share_wrong), size - left[False]))
            quota = {True: wrong, False: min(left[False], size - wrong)}
            here = [asked for asked in rest if asked.label == label]
            taken = _take(here, quota, size, used)
            for asked in taken:
                left[asked.is_wrong] -= 1
            chosen += taken
            rest = [asked for asked in rest if asked not in taken]
    return chosen


def _take(
    rest: Sequence[Asked], quota: dict[bool, int], count: int, used: Counter[str]
) -> list[Asked]:
    """The first ``count`` of either kind's ``quota``, from images that were used least."""
    left, taken = dict(quota), list[Asked]()
    open_ = list(rest)
    while len(taken) < count:
        fitting = [asked for asked in open_ if left[asked.is_wrong]]
        if not fitting:
            break
        best = min(fitting, key=lambda asked: used[asked.image])
        open_.remove(best)
        taken.append(best)
        left[best.is_wrong] -= 1
        used[best.image] += 1
    return taken


def in_pages(questions: Sequence[Asked], tiles: int) -> list[tuple[int, ...]]:
    """The indices of the questions of each page: up to ``tiles`` that show the same label."""
    by_label: dict[int, list[int]] = {}
    for index, asked in enumerate(questions):
        by_label.setdefault(asked.label, []).append(index)
    return [
        tuple(int(index) for index in part)
        for members in by_label.values()
        for part in np.array_split(members, -(-len(members) // tiles))
    ]
