"""The ledger of answers, and label maps replayed from it: D_t = D_0 + answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from alc_backend.core.arrays import VOID
from alc_backend.core.draws import draw
from alc_backend.store.files import ProjectFiles
from alc_backend.store.models import Answer, Image, Query, Round, Score, Superpixel

ACCEPT, CORRECT, SKIP, DELETED = "accept", "correct", "skip", "deleted"


@dataclass(frozen=True)
class Reply:
    """An annotation as it stands in Label Studio, in the store's words.

    ``class_id`` is None for a skip and for a withdrawn annotation (``deleted``);
    ``round_number`` is the round in which the question was shown, None for the present one.
    """

    annotation_id: int
    class_id: int | None
    deleted: bool
    annotator: str
    lead_time: float | None
    answered_at: datetime
    updated_at: datetime
    round_number: int | None = None


def record(session: Session, query: Query, reply: Reply) -> Answer | None:
    """Append ``reply`` to the ledger; None when it says nothing new.

    The same annotation may arrive any number of times, by webhook and by reconciling, in any
    order: an entry is written only when the content differs from the last one and is not older.
    """
    image = query.superpixel.image
    last = session.scalars(
        select(Answer)
        .where(Answer.project_id == image.project_id, Answer.annotation_id == reply.annotation_id)
        .order_by(Answer.revision.desc())
        .limit(1)
    ).first()
    if last is not None and (
        last.kind == DELETED or (reply.updated_at < last.updated_at and not reply.deleted)
    ):
        return None
    if last is None and reply.deleted:
        return None
    # a revision answers the question as it was first asked
    question = last or _as_shown(session, query, image.project_id, reply.round_number)
    if reply.deleted:
        kind = DELETED
    elif reply.class_id is None:
        kind = SKIP
    else:
        kind = ACCEPT if reply.class_id == question.pseudo_label else CORRECT
    if last is not None and (kind, reply.class_id) == (last.kind, last.class_id):
        return None
    answer = Answer(
        project_id=image.project_id,
        superpixel_id=query.superpixel_id,
        annotation_id=reply.annotation_id,
        revision=last.revision + 1 if last else 0,
        kind=kind,
        class_id=reply.class_id,
        pseudo_label=question.pseudo_label,
        row=question.row,
        col=question.col,
        round_number=question.round_number,
        annotator=reply.annotator,
        lead_time=reply.lead_time,
        answered_at=reply.answered_at,
        updated_at=reply.updated_at,
    )
    session.add(answer)
    session.flush()
    return answer


@dataclass(frozen=True)
class _Question:
    pseudo_label: int
    row: int
    col: int
    round_number: int


def _as_shown(
    session: Session, query: Query, project_id: int, round_number: int | None
) -> _Question:
    """The question that the annotator saw: a task may stay open in a browser across rounds."""
    if round_number not in (None, query.round.number):
        shown = session.scalars(
            select(Score)
            .join(Round, Round.id == Score.round_id)
            .where(
                Round.project_id == project_id,
                Round.number == round_number,
                Score.superpixel_id == query.superpixel_id,
            )
        ).first()
        if shown is not None and round_number is not None:
            return _Question(shown.pseudo_label, shown.row, shown.col, round_number)
    return _Question(query.pseudo_label, query.row, query.col, query.round.number)


def position(session: Session, project_id: int) -> int:
    """The number of the project's last ledger entry; 0 when there is none."""
    return session.scalar(select(func.max(Answer.id)).where(Answer.project_id == project_id)) or 0


def standing(session: Session, project_id: int, upto: int | None = None) -> list[Answer]:
    """The answers in force: of every annotation the last revision, withdrawn ones left out.

    Ordered by (answered_at, annotation id). ``upto`` leaves out ledger entries above that number.
    """
    entries = select(Answer).where(Answer.project_id == project_id).order_by(Answer.id)
    if upto is not None:
        entries = entries.where(Answer.id <= upto)
    latest = {answer.annotation_id: answer for answer in session.scalars(entries)}
    in_force = [answer for answer in latest.values() if answer.kind != DELETED]
    return sorted(in_force, key=lambda answer: (answer.answered_at, answer.annotation_id))


def resolved(answers: Iterable[Answer]) -> dict[int, Answer]:
    """Superpixel row id → the answer that settles it, from answers in their order.

    The latest accept or correct wins; accepting what an earlier correction wrote leaves that
    correction in force.
    """
    settled: dict[int, Answer] = {}
    for answer in answers:
        if answer.kind == SKIP:
            continue
        before = settled.get(answer.superpixel_id)
        confirms = (
            before is not None
            and before.kind == CORRECT
            and answer.kind == ACCEPT
            and answer.class_id == before.class_id
        )
        if not confirms:
            settled[answer.superpixel_id] = answer
    return settled


class LabelMaps:
    """The label maps of a project at one moment of the ledger."""

    def __init__(
        self, session: Session, files: ProjectFiles, project_id: int, upto: int | None = None
    ) -> None:
        self._files = files
        self._reach_rounds = {
            round.number
            for round in session.scalars(select(Round).where(Round.project_id == project_id))
            if round.config.get("epsilon", 0.0) > 0
        }
        answers = resolved(standing(session, project_id, upto))
        self.answers = len(answers)
        numbers = {
            row.id: (row.image_id, row.number)
            for row in session.execute(
                select(Superpixel.id, Superpixel.image_id, Superpixel.number)
                .join(Image)
                .where(Image.project_id == project_id)
            )
        }
        self._answered: dict[int, list[tuple[int, Answer]]] = {}
        for answer in answers.values():
            image_id, number = numbers[answer.superpixel_id]
            self._answered.setdefault(image_id, []).append((number, answer))

    def held_out(self, share: float, seed: int) -> set[int]:
        """The superpixels (row ids) of about a ``share`` of the answers, always the same ones."""
        return {
            answer.superpixel_id
            for answers in self._answered.values()
            for _, answer in answers
            if draw(f"answer/{answer.superpixel_id}", seed) < share * 2**64
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
        """The label map of an image, uint8 (H, W): the initial one with the corrections written.

        Superpixels (row ids) in ``hidden`` become void.
        """
        labels = self._files.read_label_map("initial", image_id)
        written_over = [
            (number, answer)
            for number, answer in self._answered.get(image_id, [])
            if answer.kind == CORRECT or answer.superpixel_id in hidden
        ]
        if not written_over:
            return labels
        labels = labels.copy()
        superpixels = self._files.read_superpixels(image_id)
        for number, answer in written_over:
            if answer.superpixel_id in hidden:
                labels[superpixels == number] = VOID
                continue
            written = self._written(image_id, superpixels, number, answer)
            assert answer.class_id is not None  # a correction names a class
            labels[written] = answer.class_id
        return labels
