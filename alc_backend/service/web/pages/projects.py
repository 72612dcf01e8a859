"""The list of projects, and the page of each: how it stands, what to do next, and buttons."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from alc_backend.errors import AlcError
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.overview import Overviews
from alc_backend.loop.rounds import lifecycle
from alc_backend.service.jobs.queues import Jobs
from alc_backend.service.web.pages.advice import advise, steps
from alc_backend.service.web.pages.colours import colours
from alc_backend.service.web.pages.curves import curves
from alc_backend.service.web.pages.lookup import place_of, project_of
from alc_backend.service.web.pages.rendering import Renderer, prefix_of
from alc_backend.store.database import Store
from alc_backend.store.models import Project

NOTICES = {
    "started": "The round was started.",
    "running": "A round is running already.",
    "cancelled": "The round is being cancelled.",
}
"""What the page says after a button was pressed, by the word in its address."""


def projects_router(store: Store, jobs: Jobs, renderer: Renderer) -> APIRouter:
    """The list at /, the page of each project at /projects/ID, and its buttons.

    Where there is one project alone, / leads to its page.
    """
    router = APIRouter(include_in_schema=False)
    overviews = Overviews(store)

    def page(request: Request, project: Project, notice: str, status: int = 200) -> HTMLResponse:
        view = overviews.of(project.id)
        place = place_of(store, project)
        return renderer.page(
            request,
            "project.html",
            status,
            page="project",
            project=project,
            view=view,
            place=place,
            advice=advise(view, place),
            steps=steps(view),
            curves=curves(view),
            colours=colours(len(project.classes)),
            waiting=webhooks.waiting(store, project.id),
            said=notice,
        )

    @router.get("/")
    def all_projects(request: Request) -> Response:
        views = overviews.all()
        if len(views) == 1:
            return RedirectResponse(_address(request, views[0].project.id), 303)
        return renderer.page(
            request,
            "projects.html",
            page="projects",
            views=[(view, advise(view, place_of(store, view.project))) for view in views],
            waiting=webhooks.waiting(store),
        )

    @router.get("/projects/{project_id}")
    def one_project(request: Request, project_id: int, said: str = "") -> HTMLResponse:
        return page(request, project_of(store, project_id), NOTICES.get(said, ""))

    @router.post("/projects/{project_id}/start")
    async def start(request: Request, project_id: int) -> Response:
        await renderer.check_form(request)

        def begin() -> Response:
            project = project_of(store, project_id)
            try:
                _, started = lifecycle.start(store, jobs.enqueue_part, project.id)
            except AlcError as error:
                return page(request, project, f"The round was not started: {error}", 409)
            return _back(request, project, "started" if started else "running")

        return await run_in_threadpool(begin)

    @router.post("/projects/{project_id}/cancel")
    async def cancel(request: Request, project_id: int) -> Response:
        await renderer.check_form(request)

        def end() -> Response:
            project = project_of(store, project_id)
            try:
                lifecycle.cancel(store, project.id)
            except AlcError as error:
                return page(request, project, str(error), 409)
            return _back(request, project, "cancelled")

        return await run_in_threadpool(end)

    return router


def _address(request: Request, project_id: int) -> str:
    return f"{prefix_of(request)}/projects/{project_id}"


def _back(request: Request, project: Project, said: str) -> RedirectResponse:
    """To the project's page, which says what was done."""
    return RedirectResponse(f"{_address(request, project.id)}?said={said}", 303)
