"""What differs from the initial label maps, superpixel by superpixel, and who said so.

Computes on a snapshot; writes two files of an export. Called by ``export``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from alc_backend.common.files import json_line, write_csv
from alc_backend.core.arrays import VOID
from alc_backend.loop.exports.snapshot import Maps, Snapshot
from alc_backend.store import ledger
from alc_backend.store.models import Image, LedgerEntry


@dataclass(frozen=True)
class Change:
    """What an entry of the ledger changed in one superpixel, from one class to another.

    ``superpixel`` is 0 outside of all superpixels; ``before`` and ``after`` are class names, None
    for void; ``pixels`` counts those that really differ now. ``agreement`` is the share of votes
    for the class in force where several annotators were asked, else None; ``answered_at`` is in
    UTC; ``seconds`` is how long the annotator took, as Label Studio measured; the tiles of a page
    share its time equally. ``position`` is that of the tile on a page, from 1, and ``proposed`` the
    class that the page proposed; 0 and None where no page was answered. What the machine wrote by
    itself is of the kind "machine", as is its annotator, and has the position in its batch.
    """

    image: str
    superpixel: int
    kind: str
    before: str | None
    after: str | None
    pixels: int
    round: int
    annotators: tuple[str, ...]
    agreement: float | None
    answered_at: str
    seconds: float | None
    position: int = 0
    proposed: str | None = None


COLUMNS = {"before": "from", "after": "to"}
"""The names that fields have in the files, where these are no Python names."""


class Changes:
    """Finds the changes in each image of a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._classes = snapshot.project.classes

    def of(self, image: Image, maps: Maps) -> list[Change]:
        """The changes of an image, by superpixel number, then in the order they were made."""
        changed = maps.labels != maps.initial
        parts = np.stack(
            [
                values[changed].astype(np.int64)
                for values in (maps.superpixels, maps.authors, maps.initial, maps.labels)
            ]
        )
        found, counts = np.unique(parts, axis=1, return_counts=True)
        given: dict[int | None, list[LedgerEntry]] = {}
        for entry in maps.entries:
            given.setdefault(entry.superpixel_id, []).append(entry)
        support = [_support(entry, given) for entry in maps.writers]
        return [
            self._change(
                image, number, maps.writers[author - 1], support[author - 1], before, after, pixels
            )
            for (number, author, before, after), pixels in zip(
                found.T.tolist(), counts.tolist(), strict=True
            )
        ]

    def _change(
        self,
        image: Image,
        number: int,
        entry: LedgerEntry,
        support: _Support,
        before: int,
        after: int,
        pixels: int,
    ) -> Change:
        annotators, agreement = support
        return Change(
            image=image.key,
            superpixel=number,
            kind=entry.kind,
            before=self._name(before),
            after=self._name(after),
            pixels=pixels,
            round=entry.round_number,
            annotators=annotators,
            agreement=agreement,
            answered_at=ledger.replay_order(entry)[0].isoformat(),
            seconds=entry.lead_time,
            position=entry.position,
            proposed=None if entry.proposed is None else self._name(entry.proposed),
        )

    def _name(self, class_id: int) -> str | None:
        return None if class_id == VOID else str(self._classes[class_id])


_Support = tuple[tuple[str, ...], float | None]
"""The annotators behind an entry, and the share of the votes that agree with it."""


def _support(entry: LedgerEntry, said: Mapping[int | None, list[LedgerEntry]]) -> _Support:
    """What supports an entry in force, by what was ``said`` of each superpixel (row id).

    The share is None where one annotator was asked.
    """
    given = [] if entry.superpixel_id is None else said[entry.superpixel_id]
    if entry.is_by_machine or not any(answer.overlap > 1 for answer in given):
        return (entry.annotator,), None
    votes = ledger.votes_of(given)
    agreeing = [vote.annotator for vote in votes if vote.class_id == entry.class_id]
    share = round(len(agreeing) / len(votes), 4) if votes else None
    return tuple(sorted({entry.annotator, *agreeing})), share


def write(root: Path, changes: Sequence[Change]) -> None:
    """Write ``changes.json``, one change a line, and ``changes.csv`` with the same columns.

    In CSV, annotators are separated by semicolons, what is None is left empty, and an apostrophe
    stands before text that looks like a formula.
    """
    names = [COLUMNS.get(field.name, field.name) for field in fields(Change)]
    rows = [dict(zip(names, asdict(change).values(), strict=True)) for change in changes]
    text = ",\n".join(json_line(row) for row in rows)
    (root / "changes.json").write_text(f"[\n{text}\n]\n" if rows else "[]\n", "utf-8")
    write_csv(root / "changes.csv", [names, *(_cells(row.values()) for row in rows)])


def _cells(values: Iterable[object]) -> list[object]:
    return [";".join(value) if isinstance(value, tuple) else value for value in values]
