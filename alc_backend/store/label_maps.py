"""Label maps replayed from the ledger: D_t = D_0 + answers."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.core.arrays import VOID
from alc_backend.core.draws import draw
from alc_backend.store.files import ProjectFiles
from alc_backend.store.ledger import CORRECT, EDIT, FEW_IMAGES, judge, place, standing
from alc_backend.store.models import Answer, Project, Round, Superpixel


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
            if round.config.get("epsilon", 0.0) > 0
        }
        entries = standing(session, project_id, upto, images)
        overlap = overlap or session.get_one(Project, project_id).overlap
        resolved = judge(entries, overlap).resolved
        self.answers = len(resolved)
        asked = (
            select(Superpixel.id, Superpixel.number)
            .join(Answer, Answer.superpixel_id == Superpixel.id)
            .where(Answer.project_id == project_id)
            .distinct()
        )
        if images is not None and len(images) <= FEW_IMAGES:
            asked = asked.where(Answer.image_id.in_(images))
        numbers = {row.id: row.number for row in session.execute(asked)}
        self._answered: dict[int, list[tuple[int, Answer]]] = {}
        for superpixel_id, answer in resolved.items():
            self._answered.setdefault(answer.image_id, []).append((numbers[superpixel_id], answer))
        self._edits: dict[int, list[Answer]] = {}
        for entry in entries:
            if entry.kind == EDIT:
                self._edits.setdefault(entry.image_id, []).append(entry)

    def held_out(self, share: float, seed: int) -> set[int]:
        """The superpixels (row ids) of about a ``share`` of the answers, always the same ones."""
        return {
            answer.superpixel_id
            for answers in self._answered.values()
            for _, answer in answers
            if answer.superpixel_id is not None
            and draw(f"answer/{answer.superpixel_id}", seed) < share * 2**64
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
        self, image_id: int, superpixels: NDArray[np.int32], number: int, answer: Answer
    ) -> NDArray[np.bool_]:
        """The pixels that an answer is about: the superpixel, or what a correction reached."""
        written: NDArray[np.bool_] = superpixels == number
        if answer.kind == CORRECT and answer.round_number in self._reach_rounds:
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
        writes += [(0, edit) for edit in self._edits.get(image_id, [])]
        concealed = [number for number, answer in answered if answer.superpixel_id in hidden]
        if not writes and not concealed:
            return labels
        labels = labels.copy()
        superpixels = self._files.read_superpixels(image_id)
        for number, entry in sorted(writes, key=lambda write: place(write[1])):
            if entry.kind == EDIT:
                edited, changed = self._files.read_edit(entry.annotation_id, entry.revision)
                labels[changed] = edited[changed]
            elif entry.kind == CORRECT or labels[entry.row, entry.col] != entry.class_id:
                assert entry.class_id is not None  # an accept or a correction names a class
                labels[self._written(image_id, superpixels, number, entry)] = entry.class_id
        labels[np.isin(superpixels, concealed)] = VOID
        return labels
