"""recovery."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import Key, shape_of
from alc_backend.labelstudio.recovered_queries import Asked, read
from alc_backend.loop import query_tasks
from alc_backend.loop.config import round_config
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.models import (
    TRAIN,
    Image,
    Project,
    Query,
    Round,
    Score,
    Superpixel,
    utc_now,
)
from alc_backend.store.round_states import RoundState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """What a query task of Label Studio asks about: the superpixel's row, and how it is shown.

    ``shape`` is None where the row has it.
    """

    asked: Asked
    superpixel_id: int
    shape: dict[str, Any] | None


@dataclass
class Sorted:
    """Query tasks of Label Studio beside the superpixels of a project.

    ``ours`` show the superpixel that they are about, ``misfits`` another one; ``foreign`` are
    about no image of the project.
    """

    ours: list[Place] = field(default_factory=list)
    misfits: list[Asked] = field(default_factory=list)
    foreign: list[Asked] = field(default_factory=list)


def sort(session: Session, files: ProjectFiles, project_id: int, found: Iterable[Asked]) -> Sorted:
    """Find the superpixels that tasks are about; every image's map is read once."""
    known = select(Image.key, Image.id).where(Image.project_id == project_id, Image.split == TRAIN)
    images: dict[str, int] = {row.key: row.id for row in session.execute(known)}
    by_image: dict[int, list[Asked]] = {}
    sorted_ = Sorted()
    for asked in found:
        if asked.key.image in images and asked.key.superpixel > 0:
            by_image.setdefault(images[asked.key.image], []).append(asked)
        else:
            sorted_.foreign.append(asked)
    for image_id, here in by_image.items():
        superpixels = files.read_superpixels(image_id)
        columns = select(Superpixel.number, Superpixel.id, Superpixel.shape.is_(None).label("bare"))
        rows = {
            row.number: row
            for row in session.execute(columns.where(Superpixel.image_id == image_id))
        }
        for asked in here:
            row = rows.get(asked.key.superpixel)
            if row is None or not asked.fits(superpixels):
                sorted_.misfits.append(asked)
                continue
            shape = shape_of(superpixels == row.number) if row.bare else None
            sorted_.ours.append(Place(asked, row.id, shape))
    return sorted_


def take_in(store: Store, client: Client, project: Project) -> int:
    """Make the queries that Label Studio asks and the store does not know; how many tasks.

    That is so after a backup was restored that is older than they are. What does not show the
    superpixel that it names is left, and what was spread by similarity in rounds that the store
    does not know: their reach is lost. Raises LabelStudioError.
    """
    assert project.query_project is not None
    found = read(client, project.query_project, project.classes)
    with store.reading() as session:
        opened = set(
            session.scalars(
                select(Round.number).where(
                    Round.project_id == project.id, Round.opened_at.is_not(None)
                )
            )
        )
        keys = (Image.key, Superpixel.number, Query.adjudication)
        known = {Key(*row) for row in query_tasks.columns(session, project.id, *keys)}
        lacking = [
            asked
            for asked in found
            if asked.questions and (asked.key not in known or not asked.questions.keys() <= opened)
        ]
        sorted_ = sort(session, store.files(project.id), project.id, lacking)
    for asked in sorted_.misfits:
        log.warning("task %s shows another superpixel than it names; left out", asked.task_id)
    ours = []
    for place in sorted_.ours:
        new = [q for number, q in place.asked.questions.items() if number not in opened]
        if new and (store.settings.epsilon > 0 or any(q.epsilon > 0 for q in new)):
            log.warning(
                "task %s is of a round with ε above 0 that the store does not know; left out",
                place.asked.task_id,
            )
        else:
            ours.append(place)
    if ours:
        with store.session() as session:
            write(session, store, project.id, ours)
        log.info("project %s: %s queries were made again", project.id, len(ours))
    return len(ours)


def write(session: Session, store: Store, project_id: int, places: Sequence[Place]) -> None:
    """Write the rounds that tasks tell of, what each asked, and the queries as they stand."""
    project = ledger.lock(session, project_id)
    entries = _rounds(session, store, project_id, places)
    numbers = {entry.id: number for number, entry in entries.items()}
    scored: set[tuple[int, int]] = {
        (row.round_id, row.superpixel_id)
        for row in session.execute(
            select(Score.round_id, Score.superpixel_id).where(Score.round_id.in_(numbers))
        )
    }
    known = {
        (entry.superpixel_id, entry.adjudication): entry
        for entry in query_tasks.queries(session, project_id)
    }
    tasks = {entry.task_id for entry in known.values()}
    queue = sorted(places, key=lambda p: (-p.asked.latest, p.asked.rank, p.asked.task_id))
    for rank, place in enumerate(queue):
        asked, superpixel_id = place.asked, place.superpixel_id
        if place.shape is not None:
            session.get_one(Superpixel, superpixel_id).shape = place.shape
        for number, question in asked.questions.items():
            entry = entries[number]
            if (
                asked.key.adjudication
                or entry.opened_at is None  # its own scores are still to come
                or (entry.id, superpixel_id) in scored
            ):
                continue
            scored.add((entry.id, superpixel_id))
            session.add(
                Score(
                    round_id=entry.id,
                    superpixel_id=superpixel_id,
                    score=0.0,
                    row=question.row,
                    col=question.col,
                    pseudo_label=question.pseudo_label,
                    dominant=question.pseudo_label,
                )
            )
        query = known.get((superpixel_id, asked.key.adjudication))
        if query is None:
            query = Query(superpixel_id=superpixel_id, adjudication=asked.key.adjudication)
            known[superpixel_id, asked.key.adjudication] = query
            session.add(query)
        elif query.task_id not in (None, asked.task_id) or numbers[query.round_id] >= asked.latest:
            continue  # another task asks the same, or the store knows more
        if asked.task_id not in tasks:
            project.other_tasks = max(0, project.other_tasks - 1)
            tasks.add(asked.task_id)
        question = asked.questions[asked.latest]
        query.round_id, query.task_id = entries[asked.latest].id, asked.task_id
        query.row, query.col = question.row, question.col
        query.pseudo_label = question.pseudo_label
        query.rank, query.score = rank, float(-rank)
        query.digest = asked.digest
        query.closed_at = utc_now() if asked.closed else None


def _rounds(
    session: Session, store: Store, project_id: int, places: Sequence[Place]
) -> dict[int, Round]:
    """The project's rounds by number; those that only the tasks tell of are made."""
    first: dict[int, datetime] = {}
    for place in places:
        for number, question in place.asked.questions.items():
            first[number] = min(first.get(number, question.at), question.at)
    known = select(Round).where(Round.project_id == project_id)
    entries = {entry.number: entry for entry in session.scalars(known)}
    made = sorted(first.keys() - entries.keys())
    for number in made:
        entries[number] = Round(
            project_id=project_id,
            number=number,
            state=RoundState.CLOSED,
            config=replace(round_config(store.settings, {}), epsilon=0.0),
            message="made again from Label Studio",
            created_at=first[number],
            opened_at=first[number],
        )
        session.add(entries[number])
    if made and made[-1] == max(entries):
        for entry in entries.values():
            if entry.state == RoundState.OPEN:
                entry.state = RoundState.CLOSED
        entries[made[-1]].state = RoundState.OPEN
    session.flush()
    return entries
