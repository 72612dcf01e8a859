"""The web application: its routes joined, behind the password and with its background threads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from alc_backend.common.loopback import is_loopback
from alc_backend.common.version import __version__
from alc_backend.errors import SettingsError
from alc_backend.loop.annotations import webhooks
from alc_backend.service.jobs.queues import Jobs, connect
from alc_backend.service.web.bodies import BodyLimit
from alc_backend.service.web.cvat import cvat_router
from alc_backend.service.web.guard import OPEN, Guard
from alc_backend.service.web.hosts import LoopbackHosts
from alc_backend.service.web.ingest import Ingest
from alc_backend.service.web.metrics import Requests
from alc_backend.service.web.operations import operations_router
from alc_backend.service.web.pages.gallery import gallery_router
from alc_backend.service.web.pages.pictures import pictures_router
from alc_backend.service.web.pages.projects import projects_router
from alc_backend.service.web.pages.rendering import Renderer
from alc_backend.service.web.pages.static import static_router
from alc_backend.service.web.pages.thumbnails import Thumbnails
from alc_backend.service.web.pages.tiles import tiles_router
from alc_backend.service.web.protocol import protocol_router
from alc_backend.service.web.proxies import ForwardedFor
from alc_backend.service.web.request_ids import RequestIds
from alc_backend.service.web.responses import AsciiJSONResponse, answer_errors
from alc_backend.service.web.rounds import rounds_router
from alc_backend.service.web.security_headers import SecurityHeaders
from alc_backend.service.web.turns import Turns
from alc_backend.settings import Settings
from alc_backend.store.database import Store

SHORTEST_SECRET = 16
"""Characters of a password on a public address, which outsiders have years to guess."""


def create_app(settings: Settings) -> FastAPI:
    """The web application, ready to serve; Redis and Label Studio may be away.

    Raises SettingsError when it would listen on a public address without a password, or with one
    that could be guessed.
    """
    if not is_loopback(settings.host):
        _check_secret(settings)
    store = Store(settings)
    redis = connect(settings)
    jobs = Jobs(settings, redis)
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
        openapi_url=None,  # a route of its own, behind the password like the others
        lifespan=lifespan,
        default_response_class=AsciiJSONResponse,
    )
    _add_middleware(app, settings)
    answer_errors(app)
    renderer, thumbnails = Renderer(settings), Thumbnails(settings.data_dir / "thumbnails")
    for router in (
        projects_router(store, jobs, renderer),
        gallery_router(store, renderer),
        pictures_router(store, thumbnails),
        tiles_router(store, thumbnails),
        static_router(),
        protocol_router(store, jobs, letterbox, ingest),
        cvat_router(store, ingest),
        operations_router(store, redis),
        rounds_router(store, jobs),
    ):
        app.include_router(router)
    return app


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """What each request passes through; the last one added is the outermost."""
    app.add_middleware(Turns, free=OPEN)
    app.add_middleware(BodyLimit, megabytes=settings.max_request_mb)
    app.add_middleware(Guard, settings=settings)
    if settings.secret is None:
        app.add_middleware(LoopbackHosts, settings=settings)
    app.add_middleware(ForwardedFor, trusted=settings.proxy_networks)
    app.add_middleware(Requests)
    app.add_middleware(RequestIds)  # so that what the others log has the request's id
    app.add_middleware(SecurityHeaders)


def _check_secret(settings: Settings) -> None:
    """Raise SettingsError for a missing or short secret; the message says how to make one."""
    length = len(settings.secret.get_secret_value()) if settings.secret else 0
    if length < SHORTEST_SECRET:
        fault = f"has {length} characters" if length else "is not set"
        raise SettingsError(
            f"ALC_SECRET {fault}; to listen on {settings.host} it needs {SHORTEST_SECRET} or more: "
            "everyone who guesses it could write answers; `openssl rand -hex 24` makes one"
        )
