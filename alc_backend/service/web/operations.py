"""The routes for those who operate the service: health, readiness, metrics, OpenAPI."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from redis import Redis

from alc_backend.common.types import Json
from alc_backend.service.web.metrics import Metrics
from alc_backend.service.web.readiness import Readiness
from alc_backend.service.web.responses import AsciiJSONResponse
from alc_backend.store.database import Store


def operations_router(store: Store, redis: Redis) -> APIRouter:
    """/health, /ready, /metrics and /openapi.json."""
    router = APIRouter()
    metrics_of_all, readiness = Metrics(store, redis), Readiness(store)

    @router.get("/health")
    async def health() -> Json:  # needs no thread, of which all may be busy
        return {"status": "UP", "model_class": "ALCModel"}

    @router.get("/ready")
    def ready() -> AsciiJSONResponse:
        checks = readiness.checks()
        missing = [name for name, works in checks.items() if not works]
        if not checks["database"] or not checks["disk"]:
            return AsciiJSONResponse({"ready": False, "missing": missing}, 503)
        return AsciiJSONResponse({"ready": True, "degraded": missing})

    @router.get("/openapi.json", include_in_schema=False)
    def openapi(request: Request) -> Json:
        document: Json = request.app.openapi()
        return document

    @router.get("/metrics")
    def metrics() -> Response:
        return Response(metrics_of_all.text(), media_type=CONTENT_TYPE_LATEST)

    return router
