"""How labels were confirmed, what that took, and how often the machine proposed the right class.

Computes on entries of the ledger. Called by ``overview`` and ``exports``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from alc_backend.common.types import TextEnum
from alc_backend.core.intervals import wilson
from alc_backend.store.ledger import Judgement
from alc_backend.store.models import EntryKind, LedgerEntry

INTERRUPTED = 10.0
"""A lead time of more than so many medians is taken for an interruption, and left out."""


class Way(TextEnum):
    """How a person confirms labels."""

    SINGLE = "single"
    """By answering a question about one superpixel."""

    PAGE = "page"
    """By leaving its tile ticked on a page."""

    EDIT = "edit"
    """By changing most of it by hand in the dataset project."""


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


def confirmed(entries: Sequence[LedgerEntry], judged: Judgement) -> list[Confirmed]:
    """What was confirmed in each way; ``entries`` in force, in replay order, and their judgement.

    A superpixel that was confirmed in several ways counts for the last one.
    """
    ways: dict[int, Way] = {}
    for entry in entries:
        if entry.kind == EntryKind.EDIT:
            changes = [change for change in entry.changes or () if change["most"]]
            ways.update({change["superpixel"]: Way.EDIT for change in changes})
        elif entry.superpixel_id is not None:
            settling = judged.resolved.get(entry.superpixel_id)
            if settling is not None and settling.id == entry.id:
                ways[entry.superpixel_id] = _way_of(entry)
    counts = Counter(ways.values())
    screens = _screens(entries)
    return [Confirmed(way, counts[way], *_times(screens[way])) for way in Way]


def precisions(entries: Iterable[LedgerEntry], classes: Sequence[str]) -> list[Precision]:
    """How often each class was right where pages proposed it, in the order of ``classes``."""
    tiles: Counter[int] = Counter()
    right: Counter[int] = Counter()
    for entry in entries:
        told = entry.is_answer or entry.kind == EntryKind.RULED_OUT
        if entry.position and entry.proposed is not None and told:
            tiles[entry.proposed] += 1
            right[entry.proposed] += entry.is_answer
    return [
        Precision(name, tiles[number], right[number], *wilson(right[number], tiles[number]))
        for number, name in enumerate(classes)
        if tiles[number]
    ]


def share_accepted(entries: Iterable[LedgerEntry]) -> float | None:
    """p of Theorem 3.1: the share of pseudo labels accepted by answers to single questions.

    None without such answers. Pages do not count: they propose other classes, too.
    """
    given = [entry.kind for entry in entries if entry.is_answer and not entry.position]
    return given.count(EntryKind.ACCEPT) / len(given) if given else None


def _way_of(entry: LedgerEntry) -> Way:
    if entry.superpixel_id is None:
        return Way.EDIT
    return Way.PAGE if entry.position else Way.SINGLE


@dataclass
class _Screen:
    """What one annotation took, in seconds (0 where that is not known), and how many it named."""

    seconds: float = 0.0
    named: int = 0


def _screens(entries: Iterable[LedgerEntry]) -> dict[Way, list[_Screen]]:
    found: dict[Way, dict[int, _Screen]] = {way: {} for way in Way}
    for entry in entries:
        screen = found[_way_of(entry)].setdefault(entry.annotation_id, _Screen())
        screen.seconds += entry.lead_time or 0.0
        screen.named += int(entry.is_answer) + sum(change["most"] for change in entry.changes or ())
    return {way: list(screens.values()) for way, screens in found.items()}


def _times(screens: Iterable[_Screen]) -> tuple[float | None, float | None]:
    """The median time of a screen, and the time for each superpixel that they named."""
    timed = [screen for screen in screens if screen.seconds > 0]
    if not timed:
        return None, None
    limit = INTERRUPTED * median(screen.seconds for screen in timed)
    kept = [screen for screen in timed if screen.seconds <= limit]
    seconds, named = [screen.seconds for screen in kept], sum(screen.named for screen in kept)
    return median(seconds), sum(seconds) / named if named else None
