"""Reviews: pages on which somebody looks at what annotators answered.

A page shows superpixels that were given one class. What stays ticked stays as it was answered; what
is unticked is doubted, and asked again singly. Writes the pages into the database and Label Studio,
where they are handed out to nobody: who reviews opens them by their addresses. Called by commands.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session, aliased

from alc_backend.common.batches import batched
from alc_backend.common.types import Progress
from alc_backend.errors import RoundError
from alc_backend.labelstudio import model_version, tasks
from alc_backend.labelstudio.client import Client
from alc_backend.loop import page_tasks
from alc_backend.loop.questions import round_traits
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.derived import Standing, Way
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import Image, LedgerEntry, Project, Round, Superpixel, utc_now
from alc_backend.store.pages import Page, Tile

AT_ONCE = 500
"""Superpixels that are looked up together."""


class Answered(NamedTuple):
    """A superpixel (row id) and the class id that stands for it, with the pixel asked about."""

    superpixel: int
    class_id: int
    row: int
    col: int
    image_key: str
    number: int


@dataclass(frozen=True)
class ReviewPage:
    """A page of a review that nobody has answered yet.

    ``answered`` is the class (by name) that its ``tiles`` were given; ``address`` that of its task
    in Label Studio, for browsers.
    """

    answered: str
    tiles: int
    address: str


def doubtful(store: Store, project_id: int, many: int) -> list[Answered]:
    """Up to ``many`` superpixels whose labels people accepted, those first that are doubted most.

    Who doubts is the newest network: by how improbable it finds the class, on average over the
    superpixel's pixels. Each answer is reviewed once; adjudications, which are a second look, and
    what was edited by hand afterwards are left out. Raises RoundError before the first round.
    """
    with store.reading() as session:
        round_ = _latest(session, project_id)
        which = select(Standing.superpixel_id, Standing.class_id).where(
            Standing.project_id == project_id, Standing.kind == EntryKind.ACCEPT
        )
        accepted = session.execute(which.order_by(Standing.superpixel_id)).all()
    traits = round_traits.about(store, round_, np.array([row[0] for row in accepted], np.int64))
    place = {int(row_id): index for index, row_id in enumerate(traits.superpixels)}
    known = [(row[0], row[1]) for row in accepted if row[0] in place]
    indices = np.array([place[row_id] for row_id, _ in known], dtype=np.intp)
    classes = np.array([class_id for _, class_id in known], dtype=np.intp)
    likely = traits.predicted[indices, classes]
    order = np.lexsort((traits.superpixels[indices], likely))
    found: list[Answered] = []
    for part in batched([known[index][0] for index in order.tolist()], AT_ONCE):
        with store.reading() as session:
            rows = {
                row[0]: Answered._make(row)
                for row in session.execute(
                    _reviewable(project_id).where(Standing.superpixel_id.in_(part))
                )
            }
        found += [rows[row_id] for row_id in part if row_id in rows]
        if len(found) >= many:
            break
    return found[:many]


def corrections(store: Store, project_id: int, annotator: str, many: int) -> list[Answered]:
    """Up to ``many`` superpixels that an annotator (number in Label Studio) corrected.

    Those whose class is the one that they gave, the latest first; otherwise as :func:`doubtful`.
    """
    with store.reading() as session:
        _latest(session, project_id)
        theirs = (
            ledger.in_force_by_people(project_id)
            .where(LedgerEntry.annotator == annotator, LedgerEntry.kind == EntryKind.CORRECT)
            .subquery()
        )
        rows = session.execute(
            _reviewable(project_id)
            .join(theirs, theirs.c.superpixel_id == Standing.superpixel_id)
            .where(theirs.c.class_id == Standing.class_id)
            .order_by(theirs.c.answered_at.desc(), theirs.c.id.desc())
        )
        found = dict.fromkeys(Answered._make(row) for row in rows)
    return list(found)[:many]


def _latest(session: Session, project_id: int) -> Round:
    """The newest round that was opened."""
    opened = select(Round).where(Round.project_id == project_id, Round.opened_at.is_not(None))
    found = session.scalars(opened.order_by(Round.number.desc()).limit(1)).first()
    if found is None:
        raise RoundError("no round was opened yet, so there are no answers to review")
    return found


def _reviewable(project_id: int) -> Select[Any]:
    """Selects what people answered of a project's superpixels and nobody has reviewed."""
    deciding = aliased(LedgerEntry)
    shown = (
        exists()
        .where(Tile.superpixel_id == Standing.superpixel_id, Page.id == Tile.page_id)
        .where(Page.review, Page.proposed == Standing.class_id)
    )
    wanted: list[Any] = [
        Standing.superpixel_id, Standing.class_id, deciding.row, deciding.col,
        Image.key, Superpixel.number,
    ]  # fmt: skip
    return (
        select(*wanted)
        .join(deciding, deciding.id == Standing.entry_id)
        .join(Superpixel, Superpixel.id == Standing.superpixel_id)
        .join(Image, Image.id == Standing.image_id)
        .where(
            Standing.project_id == project_id,
            Standing.way.in_((Way.SINGLE, Way.PAGE)),
            deciding.superpixel_id == Standing.superpixel_id,
            deciding.adjudication.is_(False),
            ~shown,
        )
    )


def ask(
    store: Store,
    client: Client,
    project_id: int,
    found: Sequence[Answered],
    progress: Progress = lambda done, total, message: None,
) -> list[ReviewPage]:
    """Put pages about ``found`` into Label Studio; returns all pages that nobody has answered.

    A page is about one class. May be repeated after a crash: what an interrupted attempt left is
    finished first. Raises LabelStudioError, RoundError for a project without a query project, and
    NotFoundError or DatasetError for an image that cannot be shown.
    """
    with store.session() as session:
        project = ledger.lock(session, project_id)
        if project.query_project is None:
            raise RoundError(f"project {project.name!r} has no query project; `alc init` makes it")
        round_ = _latest(session, project_id)
        for members in _by_class(found, store.settings.tiles):
            _write(session, round_, members)
    with store.reading() as session:
        round_ = _latest(session, project_id)
        project = session.get_one(Project, project_id)
        awaiting = page_tasks.awaiting_review(project)
    _publish(store, client, round_, awaiting, progress)
    with store.reading() as session:
        pages = session.scalars(select(Page).where(awaiting).order_by(Page.id))
        base = f"{store.settings.label_studio_links}/projects/{project.query_project}/data?task="
        return [
            ReviewPage(project.classes[page.proposed], len(page.tiles), f"{base}{page.task_id}")
            for page in pages
        ]


def _by_class(found: Iterable[Answered], tiles: int) -> list[list[Answered]]:
    """What is put on each page, in the order in which the first of each class was found."""
    members: dict[int, list[Answered]] = defaultdict(list)
    for one in found:
        members[one.class_id].append(one)
    return [
        of_class[first : first + tiles]
        for of_class in members.values()
        for first in range(0, len(of_class), tiles)
    ]


def _write(session: Session, round_: Round, members: Sequence[Answered]) -> None:
    """Write a page about superpixels of one class, unless there is the same already."""
    class_id = members[0].class_id
    about = ["review", class_id, [(one.image_key, one.number) for one in members]]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    same = select(Page.id).where(Page.project_id == round_.project_id, Page.key == key)
    if session.scalar(same) is not None:
        return
    session.add(
        Page(
            project_id=round_.project_id,
            round=round_,
            key=key,
            proposed=class_id,
            plan=0,
            place=tasks.LAST,
            review=True,
            tiles=[
                Tile(
                    position=position,
                    superpixel_id=one.superpixel,
                    row=one.row,
                    col=one.col,
                    pseudo_label=class_id,
                )
                for position, one in enumerate(members, start=1)
            ],
        )
    )


def _publish(
    store: Store, client: Client, round_: Round, which: ColumnElement[bool], progress: Progress
) -> None:
    """Make the sheets and tasks of pages, let them be shown ticked, and hand them out to nobody.

    That a page is closed is noted last, by which an interrupted attempt is known.
    """
    page_tasks.create_missing(store, client, round_, which & Page.task_id.is_(None), progress)
    version = model_version.of_round(round_.number)
    for item in page_tasks.page_items(store, round_, which & Page.closed_at.is_(None)):
        assert item.task_id is not None
        tasks.put_first(client, item, version, tasks.LAST)
        tasks.close_task(client, item.task_id)
        with store.session() as session:
            session.get_one(Page, item.query).closed_at = utc_now()
