"""What the store knew when reconciling began, looked up as Label Studio's tasks are read.

Reads the database; changes nothing. Called by ``reconciliation``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.labelstudio.query import Key
from alc_backend.loop.annotations import restored
from alc_backend.loop.task_sync import select_queries
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import TRAIN, Image, LedgerEntry, Project, Query, Round, Superpixel
from alc_backend.store.pages import Page

AT_ONCE = 500
"""Annotations that a query lists."""


class Known:
    """What the store knew when reconciling began, of the project's present two in Label Studio.

    ``recovered``: questions that it did not know were looked for in Label Studio. ``newest``: the
    largest number of an annotation in the ledger, 0 without any.
    """

    def __init__(self, store: Store, project_id: int) -> None:
        self._store = store
        with store.reading() as session:
            self._project = session.get_one(Project, project_id)
            self._position = ledger.position(session, project_id)
            numbers = select(Round.number).where(Round.project_id == project_id)
            self._rounds = set(session.scalars(numbers))
            of_ours = select(LedgerEntry.annotation_id).where(LedgerEntry.project_id == project_id)
            largest = of_ours.order_by(LedgerEntry.annotation_id.desc()).limit(1)
            self.newest = session.scalar(largest) or 0
        self.recovered = False
        self._task: tuple[int, int] | None = None
        self._of_task: dict[int, restored.Given] = {}

    def annotations(self) -> set[int]:
        """All annotations in force."""
        with self._store.reading() as session:
            found = session.execute(self._select(LedgerEntry.annotation_id))
            return {row.annotation_id for row in found}

    def of_task(self, label_studio_project: int, task_id: int) -> set[int]:
        """The annotations in force that were given to a task."""
        if self._task != (label_studio_project, task_id):
            with self._store.reading() as session:
                found = self._given(
                    session,
                    LedgerEntry.task_id == task_id,
                    LedgerEntry.label_studio_project == label_studio_project,
                )
            self._of_task = {one.annotation_id: one for one in found}
            self._task = label_studio_project, task_id
        return set(self._of_task)

    def given(self, annotations: Iterable[int]) -> list[restored.Given]:
        """Some annotations in force."""
        found = []
        with self._store.reading() as session:
            for part in batched(sorted(annotations), AT_ONCE):
                found += self._given(session, LedgerEntry.annotation_id.in_(part))
        return found

    def is_current(self, annotation_id: int, updated_at: datetime) -> bool:
        """Whether the ledger had an annotation as it was at ``updated_at``."""
        one = self._of_task.get(annotation_id)
        found = self.given([annotation_id]) if one is None else [one]
        return any(one.updated_at == updated_at for one in found)

    def may_lack(self, round_number: int | None, key: Key) -> bool:
        """Whether the store lacks a page, a query about one of its images, or the round of it.

        False once they were looked for: what was not found then is not there.
        """
        if self.recovered:
            return False
        with self._store.reading() as session:
            if not (key.page or self._has_image(session, key.image)):
                return False
            is_lacking = not self._has_question(session, key)
        return is_lacking or (round_number is not None and round_number not in self._rounds)

    def _has_image(self, session: Session, key: str) -> bool:
        which = (Image.project_id == self._project.id, Image.split == TRAIN, Image.key == key)
        return session.scalar(select(Image.id).where(*which)) is not None

    def _has_question(self, session: Session, key: Key) -> bool:
        project_id = self._project.id
        if key.page:
            asked = select(Page.id).where(Page.project_id == project_id, Page.key == key.page)
        else:
            asked = select_queries(project_id, Query.id).where(
                Image.key == key.image,
                Superpixel.number == key.superpixel,
                Query.adjudication == key.adjudication,
            )
        return session.execute(asked.limit(1)).first() is not None

    def _given(self, session: Session, *which: ColumnElement[bool]) -> list[restored.Given]:
        """The annotations in force that ``which`` selects; each as its last position says."""
        columns = (
            LedgerEntry.annotation_id,
            LedgerEntry.label_studio_project,
            LedgerEntry.task_id,
            LedgerEntry.updated_at,
        )
        rows = session.execute(self._select(*columns).where(*which).order_by(LedgerEntry.position))
        return list({row.annotation_id: restored.Given(*row) for row in rows}.values())

    def _select(self, *columns: Any) -> Select[Any]:
        """Selects ``columns`` of what people said in the two projects and was in force then."""
        both = (self._project.query_project, self._project.dataset_project)
        here = [number for number in both if number is not None]
        given_in = LedgerEntry.label_studio_project
        return (
            ledger.in_force(self._position)
            .with_only_columns(*columns)
            .where(
                LedgerEntry.project_id == self._project.id,
                ledger.BY_PEOPLE,
                given_in.is_(None) | given_in.in_(here),
            )
        )
