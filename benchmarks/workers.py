"""How scoring a round gets faster with the number of workers, on PostgreSQL and an object store.

``python -m benchmarks.workers [WORKERS …] [--images N] [--seconds S] [--json FILE]``. Each number
of workers scores a project of its own with N images. Everything is real, a worker is a process of
its own, but for the network: where it would compute, the worker sleeps S seconds an image, as it
waits for a GPU, and answers with the classes of the image's brightness. So the time beyond sleeping
is what reading, scoring, writing and sharing the work cost, on the cores of one machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import func, select

from alc_backend.core.pooling import Prediction
from alc_backend.datasets.images import read_image
from alc_backend.loop.rounds import executor, lifecycle, scoring, status
from alc_backend.service.jobs.processes import Processes, start_redis
from alc_backend.service.jobs.queues import Jobs, connect
from alc_backend.service.jobs.worker import run_worker
from alc_backend.settings import Settings, settings
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Image, Part, Round, Score
from alc_backend.store.round_states import RoundState, Step
from tests.postgres import PostgresServer
from tests.store.object_stores import S3Server

HEIGHT, WIDTH = 375, 500
CLASSES = 21
COLUMNS, ROWS = 4, 2
"""Superpixels of an image, side by side and one above the other."""

LIMIT_S = 1800.0
LOOK_EVERY_S = 0.05


def write_dataset(root: Path, images: int) -> Path:
    """Images of soft brightness whose superpixels have classes that follow it, mostly."""
    for folder in ("images", "pseudo_labels", "objects"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("".join(f"class {c}\n" for c in range(CLASSES)))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    objects = (y * ROWS // HEIGHT * COLUMNS + x * COLUMNS // WIDTH + 1).astype(np.uint8)
    for number in track(range(images), description="making images"):
        grey = rng.integers(0, 256, (ROWS * COLUMNS + 1,), dtype=np.uint8)[objects]
        name = f"{number:05d}"
        Pillow.fromarray(grey).convert("RGB").save(root / "images" / f"{name}.png")
        labels = (grey.astype(np.int64) * CLASSES // 256).astype(np.uint8)
        labels[objects == 1] = 0
        Pillow.fromarray(labels).save(root / "pseudo_labels" / f"{name}.png")
        Pillow.fromarray(objects).save(root / "objects" / f"{name}.png")
    return root


def load(seconds: float, files: ProjectFiles, round_: Round, fold: int | None) -> scoring.Network:
    """A network that takes so many seconds an image without computing."""
    centres = (np.arange(CLASSES, dtype=np.float32) + 0.5) / CLASSES

    def predict(image: Image) -> Prediction:
        grey = read_image(files.image(image.id, image.suffix))[..., 0].astype(np.float32) / 255
        time.sleep(seconds)
        likely = np.exp(-80 * (centres[:, None, None] - grey) ** 2)
        probabilities = (likely / likely.sum(axis=0)).astype(np.float32)
        return Prediction(probabilities, np.zeros((0, 1, 1), np.float32), max(HEIGHT, WIDTH))

    return predict


def use(seconds: float) -> None:
    """Let this process use the network of :func:`load`, which needs no training."""
    executor.STEPS[Step.TRAINING] = lambda store, part, report: None
    executor.STEPS[Step.SCORING] = partial(scoring.score, load=partial(load, seconds))


def work(seconds: float) -> None:
    """Be a worker with that network."""
    use(seconds)
    run_worker(settings())


def measure(
    store: Store, name: str, dataset: Path, start: Callable[[Processes], None], logs: Path
) -> tuple[float, int]:
    """Let the workers that ``start`` starts score a project of its own.

    Returns the seconds from the first image that is scored until the last one's scores are there,
    and the project's id.
    """
    known = import_folder(store, dataset, name)
    jobs = Jobs(store.settings, connect(store.settings))
    with Processes(logs) as processes:
        start(processes)

        def wait_until(*states: RoundState) -> float:
            deadline = time.monotonic() + LIMIT_S
            while (round_ := status.latest_round(store, known.project_id)) is None or (
                round_.state not in states
            ):
                processes.check()
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the round does not get to {' or '.join(states)}")
                time.sleep(LOOK_EVERY_S)
            return time.monotonic()

        lifecycle.start(store, jobs.enqueue_part, known.project_id)
        began = wait_until(RoundState.SCORING)
        ended = wait_until(RoundState.PUBLISHING, RoundState.FAILED)
    with store.reading() as session:
        parts = select(Part.id).join(Round).where(Round.project_id == known.project_id)
        again = session.scalars(parts.where(Part.step == Step.SCORING, Part.claims > 1)).all()
        of_project = Score.round_id.in_(
            select(Round.id).where(Round.project_id == known.project_id)
        )
        scores = session.scalar(select(func.count()).select_from(Score).where(of_project))
    if again or not scores:
        raise RuntimeError(f"{scores} scores, and {len(again)} parts were begun more than once")
    return ended - began, known.project_id


def start_workers(workers: int, seconds: float, store: Store, processes: Processes) -> None:
    """Start so many workers with the network of :func:`load`."""
    command = [sys.executable, "-m", "benchmarks.workers", "--work", str(seconds)]
    for number in range(workers):
        processes.start(f"worker {number}", command, environment=store.settings.environment())


@contextmanager
def installation(images: int) -> Iterator[tuple[Store, Path, Path]]:
    """PostgreSQL, an object store and Redis: the store, a dataset, and a folder for logs."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request
    server = S3Server()
    os.environ.update(server.environment())
    try:
        with tempfile.TemporaryDirectory() as root, PostgresServer(Path(root) / "postgres") as db:
            Path(root).chmod(0o755)  # the server runs as somebody else
            dataset = write_dataset(Path(root) / "dataset", images)
            used = Settings(
                data_dir=Path(root) / "data",
                database_url=db.create_database("workers"),
                files_url=server.make_bucket("workers"),
                acquisition="sim",
                questions="single",
                _env_file=None,
            )
            store = Store(used)
            with Processes(Path(root) / "logs") as processes:
                start_redis(processes, used)
                yield store, dataset, Path(root)
            store.close()
    finally:
        server.stop()


def main() -> None:
    """Measure each number of workers, print a table, and write the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers")
    parser.add_argument("workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.075)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work is not None:
        work(asked.work)
        return
    found: list[dict[str, Any]] = []
    with installation(asked.images) as (store, dataset, root):
        for workers in sorted(asked.workers):
            start = partial(start_workers, workers, asked.seconds, store)
            name = f"with {workers} workers"
            spent, _ = measure(store, name, dataset, start, root / f"workers-{workers}")
            found.append({"workers": workers, "seconds": spent})
    _show(found, asked.images, asked.seconds)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1))


def _show(found: list[dict[str, Any]], images: int, seconds: float) -> None:
    table = Table("workers", "seconds", "images a second", "× the first", "asleep")
    for row in found:
        spent, workers = row["seconds"], row["workers"]
        first = found[0]["seconds"] / spent
        asleep = images * seconds / workers / spent
        table.add_row(
            str(workers), f"{spent:.1f}", f"{images / spent:.1f}", f"{first:.2f}", f"{asleep:.0%}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
