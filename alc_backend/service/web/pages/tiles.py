"""Pictures of single superpixels, as pages of look-alikes show them, for the pages."""

from __future__ import annotations

import io

from fastapi import APIRouter, Response
from PIL import Image as Picture

from alc_backend.datasets.images import read_image
from alc_backend.errors import NotFoundError
from alc_backend.labelstudio.sheets import draw_tile
from alc_backend.service.web.pages.pictures import identity
from alc_backend.service.web.pages.thumbnails import Thumbnails
from alc_backend.store.database import Store
from alc_backend.store.models import MAX_ID, TRAIN, Superpixel

SIDE_PX = 88
"""Side of a tile: twice that on the page, for screens with fine pixels."""

KEEP = {"Cache-Control": "private, max-age=600"}


def tiles_router(store: Store, kept: Thumbnails) -> APIRouter:
    """The tiles below /superpixels."""
    router = APIRouter(include_in_schema=False)

    @router.get("/superpixels/{superpixel_id}.jpg")
    def tile(superpixel_id: int) -> Response:
        with store.reading() as session:
            known = 0 < superpixel_id <= MAX_ID
            superpixel = session.get(Superpixel, superpixel_id) if known else None
            image = None if superpixel is None else superpixel.image
            key = () if image is None else ("tile", *identity(session, image), superpixel_id)
        if superpixel is None or image is None or image.split != TRAIN:
            raise NotFoundError(f"there is no superpixel {superpixel_id}")
        files = store.files(image.project_id)

        def make() -> bytes:
            drawn = draw_tile(
                read_image(files.image(image.id, image.suffix)),
                files.read_superpixels(image.id),
                superpixel.number,
            )
            written = io.BytesIO()
            small = drawn.resize((SIDE_PX, SIDE_PX), Picture.Resampling.LANCZOS)
            small.save(written, "JPEG", quality=82)
            return written.getvalue()

        return Response(kept.get(key, make), 200, KEEP, "image/jpeg")

    return router
