"""Label Studio's ML protocol over HTTP."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Body, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter
from sqlalchemy import select

from alc_backend.common.types import Json
from alc_backend.common.version import __version__
from alc_backend.errors import AlcError, NotFoundError, SettingsError
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.rounds import lifecycle
from alc_backend.loop.rounds.status import summary
from alc_backend.service.jobs.queues import Jobs, connect
from alc_backend.service.web.guard import Guard, SizeLimit
from alc_backend.service.web.ingest import Ingest
from alc_backend.service.web.metrics import Metrics, Readiness, Requests
from alc_backend.service.web.model import ALCModel
from alc_backend.service.web.pages import pages
from alc_backend.service.web.request_ids import RequestIds
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.models import MAX_ID, Project, Round

log = logging.getLogger(__name__)


LOOPBACK = ("127.0.0.1", "localhost", "::1")

PREDICTIONS = Counter("alc_predictions", "Tasks that Label Studio asked predictions for")


class Answer(JSONResponse):
    """JSON in ASCII: text that was sent with half a character in it can be quoted."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, separators=(",", ":")).encode()


def create_app(settings: Settings) -> FastAPI:
    """The web application.

    Redis and Label Studio may be away. Raises SettingsError when it would listen on a public
    address without a secret.
    """
    if settings.secret is None and settings.host not in LOOPBACK:
        raise SettingsError(
            f"ALC_SECRET is not set; it is required to listen on {settings.host}: everyone who "
            "reaches this port could write answers"
        )
    store = Store(settings)
    redis = connect(settings)
    jobs = Jobs(settings, redis)
    measured, readiness = Metrics(store, redis), Readiness(store, settings)
    ingest, letterbox = Ingest(store, jobs), webhooks.Letterbox(store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with ingest, letterbox:
            yield
        store.close()

    app = FastAPI(
        title="alc-backend",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # below, with the password
        lifespan=lifespan,
        default_response_class=Answer,
    )
    app.add_middleware(SizeLimit, megabytes=settings.max_request_mb)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Requests)
    app.add_middleware(RequestIds)  # the outermost: what the others log has the request's id

    @app.exception_handler(AlcError)
    def alc_error(request: Request, error: AlcError) -> Answer:
        log.warning("%s %s: %s", request.method, request.url.path, error)
        status = 404 if isinstance(error, NotFoundError) else 409
        return Answer({"detail": str(error)}, status)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Answer:
        """Say what is wrong and where; what was sent is not sent back, whatever bytes it has."""
        problems = [{"at": [*map(str, p["loc"])], "problem": p["msg"]} for p in error.errors()]
        return Answer({"detail": problems}, 422)

    app.include_router(pages(store, jobs, settings))

    @app.get("/health")
    def health() -> Json:
        return {"status": "UP", "model_class": "ALCModel"}

    @app.get("/ready")
    def ready() -> Answer:
        checks = readiness.checks()
        missing = [name for name, works in checks.items() if not works]
        if not checks["database"] or not checks["disk"]:
            return Answer({"ready": False, "missing": missing}, 503)
        return Answer({"ready": True, "degraded": missing})

    @app.post("/setup")
    def setup(body: Json = Body()) -> Json:
        model = ALCModel(store, jobs, letterbox, _project_number(body.get("project")))
        return model.setup(str(body.get("schema") or body.get("label_config") or ""))

    @app.post("/predict")
    def predict(body: Json = Body()) -> Answer:
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise HTTPException(422, "tasks must be a list of tasks")
        PREDICTIONS.inc(len(tasks))
        model = ALCModel(store, jobs, letterbox, _project_number(body.get("project")))
        # made here: FastAPI would look at every number of every mask once more
        return Answer({"results": model.predict(tasks), "model_version": model.model_version})

    @app.post("/webhook")
    def webhook(body: Json = Body()) -> Json:
        project = body.get("project")
        number = project.get("id") if isinstance(project, dict) else project
        model = ALCModel(store, jobs, letterbox, _project_number(number))
        try:
            outcome = model.fit(str(body.get("action")), body)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        ingest.notice()
        return outcome

    @app.post("/train")
    def train(body: Json = Body()) -> Json:
        model = ALCModel(store, jobs, letterbox, _project_number(body.get("project")))
        return model.fit("START_TRAINING", body)

    @app.get("/versions")
    def versions(project: str = "") -> Json:
        model = ALCModel(store, jobs, letterbox, _project_number(project))
        return {"versions": [model.model_version]}

    @app.post("/job_status")
    def job_status(body: Json = Body()) -> Json:
        name = str(body.get("job", ""))
        number = name.removeprefix("round-")
        with store.reading() as session:
            known = number.isdecimal() and len(number) < 11 and int(number) <= MAX_ID
            round_ = session.get(Round, int(number)) if known else None
        if round_ is None:
            raise NotFoundError(f"there is no job {name!r}")
        return {
            "job_status": round_.state,
            "error": round_.error or "",
            "log": f"{round_.message} ({round_.done}/{round_.total})",
            "created_at": round_.created_at.isoformat(),
            "finished_at": round_.opened_at.isoformat() if round_.opened_at else None,
        }

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> Json:
        return app.openapi()

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(measured.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/rounds")
    def list_rounds() -> list[Json]:
        with store.reading() as session:
            found = session.scalars(select(Round).order_by(Round.project_id, Round.number)).all()
        return [summary(round_) for round_ in found]

    @app.post("/rounds")
    def start_round(body: Json = Body()) -> Json:
        project_id = _project_id(store, body.get("project"))
        given = {name: body.get(name) for name in ("size", "per_image", "min_area", "folds")}
        for name, value in given.items():
            least = 0 if name == "min_area" else 1
            if value is not None and (type(value) is not int or not least <= value <= MAX_ID):
                raise HTTPException(422, f"{name} must be an integer from {least} on")
        round_, started = lifecycle.start(store, jobs.enqueue_part, project_id, **given)
        return {**summary(round_), "started": started}

    @app.post("/rounds/cancel")
    def cancel_round(body: Json = Body()) -> Json:
        return summary(lifecycle.cancel(store, _project_id(store, body.get("project"))))

    return app


def _project_id(store: Store, given: Any) -> int:
    """The id of a project of ours, given by name or id; 404 when there is none."""
    with store.reading() as session:
        for project in session.scalars(select(Project)):
            if given in (project.id, project.name) and type(given) is not bool:
                return project.id
    raise NotFoundError(f"there is no project {given!r}; GET /rounds lists them")


def _project_number(value: Any) -> int:
    """The id in Label Studio's project key ``"id.timestamp"``; 422 for anything else."""
    number = str(value).partition(".")[0]
    if not number.isdecimal() or len(number) > 10 or int(number) > MAX_ID:
        raise HTTPException(422, f"project must be a Label Studio project id, not {value!r}")
    return int(number)
