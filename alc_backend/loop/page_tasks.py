"""Pages of look-alikes and the tasks of Label Studio that ask them.

Draws and uploads their sheets, makes their tasks, closes those that a later plan replaces, and
makes the row of a page again from its task. Touches pages in the database and the tasks of the
query project; knows nothing of how pages are chosen. Called by ``questions`` and ``annotations``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session, joinedload, selectinload

from alc_backend.common.types import Progress
from alc_backend.datasets.images import read_image
from alc_backend.labelstudio import page, query, sheets, tasks, uploads
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.texts import texts
from alc_backend.loop import task_sync
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.kinds import ANSWERS, EntryKind
from alc_backend.store.models import (
    TRAIN,
    Image,
    LedgerEntry,
    Project,
    Round,
    Superpixel,
    utc_now,
)
from alc_backend.store.pages import Page, Tile

AT_ONCE = 100
"""Sheets that are drawn, and uploaded, together: more need much memory."""


def planned(round_: Round, plans: int) -> ColumnElement[bool]:
    """The pages of a round's plan of this number."""
    return (Page.round_id == round_.id) & (Page.plan == plans) & ~Page.review


def awaiting_review(project: Project) -> ColumnElement[bool]:
    """The pages by which answers of a project are reviewed that nobody has answered yet."""
    answered = exists().where(
        LedgerEntry.label_studio_project == project.query_project,
        LedgerEntry.task_id == Page.task_id,
        LedgerEntry.kind == EntryKind.REVIEWED,
    )
    return (Page.project_id == project.id) & Page.review & ~answered


def page_items(store: Store, round_: Round, which: ColumnElement[bool]) -> list[tasks.QueueItem]:
    """The pages of the round's project that ``which`` selects, ready to publish, the next first."""
    wording = texts(store.settings.language)
    with store.reading() as session:
        found = [
            (row.id, row.task_id, row.place, row.closed_at, content_of(round_.project, row))
            for row in session.scalars(_pages(round_.project_id).where(which).order_by(Page.place))
        ]
    return [
        tasks.QueueItem(
            query=row_id,
            key=query.Key("", 0, page=content.key),
            task_id=task_id,
            changed=False,
            closed=closed_at is not None,
            data=page.task_data(content, wording),
            result=page.prediction(content),
            place=place,
        )
        for row_id, task_id, place, closed_at, content in found
    ]


def _pages(project_id: int) -> Select[Page]:
    """Select a project's pages with all that they show."""
    return (
        select(Page)
        .where(Page.project_id == project_id)
        .options(
            joinedload(Page.round),
            selectinload(Page.tiles).joinedload(Tile.superpixel).joinedload(Superpixel.image),
        )
        .execution_options(populate_existing=True)
    )


def content_of(project: Project, row: Page) -> page.PageContent:
    """What a page shows."""
    return page.PageContent(
        key=row.key,
        round_number=row.round.number,
        epsilon=row.round.config.epsilon,
        proposed=row.proposed,
        classes=project.classes,
        tiles=tuple(
            page.Tile(
                tile.superpixel.image.key,
                tile.superpixel.number,
                tile.row,
                tile.col,
                tile.pseudo_label,
                tile.repeated,
            )
            for tile in row.tiles
        ),
        sheet=row.sheet or "",
        review=row.review,
    )


def create_missing(
    store: Store, client: Client, round_: Round, which: ColumnElement[bool], report: Progress
) -> None:
    """Make the sheet and the task of each page that ``which`` selects and that has none.

    Raises LabelStudioError, NotFoundError for an image that is missing.
    """
    number = round_.project.query_project
    assert number is not None
    _upload_missing(store, client, number, round_, which & Page.sheet.is_(None), report)
    new = page_items(store, round_, which & Page.task_id.is_(None))
    by_key = {item.key: item.query for item in new}

    def note(made: dict[query.Key, int]) -> None:
        with store.session() as session:
            for key, task_id in made.items():
                row = session.get_one(Page, by_key[key])
                row.task_id, row.closed_at = task_id, None

    tasks.create_tasks(client, number, new, note)


def _upload_missing(
    store: Store,
    client: Client,
    number: int,
    round_: Round,
    which: ColumnElement[bool],
    report: Progress,
) -> None:
    with store.reading() as session:
        wanted = _pages(round_.project_id).where(which).order_by(Page.place)
        pages = session.scalars(wanted).all()
    if not pages:
        return
    files = store.files(round_.project_id)
    project = uploads.sheets_project(client, number)
    for first in range(0, len(pages), AT_ONCE):
        part = pages[first : first + AT_ONCE]
        report(1, 3, f"drawing pages {first + 1} to {first + len(part)} of {len(pages)}")
        addresses = uploads.upload_sheets(client, project, _drawn(files, part))
        with store.session() as session:
            for row in part:
                session.get_one(Page, row.id).sheet = addresses[row.key]


def _drawn(files: ProjectFiles, pages: Sequence[Page]) -> dict[str, bytes]:
    """The sheets of pages, by their keys; each image is read once, by one thread for each core."""
    by_image: dict[int, list[tuple[Page, Tile]]] = {}
    for row in pages:
        for tile in row.tiles:
            by_image.setdefault(tile.superpixel.image_id, []).append((row, tile))
    drawn: dict[tuple[str, int], Any] = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for tiles in threads.map(lambda members: _tiles_of(files, members), by_image.values()):
            drawn |= tiles
        sheets_drawn = threads.map(
            lambda row: sheets.sheet([drawn[row.key, tile.position] for tile in row.tiles]), pages
        )
        return dict(zip([row.key for row in pages], sheets_drawn, strict=True))


def _tiles_of(
    files: ProjectFiles, members: Sequence[tuple[Page, Tile]]
) -> dict[tuple[str, int], Any]:
    """The tiles of one image, by their pages' keys and their positions."""
    image = members[0][1].superpixel.image
    picture = read_image(files.image(image.id, image.suffix))
    superpixels = files.read_superpixels(image.id)
    boxes = ndimage.find_objects(superpixels)
    return {
        (row.key, tile.position): sheets.draw_tile(
            picture, superpixels, tile.superpixel.number, boxes[tile.superpixel.number - 1]
        )
        for row, tile in members
    }


def reopen(store: Store, client: Client, items: Sequence[tasks.QueueItem]) -> None:
    """Let Label Studio serve those of the pages among ``items`` again that were closed."""
    for item in items:
        if item.key.page and item.closed:
            tasks.update_task(client, item)
            with store.session() as session:
                session.get_one(Page, item.query).closed_at = None


def is_answered(query_project: int) -> ColumnElement[bool]:
    """Whether somebody has answered a page: an entry of its task names a class, or rules one out.

    Withdrawn answers count as well: such a page is not asked again as it is.
    """
    return exists().where(
        LedgerEntry.label_studio_project == query_project,
        LedgerEntry.task_id == Page.task_id,
        LedgerEntry.kind.in_((*ANSWERS, EntryKind.RULED_OUT)),
    )


def replaced(session: Session, round_: Round) -> list[Page]:
    """The open pages that nobody has answered and that a later plan, or round, has replaced."""
    project = session.get_one(Project, round_.project_id)
    plans = session.get_one(Round, round_.id).plans
    if project.query_project is None:
        return []
    return list(
        session.scalars(
            select(Page)
            .where(
                Page.project_id == project.id,
                Page.task_id.is_not(None),
                Page.closed_at.is_(None),
                ~Page.review,
                (Page.round_id != round_.id) | (Page.plan < plans),
                ~is_answered(project.query_project),
            )
            .order_by(Page.id)
        )
    )


def close_replaced(store: Store, client: Client, round_: Round) -> list[str]:
    """Close the tasks of replaced pages; returns why some could not be closed.

    Whoever has one on the screen can still submit it. Raises LabelStudioError in an outage.
    """
    with store.reading() as session:
        rows = [(row.task_id, row.id) for row in replaced(session, round_)]
    wanted: dict[int, task_sync.Question | None] = {
        task_id: (Page, row_id) for task_id, row_id in rows if task_id is not None
    }
    return task_sync.close(store.session, client, wanted)


def find(session: Session, project: Project, key: str) -> Page | None:
    """The page with a key; None for one that the store does not know."""
    return session.scalars(_pages(project.id).where(Page.key == key)).first()


def remember(
    session: Session, files: ProjectFiles, project: Project, task_id: int, data: Any
) -> Page | None:
    """Make the row of a page again, in a store that lost it, from its task's ``data``.

    Returns None for what is no page of this project: its round, images or superpixels are not
    known, or the pixels lie elsewhere. Raises ValueError for a page that cannot be read.
    """
    content = page.described(data, project.class_ids)
    if content is None:
        return None
    round_ = session.scalars(
        select(Round).where(Round.project_id == project.id, Round.number == content.round_number)
    ).first()
    if round_ is None:
        return None
    superpixels = superpixels_of(session, files, project.id, [content])
    if content.key not in superpixels:
        return None
    return add(session, round_, content, superpixels[content.key], task_id)


def superpixels_of(
    session: Session, files: ProjectFiles, project_id: int, contents: Collection[page.PageContent]
) -> dict[str, list[int]]:
    """The superpixels (row ids) of pages' tiles, in the order of their positions, by pages' keys.

    Left out are pages with a tile whose image or superpixel is not known, or whose pixel lies
    elsewhere. Every image's map is read once.
    """
    by_image: dict[str, list[tuple[str, page.Tile]]] = {}
    for content in contents:
        for tile in content.tiles:
            by_image.setdefault(tile.image_key, []).append((content.key, tile))
    pages: dict[str, dict[page.Tile, int | None]] = {}
    for image_key, members in by_image.items():
        image_id = session.scalar(
            select(Image.id).where(
                Image.project_id == project_id, Image.split == TRAIN, Image.key == image_key
            )
        )
        found: NDArray[np.int32] = np.zeros((0, 0), np.int32)
        if image_id is not None:
            found = files.read_superpixels(image_id)
        columns = select(Superpixel.number, Superpixel.id).where(Superpixel.image_id == image_id)
        rows = {row.number: row.id for row in session.execute(columns)}
        for key, tile in members:
            fits = _lies_in(found, tile)
            pages.setdefault(key, {})[tile] = rows.get(tile.superpixel) if fits else None
    return {
        content.key: [row_id for tile in content.tiles if (row_id := pages[content.key][tile])]
        for content in contents
        if None not in pages[content.key].values()
    }


def _lies_in(superpixels: NDArray[np.int32], tile: page.Tile) -> bool:
    """Whether a tile's pixel lies in its superpixel of this map, int32 (H, W)."""
    inside = tile.row < superpixels.shape[0] and tile.col < superpixels.shape[1]
    return bool(inside and superpixels[tile.row, tile.col] == tile.superpixel)


def add(
    session: Session,
    round_: Round,
    content: page.PageContent,
    superpixels: Sequence[int],
    task_id: int,
) -> Page:
    """Write a page that a task asks, about ``superpixels`` (row ids), as one of no plan."""
    row = Page(
        project_id=round_.project_id,
        round=round_,
        key=content.key,
        proposed=content.proposed,
        plan=0,
        place=tasks.PLANNED_TO,
        task_id=task_id,
        sheet=content.sheet or None,
        review=content.review,
        closed_at=utc_now() if content.review else None,
    )
    for position, (tile, row_id) in enumerate(
        zip(content.tiles, superpixels, strict=True), start=1
    ):
        row.tiles.append(
            Tile(
                position=position,
                superpixel_id=row_id,
                row=tile.row,
                col=tile.col,
                pseudo_label=tile.pseudo_label,
                repeated=tile.repeated,
            )
        )
    session.add(row)
    session.flush()
    return row
