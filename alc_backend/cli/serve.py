"""``alc serve`` and ``alc worker``: the processes that run all the time."""

from __future__ import annotations

from typing import Annotated

import typer

from alc_backend.settings import settings


def serve() -> None:
    """Run the service that Label Studio talks to.

    Without REDIS_URL it also runs a private Redis and one worker.
    """
    from alc_backend.service.web.run import run_service

    run_service(settings())


def worker(
    queues: Annotated[
        str, typer.Option(help="Queues to work on, the most urgent first.")
    ] = "publish,score,train,pseudo",
    burst: Annotated[bool, typer.Option(help="Stop when the queues are empty.")] = False,
) -> None:
    """Run a worker that trains, scores and publishes."""
    from alc_backend.service.jobs.worker import run_worker

    names = [name.strip() for name in queues.split(",") if name.strip()]
    run_worker(settings(), names, burst=burst)
