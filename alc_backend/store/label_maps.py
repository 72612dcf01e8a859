"""Label maps: the initial one, with the ledger's answers and edits replayed over it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.core.arrays import VOID
from alc_backend.core.runs import SuperpixelRuns
from alc_backend.store.files import ProjectFiles
from alc_backend.store.kinds import EntryKind
from alc_backend.store.ledger import FEW_IMAGES, judge, replay_order, standing
from alc_backend.store.models import LedgerEntry, Project, Round, Superpixel


class LabelMaps:
    """The label maps of a project as they were after one entry of the ledger (D_t of the paper).

    ``answers`` is the number of superpixels that answers have resolved.
    """

    def __init__(
        self,
        session: Session,
        files: ProjectFiles,
        project_id: int,
        upto: int | None = None,
        *,
        overlap: int | None = None,
        images: Collection[int] | None = None,
        removed: bool = False,
    ) -> None:
        """Read what is needed from the ledger.

        ``upto`` is the id of the last entry that counts (default: all); ``overlap`` the number of
        annotators that were asked then (default: the project's present number). Where ``images``
        (ids) are given, the label maps of no others may be read. ``removed`` is that of
        :func:`~alc_backend.store.ledger.standing`.
        """
        self._files = files
        self._reach_rounds = {
            round.number
            for round in session.scalars(select(Round).where(Round.project_id == project_id))
            if round.config.epsilon > 0
        }
        entries = standing(session, project_id, upto, images, removed=removed)
        overlap = overlap or session.get_one(Project, project_id).overlap
        judged = judge(entries, overlap)
        resolved = judged.resolved
        self.answers = len(resolved)
        mentioned = (
            select(Superpixel.id, Superpixel.number)
            .join(LedgerEntry, LedgerEntry.superpixel_id == Superpixel.id)
            .distinct()
        )
        if images is not None and len(images) <= FEW_IMAGES:
            mentioned = mentioned.where(LedgerEntry.image_id.in_(images))
        else:
            mentioned = mentioned.where(LedgerEntry.project_id == project_id)
        numbers = {row.id: row.number for row in session.execute(mentioned)}
        self._answered: dict[int, list[tuple[int, LedgerEntry]]] = {}
        for superpixel_id, answer in resolved.items():
            self._answered.setdefault(answer.image_id, []).append((numbers[superpixel_id], answer))
        self._machine: dict[int, list[tuple[int, LedgerEntry]]] = {}
        for superpixel_id, entry in judged.machine.items():
            self._machine.setdefault(entry.image_id, []).append((numbers[superpixel_id], entry))
        self._entries: dict[int, list[LedgerEntry]] = {}
        for entry in entries:
            self._entries.setdefault(entry.image_id, []).append(entry)

    def entries(self, image_id: int) -> list[LedgerEntry]:
        """The entries in force about an image, in replay order."""
        return self._entries.get(image_id, [])

    def judged(self, image_id: int, chosen: Collection[int]) -> NDArray[np.bool_]:
        """The pixels, bool (H, W), that answers about superpixels ``chosen`` (row ids) label."""
        superpixels = self._files.read_superpixels(image_id)
        judged = np.zeros(superpixels.shape, dtype=np.bool_)
        places = _Places(self._files, image_id, superpixels)
        for number, answer in self._answered.get(image_id, []):
            if answer.superpixel_id in chosen:
                judged.reshape(-1)[self._written(places, number, answer)] = True
        return judged

    def _written(self, places: _Places, number: int, answer: LedgerEntry) -> NDArray[np.int64]:
        """The flat indices, int64 (P,), of the pixels that an answer is about: its superpixel's.

        With ε > 0 (eq. 12), only the part of it that is similar enough to the pixel asked about.
        """
        written = places.superpixels.pixels(number)
        if answer.round_number in self._reach_rounds:
            written = written[places.reach(answer.round_number)[written]]
        return written

    def read(self, image_id: int, hidden: Collection[int] = ()) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W), with answers and edits written over it.

        Corrections, edits and what the machine wrote by itself are written in replay order. An
        accept writes its class only where the representative pixel does not have it: the map is
        void there, or the entry that wrote it was deleted. Superpixels (row ids) in ``hidden``
        become void.
        """
        labels = self._files.read_label_map("initial", image_id)
        answered = self._answered.get(image_id, [])
        writes = [
            (number, answer) for number, answer in answered if answer.superpixel_id not in hidden
        ]
        concealed = [number for number, answer in answered if answer.superpixel_id in hidden]
        if not (writes or concealed or self._has_more(image_id)):
            return labels
        labels = labels.copy()
        superpixels = self._files.read_superpixels(image_id)
        for _ in self._replay(image_id, labels, superpixels, writes):
            pass
        labels[np.isin(superpixels, concealed)] = VOID
        return labels

    def version(self, image_id: int, about: Sequence[Any] = ()) -> str:
        """A name, 64 hexadecimal digits, for the present label map of an image.

        Another initial label map, superpixel map, answer or edit gives another name, and so does
        something else that was made from the label map ``about`` these JSON values.
        """
        writes = [
            (
                number, entry.annotation_id, entry.revision, entry.kind, entry.class_id,
                entry.row, entry.col, entry.round_number in self._reach_rounds, entry.round_number,
            )
            for number, entry in self._writes(image_id, self._answered.get(image_id, []))
        ]  # fmt: skip
        content = json.dumps([self._files.maps_digest(image_id), writes, list(about)])
        return hashlib.sha256(content.encode()).hexdigest()

    def read_with_authors(
        self, image_id: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], list[LedgerEntry]]:
        """The label map, the author of each pixel, and the entries that wrote to the map.

        The label map is uint8 (H, W). The authors are int32 (H, W): the index in the list of the
        entry that wrote the pixel last, plus 1; 0 where the initial label map shows.
        """
        labels = self._files.read_label_map("initial", image_id).copy()
        authors = np.zeros(labels.shape, dtype=np.int32)
        entries: list[LedgerEntry] = []
        answered = self._answered.get(image_id, [])
        if answered or self._has_more(image_id):
            superpixels = self._files.read_superpixels(image_id)
            for entry, written in self._replay(image_id, labels, superpixels, answered):
                entries.append(entry)
                authors.reshape(-1)[written] = len(entries)
        return labels, authors, entries

    def _has_more(self, image_id: int) -> bool:
        """Whether anything but answers was written over the initial label map."""
        return bool(self._edits(image_id)) or image_id in self._machine

    def _edits(self, image_id: int) -> list[LedgerEntry]:
        return [entry for entry in self.entries(image_id) if entry.kind == EntryKind.EDIT]

    def _writes(
        self, image_id: int, answered: list[tuple[int, LedgerEntry]]
    ) -> list[tuple[int, LedgerEntry]]:
        """Answers, edits and the machine's labels in replay order; an edit has the number 0."""
        edits = [(0, edit) for edit in self._edits(image_id)]
        writes = [*answered, *self._machine.get(image_id, []), *edits]
        return sorted(writes, key=lambda write: replay_order(write[1]))

    def _replay(
        self,
        image_id: int,
        labels: NDArray[np.uint8],
        superpixels: NDArray[np.int32],
        answered: list[tuple[int, LedgerEntry]],
    ) -> Iterator[tuple[LedgerEntry, NDArray[np.int64] | NDArray[np.bool_]]]:
        """Write answers and edits over ``labels``; yield each entry that writes, and its pixels.

        ``answered`` has the answers with the numbers of their superpixels. The pixels index the
        flattened map. All answers together take one pass over the image.
        """
        places = _Places(self._files, image_id, superpixels)
        flat = labels.reshape(-1)
        for number, entry in self._writes(image_id, answered):
            if entry.kind == EntryKind.EDIT:
                edited, changed = self._files.read_edit(entry.annotation_id, entry.revision)
                labels[changed] = edited[changed]
                yield entry, changed.reshape(-1)
            elif entry.kind != EntryKind.ACCEPT or labels[entry.row, entry.col] != entry.class_id:
                assert entry.class_id is not None  # only a skip and what is ruled out name none
                written = self._written(places, number, entry)
                flat[written] = entry.class_id
                yield entry, written


class _Places:
    """Where the superpixels of an image lie, and what rounds reach of them."""

    def __init__(self, files: ProjectFiles, image_id: int, superpixels: NDArray[np.int32]) -> None:
        self._files, self._image_id = files, image_id
        self._map = superpixels
        self._reached: tuple[int, NDArray[np.bool_]] | None = None

    @cached_property
    def superpixels(self) -> SuperpixelRuns:
        """The pixels of each superpixel; found when an answer asks for the first of them."""
        return SuperpixelRuns(self._map)

    def reach(self, number: int) -> NDArray[np.bool_]:
        """The pixels that a round reaches, bool (H·W,); those of the last round are kept."""
        if self._reached is None or self._reached[0] != number:
            self._reached = number, self._files.read_reach(number, self._image_id).reshape(-1)
        return self._reached[1]
