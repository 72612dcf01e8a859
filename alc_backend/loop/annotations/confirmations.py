"""How labels were confirmed, and what that took.

Computes on the counts of a project. Called by ``overview`` and ``exports``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

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


def confirmed(counts: Counter[Key]) -> list[Confirmed]:
    """What was confirmed in each way, by the counts of a project.

    A superpixel that was confirmed in several ways counts for the last one.
    """
    return [Confirmed(way, _labels(counts, way), *_times(counts, way)) for way in Way]


def _labels(counts: Counter[Key], way: Way) -> int:
    """The superpixels of all classes that were confirmed in one way."""
    return sum(
        count for key, count in counts.items() if key.what == Counted.CONFIRMED and key.about == way
    )


def labeler_seconds(counts: Counter[Key]) -> float:
    """The seconds that people took for all questions, pages and images, without interruptions."""
    return (
        sum(sum(time * count for time, count in _kept(counts, way).items()) for way in Way) / 1000
    )


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
    kept = _kept(counts, way)
    named = sum(counts[Key(Counted.NAMED, about=str(way), number=time)] for time in kept)
    took = sum(time * count for time, count in kept.items()) / 1000
    typical = weighted_median(kept)
    return None if typical is None else typical / 1000, took / named if named else None


def _kept(counts: Counter[Key], way: Way) -> dict[int, int]:
    """How many screens took a time, in milliseconds, those of interruptions left out."""
    screens = {
        key.number: count
        for key, count in counts.items()
        if key.what == Counted.SCREENS and key.about == way
    }
    middle = weighted_median(screens)
    if middle is None:
        return {}
    return {time: count for time, count in screens.items() if time <= INTERRUPTED * middle}
