"""The admin page: every project with its round and figures, and buttons to start and cancel."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from alc_backend.common.types import Json
from alc_backend.errors import AlcError
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.overview import Overview, Overviews
from alc_backend.loop.rounds import lifecycle
from alc_backend.service.jobs.queues import Jobs
from alc_backend.service.web.pages.lookup import project_of
from alc_backend.service.web.pages.rendering import CURVES, Renderer, prefix_of
from alc_backend.store.database import Store

NOTICES = {
    "started": "The round was started.",
    "running": "A round is running already.",
    "cancelled": "The round is being cancelled.",
}
"""What the page says after a button was pressed, by the word in its address."""


def admin_router(store: Store, jobs: Jobs, renderer: Renderer) -> APIRouter:
    """The page at /, its buttons, and the plots that it shows."""
    router = APIRouter(include_in_schema=False)
    overviews = Overviews(store)

    def page(request: Request, notice: str = "", status: int = 200) -> HTMLResponse:
        return renderer.page(
            request,
            "admin.html",
            status,
            page="admin",
            views=overviews.all(),
            waiting=webhooks.waiting(store),
            said=notice,
        )

    @router.get("/")
    def admin(request: Request, said: str = "") -> HTMLResponse:
        return page(request, NOTICES.get(said, ""))

    @router.post("/projects/{project_id}/start")
    async def start(request: Request, project_id: int) -> Response:
        await renderer.check_form(request)

        def begin() -> Response:
            try:
                project = project_of(store, project_id)
                _, started = lifecycle.start(store, jobs.enqueue_part, project.id)
            except AlcError as error:
                return page(request, f"The round was not started: {error}", 409)
            return _back(request, "started" if started else "running")

        return await run_in_threadpool(begin)

    @router.post("/projects/{project_id}/cancel")
    async def cancel(request: Request, project_id: int) -> Response:
        await renderer.check_form(request)

        def end() -> Response:
            try:
                lifecycle.cancel(store, project_of(store, project_id).id)
            except AlcError as error:
                return page(request, str(error), 409)
            return _back(request, "cancelled")

        return await run_in_threadpool(end)

    @router.get("/projects/{project_id}/{quality}.png")
    def curve(project_id: int, quality: str) -> Response:
        from alc_backend.simulate.report import plots  # Matplotlib loads when somebody looks

        if quality not in CURVES:
            raise HTTPException(404, "there is no such plot")
        plot = plots.curves([_row(overviews.of(project_of(store, project_id).id))], quality)
        if plot is None:
            raise HTTPException(404, "nothing is known yet")
        return Response(plot.png(), media_type="image/png")

    return router


def _back(request: Request, said: str) -> RedirectResponse:
    """To the page, which says what was done."""
    return RedirectResponse(f"{prefix_of(request)}/?said={said}", 303)


def _row(view: Overview) -> Json:
    """The rounds of a project as a row of results, for the plots."""
    points = [
        {"answers": r.answers, "data_miou": r.data_miou, "model_miou": r.model_miou}
        for r in view.rounds
        if r.answers is not None
    ]
    return {"label": view.project.name, "oracle": "annotators", "rounds": points}
