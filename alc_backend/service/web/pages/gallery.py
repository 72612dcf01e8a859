"""The gallery: images before and after correction, and what was answered about each."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from alc_backend.datasets.images import label_thumbnail, read_thumbnail
from alc_backend.errors import NotFoundError
from alc_backend.loop.annotations import history
from alc_backend.loop.annotations.history import HistoryLine
from alc_backend.service.web.pages.colours import colours
from alc_backend.service.web.pages.lookup import image_of, project_of
from alc_backend.service.web.pages.rendering import Renderer
from alc_backend.service.web.pages.thumbnails import Thumbnails
from alc_backend.store import ledger, tallies
from alc_backend.store.database import Store
from alc_backend.store.derived import Counted, ImageState
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import MAX_ID, TRAIN, Image, Project

PAGE_SIZE = 12
THUMBNAIL_SIDE = 480
"""Longest side of a thumbnail, in pixels."""

SHOWN_WIDTH = 320
"""Width of an image on the page, in pixels."""

KEEP = {"Cache-Control": "private, max-age=86400"}


@dataclass(frozen=True)
class GalleryItem:
    """An image on the page: its height there in pixels, and what was said about it, last first."""

    image: Image
    height: int
    entries: list[HistoryLine]


@dataclass(frozen=True)
class GalleryPage:
    """Some images of a project, of which there are ``total``.

    ``position`` is that of the project's ledger: a browser keeps label maps until it changes.
    """

    items: list[GalleryItem]
    total: int
    position: int


def gallery_router(store: Store, renderer: Renderer) -> APIRouter:
    """The page at /images and the thumbnails that it shows."""
    router = APIRouter(include_in_schema=False)
    kept = Thumbnails()

    @router.get("/images")
    def images(request: Request, project: int | None = None, start: int = 0) -> HTMLResponse:
        with store.reading() as session:
            projects = session.scalars(select(Project).order_by(Project.name)).all()
        if not projects:
            raise NotFoundError("there is no project yet; make one with `alc init`")
        chosen = projects[0] if project is None else project_of(store, project)
        start = min(max(start, 0), MAX_ID)
        shown = _page(store, chosen, start)
        return renderer.page(
            request,
            "images.html",
            page="images",
            project=chosen,
            projects=projects,
            items=shown.items,
            total=shown.total,
            position=shown.position,
            start=start,
            size=PAGE_SIZE,
            colours=list(zip(chosen.classes, colours(len(chosen.classes)), strict=True)),
        )

    @router.get("/images/{image_id}/image")
    def image(image_id: int) -> Response:
        found = image_of(store, image_id)
        files = store.files(found.project_id)

        def make() -> bytes:
            return read_thumbnail(files.image(found.id, found.suffix), THUMBNAIL_SIDE)

        return Response(kept.get(("image", image_id), make), 200, KEEP, "image/jpeg")

    @router.get("/images/{image_id}/before")
    def before(image_id: int) -> Response:
        found = image_of(store, image_id)
        files = store.files(found.project_id)

        def make() -> bytes:
            return label_thumbnail(files.read_label_map("initial", found.id), THUMBNAIL_SIDE)

        return Response(kept.get(("before", image_id), make), 200, KEEP, "image/png")

    @router.get("/images/{image_id}/after")
    def after(image_id: int) -> Response:
        found = image_of(store, image_id)
        files = store.files(found.project_id)
        with store.reading() as session:
            position = ledger.position(session, found.project_id)

            def make() -> bytes:
                maps = LabelMaps(session, files, found.project_id, position, images=[found.id])
                return label_thumbnail(maps.read(found.id), THUMBNAIL_SIDE)

            made = kept.get(("after", image_id, position), make)
        return Response(made, 200, KEEP, "image/png")

    return router


def _page(store: Store, project: Project, start: int) -> GalleryPage:
    """The images from position ``start`` on, those that were answered about last coming first."""
    with store.reading() as session:
        total = tallies.count(session, project.id, Counted.IMAGES)
        position = ledger.position(session, project.id)
        found = _images(session, project.id, start)
    lines: dict[str, list[HistoryLine]] = {image.key: [] for image in found}
    for line in reversed(history.list_entries(store, project.id, images=lines)):
        lines[line.image].append(line)
    items = [
        GalleryItem(
            image=image,
            height=max(1, round(SHOWN_WIDTH * image.height / image.width)),
            entries=lines[image.key],
        )
        for image in found
    ]
    return GalleryPage(items, total, position)


def _images(session: Session, project_id: int, start: int) -> list[Image]:
    """The images of the page from ``start`` on: those that were answered about, then by key."""
    ours = (Image.project_id == project_id, Image.split == TRAIN, Image.removed.is_(None))
    said = select(Image).join(ImageState, ImageState.image_id == Image.id)
    said = said.where(*ours, ImageState.project_id == project_id)
    said = said.where(ImageState.last_entry.is_not(None))
    latest = said.order_by(ImageState.last_entry.desc()).offset(start).limit(PAGE_SIZE)
    found = list(session.scalars(latest))
    if len(found) == PAGE_SIZE:
        return found
    before = start + len(found)
    if not found:
        counted = select(func.count()).select_from(said.with_only_columns(Image.id).subquery())
        before = session.scalar(counted) or 0
    silent = ~exists().where(ImageState.image_id == Image.id, ImageState.last_entry.is_not(None))
    rest = select(Image).where(*ours, silent).order_by(Image.key)
    skipped = start + len(found) - before
    found += session.scalars(rest.offset(skipped).limit(PAGE_SIZE - len(found)))
    return found
