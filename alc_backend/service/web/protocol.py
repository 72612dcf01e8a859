"""The routes that Label Studio calls: its protocol for machine-learning backends, and webhooks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body, HTTPException, Request
from prometheus_client import Counter

from alc_backend.common.credentials import Credential, Purpose
from alc_backend.common.types import Json
from alc_backend.errors import NotFoundError
from alc_backend.loop.annotations import webhooks
from alc_backend.service.jobs.queues import Jobs
from alc_backend.service.web.guard import check_credential, credential_of
from alc_backend.service.web.ingest import Ingest
from alc_backend.service.web.model import START_TRAINING, ALCModel
from alc_backend.service.web.responses import AsciiJSONResponse
from alc_backend.store.database import Store
from alc_backend.store.models import MAX_ID, Project, Round

PREDICTIONS = Counter("alc_predictions", "Tasks that Label Studio asked predictions for")


def protocol_router(
    store: Store, jobs: Jobs, letterbox: webhooks.Letterbox, ingest: Ingest
) -> APIRouter:
    """/setup, /predict, /webhook, /train, /versions, /job_status and /connections."""
    router = APIRouter()
    undivided: set[int] = set()

    def model_of(request: Request, project: Any, purpose: Purpose = Purpose.BACKEND) -> ALCModel:
        number = _project_number(project)
        check_credential(request, number, purpose)
        return ALCModel(store, jobs, letterbox, number)

    @router.post("/setup")
    def setup(request: Request, body: Json = Body()) -> Json:
        model = model_of(request, body.get("project"))
        if credential_of(request) is None:
            undivided.add(model.label_studio_project)
        else:
            undivided.discard(model.label_studio_project)
        return model.setup(str(body.get("schema") or body.get("label_config") or ""))

    @router.get("/connections")
    def connections() -> Json:
        """The projects whose last /setup came with ALC_SECRET itself, for `alc doctor`."""
        return {"with_the_secret": sorted(undivided)}

    @router.post("/predict")
    def predict(request: Request, body: Json = Body()) -> AsciiJSONResponse:
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise HTTPException(422, "tasks must be a list of tasks")
        model = model_of(request, body.get("project"))
        PREDICTIONS.inc(len(tasks))
        # a response, not a value: FastAPI would look at every number of every mask once more
        results = model.predict(tasks, label_config=body.get("label_config"))
        return AsciiJSONResponse({"results": results, "model_version": model.model_version})

    @router.post("/webhook")
    def webhook(request: Request, body: Json = Body()) -> Json:
        project, action = body.get("project"), str(body.get("action"))
        starts = action == START_TRAINING  # which Label Studio sends as to a backend
        model = model_of(
            request,
            project.get("id") if isinstance(project, dict) else project,
            Purpose.BACKEND if starts else Purpose.WEBHOOK,
        )
        try:
            outcome = model.fit(action, body)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        ingest.notice()
        return outcome

    @router.post("/train")
    def train(request: Request, body: Json = Body()) -> Json:
        return model_of(request, body.get("project")).fit(START_TRAINING, body)

    @router.get("/versions")
    def versions(request: Request, project: str = "") -> Json:
        credential = credential_of(request)  # Label Studio names no project here
        named = project or (str(credential.project) if credential else "")
        return {"versions": [model_of(request, named).model_version]}

    @router.post("/job_status")
    def job_status(request: Request, body: Json = Body()) -> Json:
        return _job_status(store, str(body.get("job", "")), credential_of(request))

    return router


def _job_status(store: Store, job: str, credential: Credential | None) -> Json:
    """What Label Studio shows of a round, whose job is called ``round-ID``.

    A job of another project than that of the credential counts as unknown.
    """
    number = job.removeprefix("round-")
    with store.reading() as session:
        known = number.isdecimal() and len(number) < 11 and int(number) <= MAX_ID
        round_ = session.get(Round, int(number)) if known else None
        hidden = round_ and credential and not _is_of(round_.project, credential)
    if round_ is None or hidden:
        raise NotFoundError(f"there is no job {job!r}")
    return {
        "job_status": round_.state,
        "error": round_.error or "",
        "log": f"{round_.message} ({round_.done}/{round_.total})",
        "created_at": round_.created_at.isoformat(),
        "finished_at": round_.opened_at.isoformat() if round_.opened_at else None,
    }


def _is_of(project: Project, credential: Credential) -> bool:
    return credential.project in (project.dataset_project, project.query_project)


def _project_number(value: Any) -> int:
    """The id in Label Studio's project key ``"id.timestamp"``; 422 for anything else."""
    number = str(value).partition(".")[0]
    if not number.isdecimal() or len(number) > 10 or int(number) > MAX_ID:
        raise HTTPException(422, f"project must be a Label Studio project id, not {value!r}")
    return int(number)
