"""What an admin wants to know of each class: how good its labels are, and who has looked at them.

Reads the counts of a project and what stands for its superpixels; changes nothing. Called by
``overview``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.core.intervals import wilson
from alc_backend.store.derived import Counted, Standing
from alc_backend.store.models import Project
from alc_backend.store.tallies import Key

EXAMPLES = 3
"""Superpixels of each class that are shown as examples."""


@dataclass(frozen=True)
class Precision:
    """How often the machine was right where people answered: ``right`` of ``tried`` times.

    The share lies between ``low`` and ``high`` with 95 % confidence (Wilson).
    """

    tried: int
    right: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share that was right, in [0, 1]."""
        return self.right / self.tried


@dataclass(frozen=True)
class ClassFigures:
    """What is known of one class.

    ``confirmed`` counts the superpixels that people confirmed as this class, ``precision`` the
    tiles that stayed ticked of those that proposed it to people (None without any; a proposal is
    made before its superpixel is answered, so that no answer is measured by itself). Where it was
    the pseudo label and a single question corrected it, ``corrected_to`` is the class (by name)
    that it became most often, ``corrections`` how often. ``examples`` are superpixels (row ids)
    confirmed last.
    """

    number: int
    name: str
    confirmed: int
    precision: Precision | None
    corrected_to: str | None
    corrections: int
    examples: list[int]


def class_figures(session: Session, project: Project, counts: Counter[Key]) -> list[ClassFigures]:
    """The figures of each class of a project, in their order, by its counts."""
    confirmed: Counter[int] = Counter()
    corrected: dict[int, list[tuple[int, int]]] = {}
    for key, count in counts.items():
        if key.what == Counted.CONFIRMED:
            confirmed[key.number] += count
        elif key.what == Counted.CORRECTED:
            before, after = divmod(key.number, 256)
            if after < len(project.classes):
                corrected.setdefault(before, []).append((count, after))
    found = []
    for number, name in enumerate(project.classes):
        many, after = max(corrected.get(number, [(0, 0)]), key=lambda one: (one[0], -one[1]))
        found.append(
            ClassFigures(
                number,
                name,
                confirmed[number],
                _precision(counts, number),
                project.classes[after] if many else None,
                many,
                _examples(session, project.id, number) if confirmed[number] else [],
            )
        )
    return found


def _precision(counts: Counter[Key], number: int) -> Precision | None:
    tiles = counts[Key(Counted.PROPOSED, number=number)]
    right = counts[Key(Counted.TICKED, number=number)]
    return Precision(tiles, right, *wilson(right, tiles)) if tiles else None


def _examples(session: Session, project_id: int, class_id: int) -> list[int]:
    """The superpixels of a class that people confirmed last, EXAMPLES at most."""
    return list(
        session.scalars(
            select(Standing.superpixel_id)
            .where(
                Standing.project_id == project_id,
                Standing.class_id == class_id,
                Standing.way.is_not(None),
            )
            .order_by(Standing.entry_id.desc())
            .limit(EXAMPLES)
        )
    )
