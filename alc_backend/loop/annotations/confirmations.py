"""How labels were confirmed, what that took, and how often the machine proposed the right class.

Computes on the counts of a project. Called by ``overview`` and ``exports``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alc_backend.core.intervals import wilson
from alc_backend.store.derived import Counted, Way
from alc_backend.store.kinds import ANSWERS, EntryKind
from alc_backend.store.tallies import Key, weighted_median

INTERRUPTED = 10.0
"""A lead time of more than so many medians is taken for an interruption, and left out."""


@dataclass(frozen=True)
class Confirmed:
    """What was confirmed in one way.

    ``labels`` counts the superpixels that have their class by it. ``screen_s`` is the median time
    that a screen took (a question, a page, an image), ``label_s`` the time for each superpixel
    that was given a class, that of skips and of unticked tiles included; both in seconds, without
    interruptions, None where no time is known.
    """

    way: Way
    labels: int
    screen_s: float | None
    label_s: float | None


@dataclass(frozen=True)
class Precision:
    """How often a class (by name) was right where pages proposed it.

    Of ``tiles`` that people answered, ``right`` stayed ticked; that share lies between ``low`` and
    ``high`` with 95 % confidence (Wilson). A proposal is made before its superpixel is answered,
    so that no answer is measured by itself.
    """

    name: str
    tiles: int
    right: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share that stayed ticked, in [0, 1]."""
        return self.right / self.tiles


def confirmed(counts: Counter[Key]) -> list[Confirmed]:
    """What was confirmed in each way, by the counts of a project.

    A superpixel that was confirmed in several ways counts for the last one.
    """
    return [
        Confirmed(way, counts[Key(Counted.CONFIRMED, about=str(way))], *_times(counts, way))
        for way in Way
    ]


def precisions(counts: Counter[Key], classes: Sequence[str]) -> list[Precision]:
    """How often each class was right where pages proposed it, in the order of ``classes``."""
    found = []
    for number, name in enumerate(classes):
        tiles = counts[Key(Counted.PROPOSED, number=number)]
        right = counts[Key(Counted.TICKED, number=number)]
        if tiles:
            found.append(Precision(name, tiles, right, *wilson(right, tiles)))
    return found


def share_accepted(kinds: Mapping[str, int]) -> float | None:
    """p of Theorem 3.1: the share of pseudo labels accepted by answers to single questions.

    ``kinds`` counts those answers by their kind; None without any. Pages do not count: they propose
    other classes, too.
    """
    given = sum(kinds.get(kind, 0) for kind in ANSWERS)
    return kinds.get(EntryKind.ACCEPT, 0) / given if given else None


def said_singly(counts: Counter[Key]) -> Counter[str]:
    """The entries in force that are no tiles, by their kind."""
    found: Counter[str] = Counter()
    for key, count in counts.items():
        if key.what == Counted.SAID:
            found[key.about] += count
    return found


def _times(counts: Counter[Key], way: Way) -> tuple[float | None, float | None]:
    """The median time of a screen, and the time for each superpixel named there, in seconds."""
    screens = {
        key.number: count
        for key, count in counts.items()
        if key.what == Counted.SCREENS and key.about == way
    }
    middle = weighted_median(screens)
    if middle is None:
        return None, None
    kept = {time: count for time, count in screens.items() if time <= INTERRUPTED * middle}
    named = sum(counts[Key(Counted.NAMED, about=str(way), number=time)] for time in kept)
    took = sum(time * count for time, count in kept.items()) / 1000
    typical = weighted_median(kept)
    return None if typical is None else typical / 1000, took / named if named else None
