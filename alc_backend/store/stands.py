"""What stands for superpixels by the ledger, and what that adds to the counts; computes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from alc_backend.store import tallies
from alc_backend.store.derived import (
    DISPUTED,
    ON_MACHINE,
    RESOLVED,
    SETTLED,
    WAITING,
    Counted,
    Way,
)
from alc_backend.store.kinds import ANSWERS, EntryKind
from alc_backend.store.ledger import Judgement
from alc_backend.store.models import LedgerEntry
from alc_backend.store.tallies import Key

CHANGED = (EntryKind.CORRECT, EntryKind.EDIT)
"""The kinds of deciding entries that gave a superpixel another class than it had."""


class Stand(NamedTuple):
    """What stands for a superpixel, as :class:`~alc_backend.store.derived.Standing` has it."""

    image_id: int
    entry_id: int | None
    class_id: int | None
    kind: EntryKind | None
    way: Way | None
    waiting: bool
    disputed: tuple[int, ...] | None

    def counts(self) -> Counter[Key]:
        """What it adds to the counts."""
        found: Counter[Key] = Counter()
        for state, holds in (
            (RESOLVED, self.kind in ANSWERS),
            (SETTLED, self.way is not None),
            (DISPUTED, self.disputed is not None),
            (WAITING, self.waiting),
            (ON_MACHINE, self.kind == EntryKind.MACHINE and self.way is None),
        ):
            if holds:
                found[Key(Counted.SUPERPIXELS, about=state)] += 1
        if self.way is not None:
            assert self.class_id is not None  # whatever confirms a label names its class
            found[Key(Counted.CONFIRMED, about=str(self.way), number=self.class_id)] += 1
        return found


def stands(entries: Sequence[LedgerEntry], judged: Judgement) -> dict[int, Stand]:
    """What stands for each superpixel (row id) by entries in force, in replay order, as judged."""
    ways: dict[int, Way] = {}
    edits: dict[int, tuple[LedgerEntry, int]] = {}
    for said in entries:
        if said.kind == EntryKind.EDIT:
            for change in said.changes or ():
                if change["most"]:
                    edits[change["superpixel"]] = said, change["to"]
                    ways[change["superpixel"]] = Way.EDIT
        elif said.superpixel_id is not None:
            settling = judged.resolved.get(said.superpixel_id)
            if settling is not None and settling.id == said.id:
                ways[said.superpixel_id] = tallies.way_of(said)
    images = {said.superpixel_id: said.image_id for said in entries}
    about = judged.settled | judged.machine.keys() | judged.waiting | judged.disputed.keys()
    found = {}
    for superpixel in about:
        edit, to = edits.get(superpixel, (None, None))
        deciding = judged.resolved.get(superpixel) or judged.machine.get(superpixel)
        entry = deciding or edit
        edited_last = ways.get(superpixel) == Way.EDIT
        found[superpixel] = Stand(
            image_id=images[superpixel] if entry is None else entry.image_id,
            entry_id=None if entry is None else entry.id,
            class_id=to if deciding is None or edited_last else deciding.class_id,
            kind=None if entry is None else entry.kind,
            way=ways.get(superpixel),
            waiting=superpixel in judged.waiting,
            disputed=judged.disputed.get(superpixel),
        )
    return found


def is_corrected(kind: EntryKind | None, way: Way | None) -> bool:
    """Whether people gave a superpixel another class, by the kind and way of what stands."""
    return kind in CHANGED or way == Way.EDIT


def corrected_in(found: Iterable[Stand]) -> Counter[int]:
    """How many of what stands was changed by people, by image (row id)."""
    return Counter(stand.image_id for stand in found if is_corrected(stand.kind, stand.way))
