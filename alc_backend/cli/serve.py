"""``alc serve`` and ``alc worker``: the processes that run all the time."""

from __future__ import annotations

from typing import Annotated

import typer

from alc_backend.errors import SettingsError
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
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Let the cluster of this Dask scheduler, such as tls://host:8786, score and make "
            "first label maps.",
        ),
    ] = None,
    dask_without_tls: Annotated[
        bool,
        typer.Option(
            "--dask-without-tls",
            help="Use a scheduler at tcp:// on another machine; whoever reaches it can run "
            "programs.",
        ),
    ] = False,
) -> None:
    """Run a worker that trains, scores and publishes."""
    from alc_backend.service.jobs.dask_cluster import Cluster
    from alc_backend.service.jobs.worker import run_worker

    if dask_without_tls and dask is None:
        raise SettingsError("--dask-without-tls says nothing without --dask ADDRESS")
    names = [name.strip() for name in queues.split(",") if name.strip()]
    cluster = None if dask is None else Cluster(settings(), dask, without_tls=dask_without_tls)
    run_worker(settings(), names, burst=burst, cluster=cluster)
