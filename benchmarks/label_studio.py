"""Measure the backend together with a real Label Studio.

``python -m benchmarks.label_studio [--queries 2000,20000] [FILE]`` starts Label Studio and the
backend in a temporary folder and measures

- putting all open queries into a new order, beside Label Studio's own import of the same
  predictions;
- how soon webhooks are acknowledged, alone and while the worker trains, and a prediction of 1000
  tasks in one request;
- scoring by one worker and by two, each with one thread;
- bringing pages of look-alikes into Label Studio, beside as many single questions.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image as Picture
from pydantic import SecretStr
from rich.console import Console
from sqlalchemy import delete, insert, select

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.processes import (
    EMAIL,
    start_backend,
    start_label_studio,
    wait_for_label_studio,
)
from alc_backend.labelstudio import tasks
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.tokens import create_personal_token
from alc_backend.loop import leases, page_tasks, query_tasks
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.config import round_config
from alc_backend.loop.projects import connection
from alc_backend.loop.rounds import executor, lifecycle, publishing, selection, status
from alc_backend.loop.rounds.plan import Work
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.service.jobs.processes import Processes
from alc_backend.service.jobs.queues import Jobs
from alc_backend.service.jobs.queues import connect as connect_redis
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Image, Part, Project, Query, Round, Score, Superpixel, utc_now
from alc_backend.store.pages import Page, Tile
from alc_backend.store.round_states import RUNNING, RoundState, Step

PASSWORD = "correct horse 7"
GRID = 10
"""Superpixels of one image: GRID × GRID."""

POSTS, CONNECTIONS, ASKED = 1000, 20, 1000
REPETITIONS = 5
PAGES, TILES = 1000, 12
SCORED = 600
"""Images that one worker, then two score."""
CLASSES = ["background", "cat", "dog", "horse"]

console = Console(stderr=True)


def free_port() -> int:
    """A TCP port of this machine that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_images(root: Path, count: int, side: int = 120) -> Path:
    """Write a dataset of small noisy images, each with GRID × GRID square superpixels."""
    rng = np.random.default_rng(0)
    for name in ("images", "pseudo_labels", "objects"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    cell = np.arange(side) * GRID // side
    objects = (cell[:, None] * GRID + cell[None] + 1).astype(np.uint8)
    for number in range(count):
        labels = rng.integers(0, len(CLASSES), GRID * GRID + 1).astype(np.uint8)[objects]
        noise = rng.normal(0, 30, (side, side, 3)) + 60 * labels[..., None]
        name = f"{number:05d}"
        Picture.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / f"images/{name}.jpg")
        Picture.fromarray(labels).save(root / f"pseudo_labels/{name}.png")
        Picture.fromarray(objects).save(root / f"objects/{name}.png")
    return root


class Bench:
    """A running Label Studio and backend, with one project."""

    def __init__(
        self, folder: Path, processes: Processes, queries: int, *, side: int = 120
    ) -> None:
        port, backend_port = free_port(), free_port()
        self.processes = processes
        options = DemoOptions(data_dir=folder, port=port, backend_port=backend_port)
        start_label_studio(processes, options, PASSWORD)
        wait_for_label_studio(processes, options)
        url = f"http://127.0.0.1:{port}"
        token = create_personal_token(url, EMAIL, PASSWORD)
        self.settings = Settings(
            data_dir=folder / "data",
            database_url=os.environ.get("BENCH_DATABASE_URL"),
            label_studio_url=url,
            label_studio_api_key=SecretStr(token),
            secret=SecretStr("s3cret"),
            port=backend_port,
            preset="cpu",
            iterations=4000,
            _env_file=None,
        )
        start_backend(processes, self.settings)
        self.store = Store(self.settings)
        self.client = Client.from_settings(self.settings)
        images = write_images(folder / f"images-{queries}", queries // GRID**2, side)
        self.project_id = import_folder(self.store, images, f"bench {queries}").project_id
        self.project = connection.connect_project(
            self.store, self.client, self.project_id, lambda message: None
        )

    def scored_round(self, number: int, size: int) -> Round:
        """A round in the step of publishing, with random scores."""
        rng = np.random.default_rng(number)
        config = round_config(self.store.settings, {"size": size})
        with self.store.session() as session:
            round_ = Round(
                project_id=self.project_id,
                number=number,
                state=RoundState.PUBLISHING,
                config=replace(config, acquisition="sim", epsilon=0.0),
                step_began_at=utc_now(),
            )
            session.add(round_)
            session.flush()
            found = session.execute(
                select(Superpixel.id, Superpixel.number)
                .join(Image)
                .where(Image.project_id == self.project_id)
            ).all()
            scores = rng.random(len(found))
            session.execute(
                insert(Score),
                [
                    {
                        "round_id": round_.id,
                        "superpixel_id": row.id,
                        "score": float(score),
                        "row": 12 * ((row.number - 1) // GRID) + int(rng.integers(12)),
                        "col": 12 * ((row.number - 1) % GRID) + int(rng.integers(12)),
                        "pseudo_label": row.number % len(CLASSES),
                        "dominant": 0,
                    }
                    for row, score in zip(found, scores, strict=True)
                ],
            )
        latest = status.latest_round(self.store, self.project_id)
        assert latest is not None
        return latest

    def at(self, round_: Round) -> Reporter:
        """Let this process be at the publishing of a round, as a worker is."""
        with self.store.session() as session:
            here = (Part.round_id == round_.id, Part.step == Step.PUBLISHING)
            part = session.scalars(select(Part).where(*here)).first()
            if part is None:
                work = Work().as_json()
                part = Part(round_id=round_.id, step=Step.PUBLISHING, number=0, work=work)
                session.add(part)
                session.flush()
            leases.claim(part)
        return Reporter(self.store, part)

    def publish(self, round_: Round) -> float:
        """The seconds that publishing a round takes, done as the worker does it."""
        report = self.at(round_)
        began = time.perf_counter()
        publishing.publish_round(self.store, round_, report)
        took = time.perf_counter() - began
        with self.store.session() as session:
            session.get_one(Round, round_.id).state = RoundState.OPEN
            session.get_one(Round, round_.id).opened_at = utc_now()
            session.get_one(Part, report.claimed.id).claimed_by = None
        return took

    def bulk_import(self, round_: Round, version: str) -> float:
        """The seconds that Label Studio's own import of a round's predictions takes.

        ``version`` is the name that the predictions get.
        """
        queue = query_tasks.queue_items(self.store, round_)
        predictions = [
            {
                "task": item.task_id,
                "result": item.result,
                "score": rank / len(queue),
                "model_version": version,
            }
            for rank, item in enumerate(queue)
        ]
        began = time.perf_counter()
        answer = self.client.post(
            f"/api/projects/{self.project.query_project}/import/predictions", predictions
        )
        took = time.perf_counter() - began
        assert answer["created"] == len(queue)
        return took


def reordering(bench: Bench, queries: int) -> dict[str, Any]:
    """Reorder all open queries again and again, with Label Studio's own import before and after.

    One import takes up to half as long again as the next, so the ratio is that of the sums.
    """
    first = bench.publish(bench.scored_round(1, queries))
    times = []
    for number in range(2, 2 + REPETITIONS):
        round_ = bench.scored_round(number, queries)
        selection.choose_batch(bench.store, round_, bench.at(round_))
        before = bench.bulk_import(round_, f"bench-before-{number}")
        took = bench.publish(round_)
        times.append((took, (before + bench.bulk_import(round_, f"bench-after-{number}")) / 2))
    return {
        "queries": queries,
        "first_publication_s": first,
        "reordering_s": [took for took, _ in times],
        "bulk_import_s": [alone for _, alone in times],
        "ratio": sum(took for took, _ in times) / sum(alone for _, alone in times),
        "ratios": [took / alone for took, alone in times],
    }


def publishing_pages(folder: Path, processes: Processes) -> dict[str, Any]:
    """The seconds for PAGES single questions, and for PAGES pages of TILES tiles each."""
    bench = Bench(folder, processes, PAGES * TILES, side=400)
    round_ = bench.scored_round(1, PAGES)
    singles = bench.publish(round_)
    with bench.store.session() as session:
        superpixels = session.scalars(select(Superpixel.id).order_by(Superpixel.id)).all()
        for number in range(PAGES):
            page = Page(
                project_id=bench.project_id, round_id=round_.id, key=f"{number:032x}",
                proposed=1, plan=1, place=number / PAGES,
            )  # fmt: skip
            page.tiles = [
                Tile(position=place + 1, superpixel_id=row_id, row=0, col=0, pseudo_label=1)
                for place, row_id in enumerate(superpixels[number * TILES :][:TILES])
            ]
            session.add(page)
    number, which = bench.project.query_project, page_tasks.planned(round_, 1)
    assert number is not None
    began = time.perf_counter()
    page_tasks.create_missing(
        bench.store, bench.client, round_, which, lambda done, total, message: None
    )
    items = page_tasks.page_items(bench.store, round_, which)
    tasks.add_predictions(
        bench.client, number, "bench", [(item, item.place or 0.0) for item in items]
    )
    pages = time.perf_counter() - began
    bench.client.close()
    bench.store.close()
    return {"count": PAGES, "singles_s": singles, "pages_s": pages, "ratio": pages / singles}


def webhook(project: int, task: Query, prediction: list[Any], number: int) -> dict[str, Any]:
    """The webhook that Label Studio sends when a query is answered; it has no such answer."""
    return {
        "action": "ANNOTATION_CREATED",
        "project": {"id": project},
        "task": {"id": task.task_id, "data": {}},
        "annotation": {
            "id": number,
            "completed_by": 1 + number % CONNECTIONS,
            "result": prediction,
            "prediction": {"result": prediction},
            "was_cancelled": False,
            "lead_time": 3.0,
            "created_at": utc_now().isoformat(),
            "updated_at": utc_now().isoformat(),
        },
    }


def acknowledgements(bench: Bench, first: int) -> dict[str, float]:
    """The times until POSTS webhooks, sent over CONNECTIONS connections, are acknowledged."""
    assert bench.project.query_project is not None
    with bench.store.reading() as session:
        project = session.get_one(Project, bench.project_id)
        asked = query_tasks.contents(session, project, Query.task_id.is_not(None))[:POSTS]
    bodies = [
        webhook(
            bench.project.query_project, entry, selection.query.prediction(content), first + index
        )
        for index, (entry, content) in enumerate(asked)
    ]
    headers = {"Authorization": "Bearer s3cret"}
    times: list[float] = []

    def send(part: list[dict[str, Any]]) -> None:
        with httpx.Client(base_url=bench.settings.backend, headers=headers, timeout=30) as client:
            for body in part:
                began = time.perf_counter()
                client.post("/webhook", json=body).raise_for_status()
                times.append(time.perf_counter() - began)

    began = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(send, [bodies[start::CONNECTIONS] for start in range(CONNECTIONS)]))
    wall = time.perf_counter() - began
    while webhooks.waiting(bench.store):
        time.sleep(0.05)
    read_in = time.perf_counter() - began
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "posts": len(bodies), "p50_ms": 1000 * p50, "p99_ms": 1000 * p99,
        "max_ms": 1000 * max(times), "posts_per_s": len(bodies) / wall, "looked_up_s": read_in,
    }  # fmt: skip


def prediction_times(bench: Bench) -> dict[str, float]:
    """The seconds that a request for ASKED predictions takes, of queries and of images."""
    with bench.store.reading() as session:
        queries = session.scalars(select(Query.task_id).where(Query.task_id.is_not(None))).all()
        images = session.scalars(select(Image.dataset_task)).all()
    found = {}
    for name, project, numbers in (
        ("queries", bench.project.query_project, queries),
        ("images", bench.project.dataset_project, images),
    ):
        given = [{"id": task} for task in (list(numbers) * ASKED)[:ASKED]]
        began = time.perf_counter()
        answer = httpx.post(
            f"{bench.settings.backend}/predict",
            json={"tasks": given, "project": f"{project}.1"},
            headers={"Authorization": "Bearer s3cret"},
            timeout=600,
        )
        found[f"{name}_s"] = time.perf_counter() - began
        assert all(entry["result"] for entry in answer.json()["results"])
    return found


def service(bench: Bench) -> dict[str, Any]:
    """The times of webhooks and predictions, alone and while the worker trains."""
    measured: dict[str, Any] = {"alone": acknowledgements(bench, 1_000_000)}
    measured["predict_alone"] = prediction_times(bench)
    jobs = Jobs(bench.settings, connect_redis(bench.settings))
    round_, _ = lifecycle.start(bench.store, jobs.enqueue_part, bench.project_id)
    while (latest := status.latest_round(bench.store, bench.project_id)) is not None:
        if latest.state == RoundState.TRAINING and latest.done > 20:
            break
        assert latest.state in RUNNING, latest.error
        time.sleep(0.5)
    measured["while_training"] = acknowledgements(bench, 2_000_000)
    measured["predict_while_training"] = prediction_times(bench)
    lifecycle.cancel(bench.store, bench.project_id)
    while status.workers(bench.store, round_):
        time.sleep(0.5)
    return measured


def scoring(folder: Path, workers: int) -> dict[str, Any]:
    """The time of scoring by workers of one thread each; the network is trained beforehand."""
    settings = Settings(
        data_dir=folder / f"workers-{workers}",
        secret=SecretStr("s3cret"),
        preset="cpu",
        iterations=2,
        input_size=96,
        batch_size=2,
        _env_file=None,
    )
    store = Store(settings)
    images = write_images(folder / "scored", SCORED, side=320)
    project_id = import_folder(store, images, "scored").project_id
    queue: list[Part] = []
    round_, _ = lifecycle.start(store, queue.append, project_id)
    for _ in range(2):
        executor.run_part(store, queue.append, queue.pop(0).id)
    from alc_backend.service.jobs.processes import start_redis

    environment = {**settings.environment(), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "alc_backend", "worker", "--queues", "score"]
    with Processes(settings.data_dir / "logs") as processes:
        start_redis(processes, settings)
        for number in range(workers):
            processes.start(f"worker-{number}", command, environment=environment)
        jobs = Jobs(settings, connect_redis(settings))
        for part in queue:
            jobs.enqueue_part(part)
        while (latest := status.latest_round(store, project_id)) and latest.step_began_at is None:
            time.sleep(0.05)
        began = time.perf_counter()
        while (latest := status.latest_round(store, project_id)) and (
            latest.state == RoundState.SCORING
        ):
            processes.check()
            time.sleep(0.05)
        took = time.perf_counter() - began
    with store.session() as session:
        shards = session.scalars(
            select(Part).where(Part.round_id == round_.id, Part.step == RoundState.SCORING)
        ).all()
        scored = len(session.scalars(select(Score).where(Score.round_id == round_.id)).all())
        assert [part.claims for part in shards] == [1] * len(shards)
        session.execute(delete(Score))
    assert scored == SCORED * GRID**2
    store.close()
    return {"workers": workers, "seconds": took, "parts": len(shards), "superpixels": scored}


def main() -> None:
    """Measure everything and print it as JSON."""
    arguments = sys.argv[1:]
    sizes = [2000, 20000]
    if "--queries" in arguments:
        option = arguments.index("--queries")
        sizes = [int(size) for size in arguments[option + 1].split(",")]
        del arguments[option : option + 2]
    measured: dict[str, Any] = {"reordering": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, two = scoring(folder, 1), scoring(folder, 2)
        measured["scoring"] = {"one": one, "two": two, "ratio": two["seconds"] / one["seconds"]}
        console.print(measured["scoring"])
        with Processes(folder / "logs-pages") as processes:
            measured["pages"] = publishing_pages(folder / "pages", processes)
            console.print(measured["pages"])
        for queries in sizes:
            with Processes(folder / f"logs-{queries}") as processes:
                bench = Bench(folder / str(queries), processes, queries)
                measured["reordering"].append(reordering(bench, queries))
                console.print(measured["reordering"][-1])
                if queries == sizes[0]:
                    measured["service"] = service(bench)
                    console.print(measured["service"])
                bench.client.close()
                bench.store.close()
    content = json.dumps(measured, indent=1)
    print(content)
    if arguments:
        Path(arguments[0]).write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
