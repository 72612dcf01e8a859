"""The route that CVAT's webhooks report to, each report signed with the webhook's secret."""

from __future__ import annotations

import json

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from alc_backend.common.types import Json
from alc_backend.cvat.signature import HEADER, is_signed, secret_of
from alc_backend.loop.cvat import answers
from alc_backend.loop.cvat.projects import WEBHOOK
from alc_backend.service.web.guard import Failures
from alc_backend.service.web.ingest import Ingest
from alc_backend.store.database import Store
from alc_backend.store.models import MAX_ID


def cvat_router(store: Store, ingest: Ingest) -> APIRouter:
    """POST /cvat/{questions}: a job of a CVAT project with questions has changed."""
    router = APIRouter()
    failures = Failures()
    known = (store.settings.secret, store.settings.secret_previous)
    secrets = [each.get_secret_value() for each in known if each is not None]

    @router.post(WEBHOOK)
    async def report(request: Request, questions: int) -> Json:
        body = await request.body()
        signed = 0 < questions <= MAX_ID and is_signed(
            body, request.headers.get(HEADER, ""), [secret_of(questions, each) for each in secrets]
        )
        if not signed:
            address = request.client.host if request.client else ""
            if wait := failures.add(address):
                later = {"Retry-After": str(int(wait) + 1)}
                raise HTTPException(429, "too many wrong signatures from this address", later)
            raise HTTPException(401, "wrong or missing signature")
        return await run_in_threadpool(_keep, store, ingest, questions, body)

    return router


def _keep(store: Store, ingest: Ingest, questions: int, body: bytes) -> Json:
    try:
        payload = json.loads(body)
        if not isinstance(payload, dict):
            raise ValueError("a report is a JSON object")
        known = answers.note_report(store, questions, payload)
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, str(error)) from error
    if known:
        ingest.notice()
    return {"known": known}
