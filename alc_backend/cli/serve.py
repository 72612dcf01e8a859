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


QUEUES = "publish,score,train,pseudo"


def worker(
    queues: Annotated[str, typer.Option(help="Queues to work on, the most urgent first.")] = QUEUES,
    burst: Annotated[bool, typer.Option(help="Stop when the queues are empty.")] = False,
    nodes: Annotated[
        int, typer.Option(help="Train each round with so many machines, each with a worker.")
    ] = 1,
    node: Annotated[
        int, typer.Option(help="Which of them this is: 0 does all jobs, the others only train.")
    ] = 0,
    meeting: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="With several machines: an address of node 0 in your private network and a free "
            "port there, where they meet.",
        ),
    ] = None,
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
    from alc_backend.loop.rounds.machines import Machines

    machines = Machines.of_options(nodes, node, meeting)
    if dask_without_tls and dask is None:
        raise SettingsError("--dask-without-tls says nothing without --dask ADDRESS")
    if machines.node:
        if burst or queues != QUEUES or dask is not None:
            raise SettingsError(
                "--queues, --burst and --dask are for node 0; leave them out for --node "
                f"{node}, which works on no queues"
            )
        from alc_backend.service.jobs.node_worker import run_node

        run_node(settings(), machines)
        return
    from alc_backend.service.jobs.dask_cluster import Cluster
    from alc_backend.service.jobs.worker import run_worker

    names = [name.strip() for name in queues.split(",") if name.strip()]
    if machines.nodes > 1 and "train" not in names:
        raise SettingsError(f"--nodes {nodes} trains: name the queue train in --queues, too")
    cluster = None if dask is None else Cluster(settings(), dask, without_tls=dask_without_tls)
    run_worker(settings(), names, burst=burst, machines=machines, cluster=cluster)
