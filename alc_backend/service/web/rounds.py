"""The routes of the rounds, for programs: list them, start one, cancel the running one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body, HTTPException
from sqlalchemy import select

from alc_backend.common.types import Json
from alc_backend.errors import NotFoundError
from alc_backend.loop.rounds import lifecycle
from alc_backend.loop.rounds.status import RoundSummary
from alc_backend.service.jobs.queues import Jobs
from alc_backend.settings import MOST_AREA, MOST_FOLDS, MOST_QUERIES
from alc_backend.store.database import Store
from alc_backend.store.models import Project, Round

RANGES = {
    "size": (1, MOST_QUERIES),
    "per_image": (1, MOST_QUERIES),
    "min_area": (0, MOST_AREA),
    "folds": (1, MOST_FOLDS),
}
"""The options of a round, with the least and the greatest value of each."""


def rounds_router(store: Store, jobs: Jobs) -> APIRouter:
    """/rounds and /rounds/cancel."""
    router = APIRouter()

    @router.get("/rounds")
    def list_rounds() -> list[Json]:
        with store.reading() as session:
            found = session.scalars(select(Round).order_by(Round.project_id, Round.number)).all()
        return [RoundSummary.of(round_).as_json() for round_ in found]

    @router.post("/rounds")
    def start_round(body: Json = Body()) -> Json:
        project_id = _project_id(store, body.get("project"))
        round_, started = lifecycle.start(store, jobs.enqueue_part, project_id, **_options(body))
        return {**RoundSummary.of(round_).as_json(), "started": started}

    @router.post("/rounds/cancel")
    def cancel_round(body: Json = Body()) -> Json:
        round_ = lifecycle.cancel(store, _project_id(store, body.get("project")))
        return RoundSummary.of(round_).as_json()

    return router


def _options(body: Json) -> dict[str, int | None]:
    """The options of a round that a request gives; 422 for a value out of range."""
    given = {name: body.get(name) for name in RANGES}
    for name, value in given.items():
        least, most = RANGES[name]
        if value is not None and (type(value) is not int or not least <= value <= most):
            raise HTTPException(422, f"{name} must be an integer from {least} to {most}")
    return given


def _project_id(store: Store, given: Any) -> int:
    """The id of the project that has this name or id; 404 when there is none."""
    with store.reading() as session:
        for project in session.scalars(select(Project)):
            if given in (project.id, project.name) and type(given) is not bool:
                return project.id
    raise NotFoundError(f"there is no project {given!r}; GET /rounds lists them")
