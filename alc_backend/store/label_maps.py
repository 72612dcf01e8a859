"""Label maps replayed from the ledger: D_t = D_0 + answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.core.arrays import VOID
from alc_backend.core.draws import chance
from alc_backend.store.files import ProjectFiles
from alc_backend.store.ledger import FEW_IMAGES, judge, place, standing
from alc_backend.store.models import EntryKind, LedgerEntry, Project, Round, Superpixel


class LabelMaps:
    """The label maps of a project at one moment of the ledger."""

    def __init__(
        self,
        session: Session,
        files: ProjectFiles,
        project_id: int,
        upto: int | None = None,
        *,
        overlap: int | None = None,
        images: Collection[int] | None = None,
    ) -> None:
        """``upto``: the moment, by the number of its last ledger entry, None for the present.

        ``overlap``: the number of annotators asked then, None for as many as are asked now. Only
        ``images`` (ids) will be read, where these are given.
        """
        self._files = files
        self._reach_rounds = {
            round.number
            for round in session.scalars(select(Round).where(Round.project_id == project_id))
            if round.config.epsilon > 0
        }
        entries = standing(session, project_id, upto, images)
        overlap = overlap or session.get_one(Project, project_id).overlap
        resolved = judge(entries, overlap).resolved
        self.answers = len(resolved)
        asked = (
            select(Superpixel.id, Superpixel.number)
            .join(LedgerEntry, LedgerEntry.superpixel_id == Superpixel.id)
            .where(LedgerEntry.project_id == project_id)
            .distinct()
        )
        if images is not None and len(images) <= FEW_IMAGES:
            asked = asked.where(LedgerEntry.image_id.in_(images))
        numbers = {row.id: row.number for row in session.execute(asked)}
        self._answered: dict[int, list[tuple[int, LedgerEntry]]] = {}
        for superpixel_id, answer in resolved.items():
            self._answered.setdefault(answer.image_id, []).append((numbers[superpixel_id], answer))
        self._edits: dict[int, list[LedgerEntry]] = {}
        for entry in entries:
            if entry.kind == EntryKind.EDIT:
                self._edits.setdefault(entry.image_id, []).append(entry)

    def held_out(self, share: float, seed: int) -> set[int]:
        """The superpixels (row ids) of about a ``share`` of the answers, always the same ones."""
        return {
            answer.superpixel_id
            for answers in self._answered.values()
            for _, answer in answers
            if answer.superpixel_id is not None
            and chance(f"answer/{answer.superpixel_id}", seed) < share
        }

    def images_of(self, chosen: Collection[int]) -> set[int]:
        """The images (ids) in which an answered superpixel is ``chosen`` (row ids)."""
        return {
            image_id
            for image_id, answers in self._answered.items()
            if any(answer.superpixel_id in chosen for _, answer in answers)
        }

    def judged(self, image_id: int, chosen: Collection[int]) -> NDArray[np.bool_]:
        """The pixels, bool (H, W), whose class the answers about ``chosen`` superpixels tell."""
        superpixels = self._files.read_superpixels(image_id)
        judged = np.zeros(superpixels.shape, dtype=np.bool_)
        for number, answer in self._answered.get(image_id, []):
            if answer.superpixel_id in chosen:
                judged |= self._written(image_id, superpixels, number, answer)
        return judged

    def _written(
        self, image_id: int, superpixels: NDArray[np.int32], number: int, answer: LedgerEntry
    ) -> NDArray[np.bool_]:
        """The pixels that an answer is about: the superpixel, or what a correction reached."""
        written: NDArray[np.bool_] = superpixels == number
        if answer.kind == EntryKind.CORRECT and answer.round_number in self._reach_rounds:
            written &= self._files.read_reach(answer.round_number, image_id)
        return written

    def read(self, image_id: int, hidden: Collection[int] = ()) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W): the initial one with the ledger written over.

        Corrections and edits in the order of replay; an accept writes only where the class that
        was accepted is not there any more, because what had written it was withdrawn. Superpixels
        (row ids) in ``hidden`` become void.
        """
        labels = self._files.read_label_map("initial", image_id)
        answered = self._answered.get(image_id, [])
        writes = [
            (number, answer) for number, answer in answered if answer.superpixel_id not in hidden
        ]
        concealed = [number for number, answer in answered if answer.superpixel_id in hidden]
        if not writes and not concealed and image_id not in self._edits:
            return labels
        labels = labels.copy()
        superpixels = self._files.read_superpixels(image_id)
        for _ in self._replay(image_id, labels, superpixels, writes):
            pass
        labels[np.isin(superpixels, concealed)] = VOID
        return labels

    def read_with_authors(
        self, image_id: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], list[LedgerEntry]]:
        """The label map uint8 (H, W), who wrote each pixel last, int32 (H, W), and the entries.

        Who wrote it is the entry's place in the list plus 1; 0 where the initial map shows.
        """
        labels = self._files.read_label_map("initial", image_id).copy()
        authors = np.zeros(labels.shape, dtype=np.int32)
        entries: list[LedgerEntry] = []
        answered = self._answered.get(image_id, [])
        if answered or image_id in self._edits:
            superpixels = self._files.read_superpixels(image_id)
            for entry, written in self._replay(image_id, labels, superpixels, answered):
                entries.append(entry)
                authors[written] = len(entries)
        return labels, authors, entries

    def _replay(
        self,
        image_id: int,
        labels: NDArray[np.uint8],
        superpixels: NDArray[np.int32],
        answered: list[tuple[int, LedgerEntry]],
    ) -> Iterator[tuple[LedgerEntry, NDArray[np.bool_]]]:
        """Write answers and edits over ``labels``; each entry that writes, and where it did."""
        writes = [*answered, *((0, edit) for edit in self._edits.get(image_id, []))]
        for number, entry in sorted(writes, key=lambda write: place(write[1])):
            if entry.kind == EntryKind.EDIT:
                edited, written = self._files.read_edit(entry.annotation_id, entry.revision)
                labels[written] = edited[written]
            elif entry.kind == EntryKind.CORRECT or labels[entry.row, entry.col] != entry.class_id:
                assert entry.class_id is not None  # an accept or a correction names a class
                written = self._written(image_id, superpixels, number, entry)
                labels[written] = entry.class_id
            else:
                continue
            yield entry, written
