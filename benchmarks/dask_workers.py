"""What a cluster under Dask writes and takes, compared with one worker of our own.

``python -m benchmarks.dask_workers [--processes N] [--images N] [--seconds S]``. Both score the
images of ``benchmarks.workers``, with its network, PostgreSQL, object store and Redis. The cluster
is ``dask scheduler``, N ``dask worker`` of one thread, and one ``alc worker --dask``. Everything
that was written about each superpixel must be the same; whether it is, and the times, are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from functools import partial
from typing import Any

from distributed import Client
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from alc_backend.loop.rounds import executor
from alc_backend.service.jobs.dask_cluster import Cluster
from alc_backend.service.jobs.processes import Processes
from alc_backend.service.jobs.worker import run_worker
from alc_backend.settings import settings
from alc_backend.store.database import Store
from alc_backend.store.models import Image, Score, Superpixel
from alc_backend.store.round_states import Step
from benchmarks import workers
from tests.ports import free_port

SECONDS = "BENCHMARK_SECONDS"
"""The environment variable that says how long the network takes, for the processes of Dask."""

UP_WITHIN_S = 120


def dask_setup(worker: Any) -> None:
    """Let a process of Dask use the network of ``benchmarks.workers``; it is told to load this."""
    workers.use(float(os.environ[SECONDS]))


def work(address: str) -> None:
    """Be the worker that hands its scoring over, and could not do it itself."""
    workers.use(0.0)
    executor.STEPS[Step.SCORING] = lambda store, part, report: 1 / 0
    run_worker(settings(), cluster=Cluster(settings(), address))


def start(count: int, seconds: float, store: Store, processes: Processes) -> None:
    """Start a scheduler, so many processes that score, and the worker; wait until they are up."""
    address = f"tcp://127.0.0.1:{(port := free_port())}"
    dask = [sys.executable, "-m", "dask"]
    environment = {**store.settings.environment(), SECONDS: str(seconds)}
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    processes.start("scheduler", [*dask, *scheduler])
    one = ["worker", address, "--nthreads", "1", "--no-dashboard"]
    for number in range(count):
        folder = str(store.settings.data_dir / f"dask-{number}")
        command = [*dask, *one, "--preload", __spec__.name, "--local-directory", folder]
        processes.start(f"dask {number}", command, environment=environment)
    with Client(address, timeout=UP_WITHIN_S, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=UP_WITHIN_S)
    command = [sys.executable, "-m", __spec__.name, "--work", address]
    processes.start("worker", command, environment=environment)


def written(store: Store, project_id: int) -> tuple[int, str]:
    """How many scores a project has, and a digest of all that was written with them."""
    columns = (Score.score, Score.row, Score.col, Score.pseudo_label, Score.dominant)
    digest, count = hashlib.sha256(), 0
    with store.reading() as session:
        for row in session.execute(
            select(Image.key, Superpixel.number, *columns)
            .join(Superpixel, Superpixel.id == Score.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Image.project_id == project_id)
            .order_by(Image.key, Superpixel.number)
        ):
            digest.update(repr(tuple(row)).encode())
            count += 1
    return count, digest.hexdigest()


def main() -> None:
    """Score with both, compare, and print a table; exit code 1 where they differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dask_workers")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.075)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work is not None:
        work(asked.work)
        return
    under_dask = f"Dask, {asked.processes} processes"
    table = Table("scored by", "seconds", "ratio", "scores", "SHA-256 of all")
    seen: dict[str, tuple[float, int, str]] = {}
    with workers.installation(asked.images) as (store, dataset, root):
        for name, begin in (
            ("one worker", partial(workers.start_workers, 1, asked.seconds, store)),
            (under_dask, partial(start, asked.processes, asked.seconds, store)),
        ):
            spent, project_id = workers.measure(store, name, dataset, begin, root / name)
            seen[name] = spent, *written(store, project_id)
    first = seen["one worker"]
    for name, (spent, count, digest) in seen.items():
        table.add_row(name, f"{spent:.1f}", f"{first[0] / spent:.2f}", str(count), digest[:16])
    Console().print(table)
    if first[1:] != seen[under_dask][1:]:
        sys.exit("they differ")


if __name__ == "__main__":
    main()
