"""The pages for people: projects with their rounds, and images before and after.

They are rendered here, need no script to be read, and load nothing from elsewhere. Forms carry a
token made from a cookie of this site, so that no other site can press the buttons.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader
from sqlalchemy import func, select

from alc_backend.common.types import Json
from alc_backend.datasets.images import image_thumbnail, label_thumbnail, read_image, voc_palette
from alc_backend.errors import AlcError, NotFoundError
from alc_backend.loop.annotations import history, webhooks
from alc_backend.loop.overview import Overview, Overviews
from alc_backend.loop.rounds import lifecycle
from alc_backend.service.jobs.queues import Jobs
from alc_backend.settings import Settings
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import MAX_ID, TRAIN, Image, LedgerEntry, Project

COOKIE = "alc_page"
PAGE_SIZE = 12
SIDE = 480
FORM_BYTES = 4096
CURVES = {"data_miou": "Quality of the label maps", "model_miou": "Quality of the network"}
SAID = {
    "started": "The round was started.",
    "running": "A round is running already.",
    "cancelled": "The round is being cancelled.",
}
KEEP = {"Cache-Control": "private, max-age=86400"}


def pages(store: Store, jobs: Jobs, settings: Settings) -> APIRouter:
    """The routes of the pages; the caller guards them as it guards the API."""
    router = APIRouter(include_in_schema=False)
    key = settings.secret.get_secret_value() if settings.secret else secrets.token_hex()
    environment = _environment()
    views = Overviews(store)

    def token_of(cookie: str) -> str:
        return hmac.new(key.encode(), f"form {cookie}".encode(), hashlib.sha256).hexdigest()

    def render(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        nonce = secrets.token_urlsafe(12)
        cookie = request.cookies.get(COOKIE) or secrets.token_urlsafe(18)
        page = environment.get_template(name).render(
            nonce=nonce,
            token=token_of(cookie),
            label_studio=settings.label_studio_links,
            **values,
        )
        response = HTMLResponse(page, status, _headers(nonce))
        if COOKIE not in request.cookies:
            response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict")
        return response

    def admin_page(request: Request, said: str = "", status: int = 200) -> HTMLResponse:
        return render(
            request,
            "admin.html",
            status,
            page="admin",
            views=views.all(),
            waiting=webhooks.waiting(store),
            said=said,
        )

    @router.get("/")
    def admin(request: Request, said: str = "") -> HTMLResponse:
        return admin_page(request, SAID.get(said, ""))

    async def pressed(request: Request) -> None:
        """Refuse a form that another site has made."""
        if int(request.headers.get("content-length") or 0) > FORM_BYTES:
            raise HTTPException(413, "the form is too long")
        given = parse_qs((await request.body()).decode("ascii", "replace")).get("token", [""])[0]
        expected = token_of(request.cookies.get(COOKIE, ""))
        if COOKIE not in request.cookies or not hmac.compare_digest(
            given.encode(), expected.encode()
        ):
            raise HTTPException(403, "this form is out of date; go back and load the page again")

    @router.post("/projects/{project_id}/start")
    async def start(request: Request, project_id: int) -> Response:
        await pressed(request)

        def begin() -> Response:
            try:
                _, started = lifecycle.start(store, jobs.enqueue_part, _known(store, project_id).id)
            except AlcError as error:
                return admin_page(request, f"The round was not started: {error}", 409)
            return RedirectResponse(f"/?said={'started' if started else 'running'}", 303)

        return await run_in_threadpool(begin)

    @router.post("/projects/{project_id}/cancel")
    async def cancel(request: Request, project_id: int) -> Response:
        await pressed(request)

        def end() -> Response:
            try:
                lifecycle.cancel(store, _known(store, project_id).id)
            except AlcError as error:
                return admin_page(request, str(error), 409)
            return RedirectResponse("/?said=cancelled", 303)

        return await run_in_threadpool(end)

    @router.get("/projects/{project_id}/{quality}.png")
    def curve(project_id: int, quality: str) -> Response:
        from alc_backend.simulate.report import plots  # Matplotlib loads when somebody looks

        if quality not in CURVES:
            raise HTTPException(404, "there is no such plot")
        plot = plots.curves([_row(views.of(_known(store, project_id).id))], quality)
        if plot is None:
            raise HTTPException(404, "nothing is known yet")
        return Response(plot.png(), media_type="image/png")

    @router.get("/images")
    def images(request: Request, project: int | None = None, start: int = 0) -> HTMLResponse:
        with store.reading() as session:
            projects = session.scalars(select(Project).order_by(Project.name)).all()
        if not projects:
            raise NotFoundError("there is no project yet; make one with `alc init`")
        chosen = projects[0] if project is None else _known(store, project)
        start = min(max(start, 0), MAX_ID)
        items, total, position = _items(store, chosen, start)
        return render(
            request,
            "images.html",
            page="images",
            project=chosen,
            projects=projects,
            items=items,
            total=total,
            position=position,
            start=start,
            size=PAGE_SIZE,
            colours=_colours(chosen.classes),
        )

    @router.get("/images/{image_id}/image")
    def image(image_id: int) -> Response:
        found = _image(store, image_id)
        path = store.files(found.project_id).image(found.id, found.suffix)
        return Response(image_thumbnail(read_image(path), SIDE), 200, KEEP, "image/jpeg")

    @router.get("/images/{image_id}/before")
    def before(image_id: int) -> Response:
        image = _image(store, image_id)
        labels = store.files(image.project_id).read_label_map("initial", image.id)
        return Response(label_thumbnail(labels, SIDE), 200, KEEP, "image/png")

    @router.get("/images/{image_id}/after")
    def after(image_id: int) -> Response:
        image = _image(store, image_id)
        files = store.files(image.project_id)
        with store.reading() as session:
            labels = LabelMaps(session, files, image.project_id, images=[image.id]).read(image.id)
        return Response(label_thumbnail(labels, SIDE), 200, KEEP, "image/png")

    return router


def _known(store: Store, project_id: int) -> Project:
    with store.reading() as session:
        project = session.get(Project, project_id) if 0 < project_id <= MAX_ID else None
    if project is None:
        raise NotFoundError(f"there is no project {project_id}")
    return project


def _image(store: Store, image_id: int) -> Image:
    with store.reading() as session:
        image = session.get(Image, image_id) if 0 < image_id <= MAX_ID else None
    if image is None or image.split != TRAIN:
        raise NotFoundError(f"there is no image {image_id}")
    return image


def _items(store: Store, project: Project, start: int) -> tuple[list[Json], int, int]:
    """Images with what was answered about them, how many there are, and the ledger's position."""
    latest = func.max(LedgerEntry.id)
    with store.reading() as session:
        ours = (Image.project_id == project.id, Image.split == TRAIN)
        total = session.scalar(select(func.count(Image.id)).where(*ours)) or 0
        position = ledger.position(session, project.id)
        found: Sequence[Image] = session.scalars(
            select(Image)
            .outerjoin(LedgerEntry, LedgerEntry.image_id == Image.id)
            .where(*ours)
            .group_by(Image.id)
            .order_by(latest.is_(None), latest.desc(), Image.key)
            .offset(start)
            .limit(PAGE_SIZE)
        ).all()
    said: dict[str, list[Json]] = {}
    for entry in reversed(history.log(store, project.id, images=[image.key for image in found])):
        said.setdefault(entry["image"], []).append(entry)
    items = [
        {
            "image": image,
            "height": max(1, round(320 * image.height / image.width)),
            "entries": said.get(image.key, []),
        }
        for image in found
    ]
    return items, total, position


def _row(view: Overview) -> Json:
    """The rounds of a project as a row of results, for the plots."""
    points = [
        {"answers": r["answers"], "data_miou": r["data_miou"], "model_miou": r["model_miou"]}
        for r in view.rounds
        if r["answers"] is not None
    ]
    return {"label": view.project.name, "oracle": "annotators", "rounds": points}


def _curves(view: Overview) -> list[str]:
    """The qualities that are known of at least two rounds."""
    return [
        quality
        for quality in CURVES
        if sum(round_[quality] is not None for round_ in view.rounds) > 1
    ]


def _colours(classes: Sequence[str]) -> list[tuple[str, str]]:
    palette = voc_palette()
    return [
        (name, "#{:02x}{:02x}{:02x}".format(*palette[3 * index : 3 * index + 3]))
        for index, name in enumerate(classes)
    ]


def _headers(nonce: str) -> dict[str, str]:
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'"
        ),
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("alc_backend.service.web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "curves": _curves,
        "duration": _duration,
        "moment": _moment,
        "number": lambda value: "–" if value is None else f"{value:.3f}",
        "share": lambda value: "–" if value is None else f"{100 * value:.0f} %",
        "title_of": CURVES.__getitem__,
        "whole": lambda value: "–" if value is None else f"{value:.0f}",
    }
    return environment


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _moment(value: datetime | str | None) -> str:
    if value is None:
        return "–"
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{at:%Y-%m-%d %H:%M} UTC"
