"""The pictures of an image that the pages show: itself, its label maps, its superpixels."""

from __future__ import annotations

from enum import Enum

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from alc_backend.datasets.images import id_thumbnail, label_thumbnail, read_thumbnail
from alc_backend.service.web.pages.lookup import image_of
from alc_backend.service.web.pages.thumbnails import Key, Thumbnails
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.derived import ImageState
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Image, LedgerEntry, Project

KEEP = {"Cache-Control": "private, max-age=86400"}


class Size(str, Enum):
    """How large a picture is asked for."""

    SMALL = "small"
    LARGE = "large"


SIDES = {Size.SMALL: 480, Size.LARGE: 1280}
"""The longest side of a picture, in pixels."""


def state_of(session: Session, project: Project) -> str:
    """What the present label maps of a project depend on; another one means other maps."""
    return f"{ledger.position(session, project.id)}-{project.overlap}"


def identity(session: Session, image: Image) -> Key:
    """What tells an image from all others, also from those of projects that are gone."""
    project = session.get_one(Project, image.project_id)
    return (project.id, project.created_at.isoformat(), image.id)


def map_state(session: Session, image: Image) -> Key:
    """What the present label map of an image depends on; another one means another map."""
    overlap = session.get_one(Project, image.project_id).overlap
    state = session.get(ImageState, image.id)
    last = None if state is None or state.last_entry is None else state.last_entry
    entry = None if last is None else session.get_one(LedgerEntry, last)
    return (overlap, last, None if entry is None else entry.recorded_at.isoformat())


def pictures_router(store: Store, kept: Thumbnails) -> APIRouter:
    """The pictures below /images/ID."""
    router = APIRouter(include_in_schema=False)

    def key_of(name: str, image: Image, size: Size) -> Key:
        with store.reading() as session:
            return (name, *identity(session, image), size.value)

    @router.get("/images/{image_id}/image")
    def image(image_id: int, size: Size = Size.SMALL) -> Response:
        found = image_of(store, image_id)
        files = store.files(found.project_id)

        def make() -> bytes:
            return read_thumbnail(files.image(found.id, found.suffix), SIDES[size])

        return Response(kept.get(key_of("image", found, size), make), 200, KEEP, "image/jpeg")

    @router.get("/images/{image_id}/before")
    def before(image_id: int, size: Size = Size.SMALL) -> Response:
        found = image_of(store, image_id)
        files = store.files(found.project_id)

        def make() -> bytes:
            return label_thumbnail(files.read_label_map("initial", found.id), SIDES[size])

        return Response(kept.get(key_of("before", found, size), make), 200, KEEP, "image/png")

    @router.get("/images/{image_id}/after")
    def after(image_id: int, size: Size = Size.SMALL) -> Response:
        found = image_of(store, image_id)
        files = store.files(found.project_id)
        with store.reading() as session:
            position = ledger.position(session, found.project_id)
            key = ("after", *identity(session, found), size.value, *map_state(session, found))

            def make() -> bytes:
                maps = LabelMaps(session, files, found.project_id, position, images=[found.id])
                return label_thumbnail(maps.read(found.id), SIDES[size])

            made = kept.get(key, make)
        return Response(made, 200, KEEP, "image/png")

    @router.get("/images/{image_id}/superpixels")
    def superpixels(image_id: int) -> Response:
        found = image_of(store, image_id)
        files = store.files(found.project_id)

        def make() -> bytes:
            return id_thumbnail(files.read_superpixels(found.id), SIDES[Size.LARGE])

        return Response(
            kept.get(key_of("superpixels", found, Size.LARGE), make), 200, KEEP, "image/png"
        )

    return router
