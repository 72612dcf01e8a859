"""What grows with the number of images, and how fast: ``make bench-scale``.

``python -m benchmarks.scale [IMAGES …] [--database sqlite|postgresql …] [--json FILE]`` fills
stores with so many images (see :mod:`benchmarks.scale_stores`) and does in each what the service,
the workers and the commands do. Every figure is of a fresh process: the seconds of its second go,
or of its first where that takes longer than PATIENCE_S; the memory that the first one added at its
peak. On SQLite the seconds are those of the processor, on PostgreSQL those of the clock: there, the
server's count as well. What grows like n^x has the exponent x.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from fastapi.testclient import TestClient
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from alc_backend.loop import query_tasks
from alc_backend.loop.annotations import history, reconciliation
from alc_backend.loop.exports import snapshot
from alc_backend.loop.questions import planning
from alc_backend.loop.rounds import preparation, scoring, selection, training
from alc_backend.loop.rounds.plan import Work
from alc_backend.service.web.model import ALCModel
from alc_backend.service.web.operations import operations_router
from alc_backend.service.web.pages.gallery import gallery_router
from alc_backend.service.web.pages.projects import projects_router
from alc_backend.service.web.pages.rendering import Renderer
from alc_backend.settings import Settings
from alc_backend.store.models import Part, Query
from alc_backend.store.pages import Page
from benchmarks.__main__ import extra_memory
from benchmarks.scale_stores import (
    QUERY_TASKS,
    SHARD,
    World,
    build,
    changed,
    opened,
)
from tests.fake_label_studio import DATASET_PROJECT, QUERY_PROJECT, FakeLabelStudio
from tests.postgres import PostgresServer

PATIENCE_S = 3.0
"""What takes longer is done once."""

Measured = Callable[[World, int], object]
"""Does something in a store for the first (0) or second (1) time."""


class _Reached(Exception):
    """The work before the network of a shard is loaded is done."""


class _Report:
    """Takes progress for a worker's, and gives sessions to write in."""

    def __init__(self, world: World) -> None:
        self.session = world.store.session

    def __call__(self, done: int, total: int, message: str) -> None:
        """Takes note of nothing."""

    def check(self) -> None:
        """The part is this worker's."""


def shard(world: World, turn: int) -> None:
    """A scoring shard until its network is loaded."""
    last = world.images - turn * SHARD
    work = Work(list(range(last - SHARD + 1, last + 1)), None, SHARD)
    part = Part(round=world.round, round_id=world.round.id, number=1, work=work.as_json())

    def load(*_: object) -> Any:
        raise _Reached

    with suppress(_Reached):
        scoring.score(world.store, part, cast(Any, _Report(world)), load)


def reconcile(world: World, turn: int) -> None:
    """Reconciling with a Label Studio in which nothing has changed."""
    del turn
    label_studio = FakeLabelStudio()
    label_studio.add_task(1, {"image": "/data/1", "alc": {"image": "image 1"}}, DATASET_PROJECT)
    with label_studio.client() as client:
        reconciliation.reconcile(world.store, client, world.project.id)


def _asked(world: World, path: str) -> None:
    """Ask an application without the guard, whose caches are empty."""
    store, app = world.store, FastAPI()
    nowhere = Redis(port=1, retry=Retry(NoBackoff(), 0))  # nothing is waited for
    renderer = Renderer(store.settings)
    app.include_router(projects_router(store, cast(Any, None), renderer))
    app.include_router(gallery_router(store, renderer))
    app.include_router(operations_router(store, nowhere))
    answer = TestClient(app, base_url="http://127.0.0.1").get(path)
    answer.raise_for_status()


def project_page(world: World, turn: int) -> None:
    """The page of a project."""
    del turn
    _asked(world, f"/projects/{world.project.id}")


def gallery(world: World, turn: int) -> None:
    """A page of the gallery."""
    _asked(world, f"/images?project={world.project.id}&start={12 * turn}")


def doubtful_images(world: World, turn: int) -> None:
    """A page of the gallery with the images that the network doubts most."""
    del turn
    _asked(world, f"/images?project={world.project.id}&sort=doubtful")


def metrics(world: World, turn: int) -> None:
    """What Prometheus asks for."""
    del turn
    _asked(world, "/metrics")


def log(world: World, turn: int) -> None:
    """`alc answers log --last 50`."""
    del turn
    assert len(history.list_entries(world.store, world.project.id, last=50)) == 50


def _predicted(world: World, first: int, count: int) -> None:
    model = ALCModel(world.store, cast(Any, None), cast(Any, None), DATASET_PROJECT)
    answers = model.predict([{"id": (first + n) % world.images + 1} for n in range(count)])
    assert all(answers)


def predict_one(world: World, turn: int) -> None:
    """The masks of a dataset task."""
    _predicted(world, turn, 1)


def predict_many(world: World, turn: int) -> None:
    """The masks of 100 dataset tasks."""
    _predicted(world, 10 + 100 * turn, 100)


def predict_queries(world: World, turn: int) -> None:
    """The questions of 100 query tasks."""
    model = ALCModel(world.store, cast(Any, None), cast(Any, None), QUERY_PROJECT)
    answers = model.predict([{"id": QUERY_TASKS + 20 * (n + 100 * turn) + 3} for n in range(100)])
    assert all(answers)


def prepare(world: World, turn: int) -> None:
    """The first step of a round, without Label Studio."""
    del turn
    preparation.prepare(world.store, world.round, cast(Any, _Report(world)))


def begin_training(world: World, turn: int) -> None:
    """What a training reads before it begins."""
    del turn
    training.training_maps(world.store, world.round)


def choose_sim(world: World, turn: int) -> None:
    """Choosing a batch by SIM."""
    _chosen(world, turn, "sim")


def choose_default(world: World, turn: int) -> None:
    """Choosing a batch by `default`."""
    _chosen(world, turn, "default")


def _chosen(world: World, turn: int, acquisition: str) -> None:
    del turn
    round_ = changed(world, acquisition=acquisition)
    selection.choose_batch(world.store, round_, cast(Any, _Report(world)))
    with world.store.reading() as session:
        mine = select(func.count()).where(Query.round_id == world.round.id)
        assert session.scalar(mine)


def plan_pages(world: World, turn: int) -> None:
    """Learning from the answers, and planning the next pages of look-alikes."""
    del turn
    round_ = changed(world, questions="mixed")
    report = cast(Any, _Report(world))
    planning.make_plan(world.store, round_, report, report)
    with world.store.reading() as session:
        assert session.scalar(select(func.count()).select_from(Page))


def left_behind(world: World, turn: int) -> None:
    """Looking for queries of earlier rounds that are to be closed."""
    del turn
    with world.store.reading() as session:
        query_tasks.queries_left_behind(session, world.round)


def agreement(world: World, turn: int) -> None:
    """`alc answers agreement`."""
    del turn
    history.team_agreement(world.store, world.project.id)


def export(world: World, turn: int) -> None:
    """What an export reads of the ledger, from the first entry to the last."""
    del turn
    taken = snapshot.take(world.store, world.project.id)
    entries = taken.entries
    deque(entries() if callable(entries) else entries, maxlen=0)


MEASURED: dict[str, Measured] = {
    "scoring shard, before its network": shard,
    "reconcile, nothing changed": reconcile,
    "a project's page, first": project_page,
    "gallery page": gallery,
    "gallery page, most doubtful": doubtful_images,
    "/metrics, first": metrics,
    "`answers log`, last 50": log,
    "predict, one dataset task": predict_one,
    "predict, 100 dataset tasks": predict_many,
    "predict, 100 query tasks": predict_queries,
    "starting to train": begin_training,
    "queries left behind": left_behind,
    "`answers agreement`": agreement,
    "export's snapshot": export,
    "choosing a batch, `sim`": choose_sim,
    "choosing a batch, `default`": choose_default,
    "planning pages of look-alikes": plan_pages,
    "preparing a round": prepare,
}
"""What is measured, in this order; the last one removes the round's scores."""


def measure(settings: Settings, images: int, work: Measured) -> tuple[float, float] | None:
    """The seconds and the bytes that something takes; None where it fails."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_child, args=(there, settings, images, work)
    )
    process.start()
    there.close()
    try:
        found: tuple[float, float] | None = here.recv()
    except EOFError:
        found = None
    process.join()
    return found


def _child(there: Connection, settings: Settings, images: int, work: Measured) -> None:
    clock = time.perf_counter if settings.database_url else time.process_time
    spent: list[float] = []
    with opened(settings, images) as world:

        def go() -> None:
            began = clock()
            work(world, len(spent))
            spent.append(clock() - began)

        gc.collect()
        memory = extra_memory(go)
        if spent[0] < PATIENCE_S:
            go()
    there.send((spent[-1], memory or math.nan))


@contextmanager
def _stores(databases: list[str]) -> Iterator[Callable[[str, int], Settings]]:
    """Gives settings for an empty store in a database, for a number of images."""
    with tempfile.TemporaryDirectory() as root:
        server = PostgresServer(Path(root) / "postgres") if "postgresql" in databases else None
        Path(root).chmod(0o755)  # the server runs as somebody else

        def of(database: str, images: int) -> Settings:
            url = None
            if database == "postgresql":
                assert server is not None
                url = server.create_database(f"scale_{images}")
            return Settings(
                data_dir=Path(root) / f"{database}-{images}",
                database_url=url,
                preset="sample",
                acquisition="sim",
                questions="single",
                _env_file=None,  # type: ignore[call-arg]
            )

        if server is None:
            yield of
        else:
            with server:
                yield of


def main() -> None:
    """Build, measure, print a table for each database; write the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("images", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--database", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--only", help="measure what has this in its name")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    console = Console()
    document: dict[str, dict[str, dict[str, list[float] | None]]] = {}
    wanted = {name: work for name, work in MEASURED.items() if (asked.only or "") in name}
    with _stores(asked.database) as settings_of:
        for database in asked.database:
            found = document.setdefault(database, {name: {} for name in wanted})
            for images in sorted(asked.images):
                settings = settings_of(database, images)
                began = time.perf_counter()
                build(settings, images)
                console.print(f"{database}, {images}: {time.perf_counter() - began:.0f} s to build")
                for name, work in wanted.items():
                    measured = measure(settings, images, work)
                    found[name][str(images)] = None if measured is None else list(measured)
                    if asked.json is not None:
                        asked.json.write_text(json.dumps(document, indent=1, ensure_ascii=False))
            _show(console, database, found)


def _show(console: Console, database: str, found: dict[str, dict[str, list[float] | None]]) -> None:
    sizes = list(next(iter(found.values())))
    table = Table(database, *sizes, "grows like")
    for name, figures in found.items():
        cells = [
            "–" if one is None else f"{one[0]:.3g} s, {one[1] / 2**20:.0f} MB"
            for one in figures.values()
        ]
        table.add_row(name, *cells, _exponent(figures))
    console.print(table)


def _exponent(figures: dict[str, list[float] | None]) -> str:
    """The exponent by which the seconds grow between the two largest stores."""
    known = [(int(images), one[0]) for images, one in figures.items() if one is not None]
    if len(known) < 2:
        return "–"
    (few, fast), (many, slow) = known[-2:]
    return f"n^{math.log(slow / fast) / math.log(many / few):.2f}"


if __name__ == "__main__":
    main()
