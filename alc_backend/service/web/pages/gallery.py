"""The gallery: a wall of images, and the page of each with what was answered about it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import select

from alc_backend.common.types import Json
from alc_backend.datasets.images import reduced_ids
from alc_backend.errors import AlcError, NotFoundError
from alc_backend.labelstudio.client import Client
from alc_backend.loop.annotations import history
from alc_backend.loop.annotations.history import HistoryLine
from alc_backend.loop.browsing import Sort, browse
from alc_backend.loop.workplace import workplace
from alc_backend.service.web.pages.colours import colours
from alc_backend.service.web.pages.lookup import image_of, project_of
from alc_backend.service.web.pages.pictures import SIDES, Size, state_of
from alc_backend.service.web.pages.rendering import Renderer, prefix_of
from alc_backend.store import ledger, tallies
from alc_backend.store.database import Store
from alc_backend.store.derived import Counted, Standing, Way
from alc_backend.store.kinds import EntryKind
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import MAX_ID, Image, LedgerEntry, Project, Superpixel

PAGE_SIZE = 24

SORTS = {
    Sort.RECENT: "Answered last",
    Sort.CORRECTED: "Most corrected",
    Sort.DOUBTFUL: "Most doubtful",
    Sort.DISPUTED: "Disputed",
}
"""How the page names the orders."""

NOTICES = {"undone": "It is undone, and will be asked again."}
"""What an image's page says after a button was pressed, by the word in its address."""

SAID = {
    EntryKind.ACCEPT: "accepted",
    EntryKind.CORRECT: "corrected",
    EntryKind.EDIT: "edited by hand",
    EntryKind.MACHINE: "labelled by the machine",
}
"""How a superpixel's present class came about."""


@dataclass(frozen=True)
class Said:
    """One entry of the ledger about an image, with its ``lines``: several for an edit.

    ``first``: it is the first shown of its annotation, and carries the button that undoes it.
    """

    lines: list[HistoryLine]
    in_force: bool
    first: bool


def gallery_router(store: Store, renderer: Renderer) -> APIRouter:
    """The wall at /images, the pages at /images/ID, and the button that undoes an answer."""
    router = APIRouter(include_in_schema=False)

    @router.get("/images")
    def images(
        request: Request,
        project: int | None = None,
        sort: Sort = Sort.RECENT,
        shows: str = "",
        begin: str | None = None,
    ) -> HTMLResponse:
        with store.reading() as session:
            projects = session.scalars(select(Project).order_by(Project.name)).all()
        if not projects:
            raise NotFoundError("there is no project yet; make one with `alc init`")
        chosen = projects[0] if project is None else project_of(store, project)
        with store.reading() as session:
            shelf = browse(
                session,
                chosen.id,
                sort=sort,
                class_id=_class_of(chosen, shows),
                begin=begin,
                many=PAGE_SIZE,
            )
            total = tallies.count(session, chosen.id, Counted.IMAGES)
            position = state_of(session, chosen)
        return renderer.page(
            request,
            "images.html",
            page="images",
            project=chosen,
            projects=projects,
            shelf=shelf,
            total=total,
            position=position,
            sort=sort,
            sorts=SORTS,
            shows=shows,
            begin=begin,
            colours=list(zip(chosen.classes, colours(len(chosen.classes)), strict=True)),
        )

    def page(request: Request, image: Image, said: str = "", status: int = 200) -> HTMLResponse:
        with store.reading() as session:
            project = session.get_one(Project, image.project_id)
            position = ledger.position(session, project.id)
            state = state_of(session, project)
            place = workplace(session, project, store.settings)
        return renderer.page(
            request,
            "image.html",
            status,
            page="images",
            project=project,
            place=place,
            image=image,
            entries=_said_about(store, image),
            superpixels=_superpixels(store, project, image, position),
            position=state,
            colours=dict(zip(project.classes, colours(len(project.classes)), strict=True)),
            said=said,
        )

    @router.get("/images/{image_id}")
    def one_image(request: Request, image_id: int, said: str = "") -> HTMLResponse:
        return page(request, image_of(store, image_id), NOTICES.get(said, ""))

    @router.post("/answers/{answer_id}/revert")
    async def revert(request: Request, answer_id: int) -> Response:
        await renderer.check_form(request)

        def undo() -> Response:
            image = _image_of_answer(store, answer_id)
            try:
                with ExitStack() as opened:
                    history.revert(
                        store,
                        lambda: opened.enter_context(Client.from_settings(store.settings)),
                        image.project_id,
                        answer_id,
                    )
            except AlcError as error:
                return page(request, image, f"Nothing was undone: {error}", 409)
            return RedirectResponse(f"{prefix_of(request)}/images/{image.id}?said=undone", 303)

        return await run_in_threadpool(undo)

    return router


def _class_of(project: Project, name: str) -> int | None:
    """The number of the class that is asked for; None for all. Raises NotFoundError."""
    if not name:
        return None
    if name not in project.classes:
        raise NotFoundError(f"project {project.name} has no class {name!r}")
    return int(project.classes.index(name))


def _image_of_answer(store: Store, answer_id: int) -> Image:
    with store.reading() as session:
        entry = session.get(LedgerEntry, answer_id) if 0 < answer_id <= MAX_ID else None
        if entry is None:
            raise NotFoundError(f"there is no answer {answer_id}")
        return session.get_one(Image, entry.image_id)


def _said_about(store: Store, image: Image) -> list[Said]:
    """What was said about an image, the latest first."""
    lines = history.list_entries(store, image.project_id, images=[image.key])
    found, seen = [], set()
    for _, group in groupby(reversed(lines), key=lambda line: line.answer):
        of_entry = list(group)
        in_force = of_entry[0].in_force
        first = in_force and of_entry[0].annotation not in seen
        if in_force:
            seen.add(of_entry[0].annotation)
        found.append(Said(of_entry, in_force, first))
    return found


def _superpixels(store: Store, project: Project, image: Image, position: int) -> Json:
    """What each superpixel of an image is, and why, by its number, for the page's script."""
    files = store.files(project.id)
    side = SIDES[Size.LARGE]
    with store.reading() as session:
        maps = LabelMaps(session, files, project.id, position, images=[image.id])
        labels = reduced_ids(maps.read(image.id), side).astype(np.int64)
        rows = session.execute(
            select(Superpixel.number, Standing.way, Standing.disputed, LedgerEntry)
            .join(Standing, Standing.superpixel_id == Superpixel.id)
            .outerjoin(LedgerEntry, LedgerEntry.id == Standing.entry_id)
            .where(Superpixel.image_id == image.id)
        ).all()
    numbers = reduced_ids(files.read_superpixels(image.id), side).astype(np.int64)
    pairs, counts = np.unique(256 * numbers + labels, return_counts=True)
    found: dict[str, Json] = {}
    for pair in pairs[np.argsort(counts, kind="stable")]:  # what most pixels are comes last
        number, label = divmod(int(pair), 256)
        if number:
            name = project.classes[label] if label < len(project.classes) else "void"
            found[str(number)] = {"is": name, "why": "nobody has confirmed it"}
    for number, way, disputed, entry in rows:
        if str(number) in found:
            found[str(number)]["why"] = _why(way, disputed is not None, entry)
    return found


def _why(way: Way | None, disputed: bool, entry: LedgerEntry | None) -> str:
    if disputed:
        return "annotators disagree"
    if entry is None or entry.kind not in SAID:
        return "waits for another annotator"
    if way == Way.EDIT and entry.kind != EntryKind.EDIT:
        return "edited by hand after it was " + SAID[entry.kind]
    by = "" if entry.is_by_machine else f" by user {entry.annotator}"
    when = f"{entry.answered_at:%Y-%m-%d %H:%M} UTC"
    return f"{SAID[entry.kind]}{by}, {when}" + ("" if way else "; not confirmed yet")
