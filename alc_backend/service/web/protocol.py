"""The routes that Label Studio calls: its protocol for machine-learning backends, and webhooks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body, HTTPException
from prometheus_client import Counter

from alc_backend.common.types import Json
from alc_backend.errors import NotFoundError
from alc_backend.loop.annotations import webhooks
from alc_backend.service.jobs.queues import Jobs
from alc_backend.service.web.ingest import Ingest
from alc_backend.service.web.model import START_TRAINING, ALCModel
from alc_backend.service.web.responses import AsciiJSONResponse
from alc_backend.store.database import Store
from alc_backend.store.models import MAX_ID, Round

PREDICTIONS = Counter("alc_predictions", "Tasks that Label Studio asked predictions for")


def protocol_router(
    store: Store, jobs: Jobs, letterbox: webhooks.Letterbox, ingest: Ingest
) -> APIRouter:
    """/setup, /predict, /webhook, /train, /versions and /job_status."""
    router = APIRouter()

    def model_of(project: Any) -> ALCModel:
        return ALCModel(store, jobs, letterbox, _project_number(project))

    @router.post("/setup")
    def setup(body: Json = Body()) -> Json:
        model = model_of(body.get("project"))
        return model.setup(str(body.get("schema") or body.get("label_config") or ""))

    @router.post("/predict")
    def predict(body: Json = Body()) -> AsciiJSONResponse:
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise HTTPException(422, "tasks must be a list of tasks")
        PREDICTIONS.inc(len(tasks))
        model = model_of(body.get("project"))
        # a response, not a value: FastAPI would look at every number of every mask once more
        return AsciiJSONResponse(
            {"results": model.predict(tasks), "model_version": model.model_version}
        )

    @router.post("/webhook")
    def webhook(body: Json = Body()) -> Json:
        project = body.get("project")
        model = model_of(project.get("id") if isinstance(project, dict) else project)
        try:
            outcome = model.fit(str(body.get("action")), body)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        ingest.notice()
        return outcome

    @router.post("/train")
    def train(body: Json = Body()) -> Json:
        return model_of(body.get("project")).fit(START_TRAINING, body)

    @router.get("/versions")
    def versions(project: str = "") -> Json:
        return {"versions": [model_of(project).model_version]}

    @router.post("/job_status")
    def job_status(body: Json = Body()) -> Json:
        return _job_status(store, str(body.get("job", "")))

    return router


def _job_status(store: Store, job: str) -> Json:
    """What Label Studio shows of a round, whose job is called ``round-ID``."""
    number = job.removeprefix("round-")
    with store.reading() as session:
        known = number.isdecimal() and len(number) < 11 and int(number) <= MAX_ID
        round_ = session.get(Round, int(number)) if known else None
    if round_ is None:
        raise NotFoundError(f"there is no job {job!r}")
    return {
        "job_status": round_.state,
        "error": round_.error or "",
        "log": f"{round_.message} ({round_.done}/{round_.total})",
        "created_at": round_.created_at.isoformat(),
        "finished_at": round_.opened_at.isoformat() if round_.opened_at else None,
    }


def _project_number(value: Any) -> int:
    """The id in Label Studio's project key ``"id.timestamp"``; 422 for anything else."""
    number = str(value).partition(".")[0]
    if not number.isdecimal() or len(number) > 10 or int(number) > MAX_ID:
        raise HTTPException(422, f"project must be a Label Studio project id, not {value!r}")
    return int(number)
