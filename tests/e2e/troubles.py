"""What befalls an installation as a whole while people label, beside what ``chaos`` kills.

Label Studio's clock is wrong, its database comes from an older dump, there are twin tasks, a worker
is paused, images are deleted, a class is added.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from sqlalchemy import select

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import model_version
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.tasks import annotation_result, is_switched
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.annotations.reconciliation import reconcile
from alc_backend.loop.rounds import status
from alc_backend.service.jobs.processes import Processes
from alc_backend.settings import Settings
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import Image, Part, Project, Query, Superpixel
from alc_backend.store.pages import Page
from alc_backend.store.round_states import RUNNING, RoundState, Step
from tests.e2e.chaos import Killer, Labeler, Supervisor, page_result, repaint, wait_until
from tests.e2e.demonstration import alc

DATABASE, DUMP = "label_studio.sqlite3", "dump.sqlite3"
AFTER_DUMP = 5
"""How many annotations a dump lacks at least."""

NEW_CLASS = "kite"

PAUSE_LIMIT_S = 120
"""How long a worker stays paused at most, should it have been paused with the database locked."""


@dataclass(frozen=True)
class World:
    """Everything that runs; ``label_studio`` is a data folder, ``clock`` the file of a clock."""

    processes: Processes
    supervisor: Supervisor
    settings: Settings
    store: Store
    client: Client
    project: Project
    label_studio: Path
    clock: Path

    def reconcile(self, **how: bool) -> Counter[str]:
        return reconcile(self.store, self.client, self.project.id, **how)

    def in_force(self) -> set[int]:
        """The annotations (ids) that stand in the ledger."""
        with self.store.reading() as session:
            entries = ledger.standing(session, self.project.id, removed=True)
        return {entry.annotation_id for entry in entries}


class Troubles:
    """Makes one trouble after the other; ``did`` counts them.

    ``deleted`` are the images (row ids) whose tasks are gone, ``lost`` is the number of annotations
    that older dumps lacked.
    """

    def __init__(self, world: World, labelers: list[Labeler], killer: Killer, seed: int) -> None:
        self.did: Counter[str] = Counter()
        self.deleted: list[int] = []
        self.lost = 0
        self._world, self._labelers, self._killer = world, labelers, killer
        self._random = random.Random(seed)
        self._kept: tuple[list, list[int]] = ([], [])

    # Label Studio, its clock and its database.

    def kill_label_studio(self) -> None:
        self._killer.kill("label-studio")
        wait_until(self._label_studio_is_up, 240, "Label Studio")

    def set_clock(self, seconds: float) -> None:
        """Let Label Studio's clock be ahead (or, negative, behind) from now on."""
        self._world.clock.write_text(str(seconds))
        self.did["clock set"] += 1

    def dump(self) -> None:
        """Copy Label Studio's database while people work."""
        self._kept = ([labeler.memory() for labeler in self._labelers], list(self.deleted))
        folder = self._world.label_studio
        with (
            closing(sqlite3.connect(folder / DATABASE)) as source,
            closing(sqlite3.connect(folder / DUMP)) as target,
        ):
            source.backup(target)
        self.did["dumped"] += 1

    def restore(self, *, accept: bool) -> None:
        """Kill Label Studio, start it with the database of the last dump, and reconcile.

        ``accept``: have what the dump lacks withdrawn at once, and wait for the round's queue.
        """
        world = self._world
        wait_until(lambda: self._since_dump() >= AFTER_DUMP, 240, "an answer after the dump")
        with world.supervisor.held():
            process = psutil.Process(world.processes.pid_of("label-studio"))
            process.kill()
            wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE, 30, "the end")
            folder = world.label_studio
            self.lost += self._since_dump()
            for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"):
                (folder / name).unlink(missing_ok=True)
            (folder / DUMP).rename(folder / DATABASE)
            memories, self.deleted = self._kept
            for labeler, memory in zip(self._labelers, memories, strict=True):
                labeler.remember(memory)
        self.did["restored"] += 1
        wait_until(self._label_studio_is_up, 240, "Label Studio")
        if accept:
            self.accept_deletions()
            wait_until(self._queue_is_back, 240, "the queue of the open round")
        else:
            self.did[Outcome.LOST.value] += world.reconcile(full=True)[Outcome.LOST]

    def _queue_is_back(self) -> bool:
        """Whether Label Studio follows the open round again."""
        world = self._world
        latest = status.latest_round(world.store, world.project.id)
        version = model_version.of_round(latest.number)
        with suppress(LabelStudioError):
            return is_switched(world.client, world.project.query_project, version)
        return False

    def accept_deletions(self) -> None:
        """Have withdrawn what Label Studio, with its older database, does not know any more."""
        self._world.reconcile(full=True, accept_deletions=True)

    def _since_dump(self) -> int:
        folder = self._world.label_studio
        return newest(folder / DATABASE) - newest(folder / DUMP)

    def _label_studio_is_up(self) -> bool:
        url = f"{self._world.client.url}/health"
        with suppress(httpx.HTTPError):
            return httpx.get(url, timeout=2).status_code == 200
        return False

    # Twins, images, classes.

    def twins(self, *, keep_second: bool) -> None:
        """Make a second task about a superpixel, answer both, and delete one of the two.

        The same with a page.
        """
        for first in (self._question(), self._page()):
            self._twin(first, keep_second=keep_second)
        self.did["twins"] += 1

    def _twin(self, first: int, *, keep_second: bool) -> None:
        world, client = self._world, self._world.client
        task = client.get(f"/api/tasks/{first}/")
        data = task["data"]
        shown = client.get("/api/predictions/", task=first)[-1]["result"]
        body = {"project": world.project.query_project, "data": data}
        second = int(client.post("/api/tasks/", body)["id"])
        if data["tiles"]:
            results = [shown, page_result(shown, [])]
        else:
            results = [annotation_result(shown, choice["value"]) for choice in data["choices"]]
        given = {
            number: int(
                client.post(
                    f"/api/tasks/{number}/annotations/", {"result": result, "lead_time": 1.0}
                )["id"]
            )
            for number, result in zip((first, second), results, strict=False)
        }
        world.reconcile()
        missing = {task for task, number in given.items() if number not in world.in_force()}
        assert not missing, [client.get(f"/api/tasks/{number}/") for number in missing]
        kept, gone = (second, first) if keep_second else (first, second)
        client.delete(f"/api/tasks/{gone}/")
        world.reconcile()
        assert {given[kept], given[gone]} & world.in_force() == {given[kept]}

    def _page(self) -> int:
        """The task of some page of the last round that has pages."""
        with self._world.store.reading() as session:
            asked = select(Page.task_id).where(Page.task_id.is_not(None), Page.closed_at.is_(None))
            latest = asked.order_by(Page.round_id.desc(), Page.place)
            return session.scalars(latest.limit(1)).one()

    def _question(self) -> int:
        """The task of some question, of the last round and unsettled if there is such a one."""
        world = self._world
        with world.store.reading() as session:
            settled = ledger.judgement(session, world.project.id).settled
            asked = session.execute(
                select(Query.task_id, Query.superpixel_id)
                .join(Superpixel, Superpixel.id == Query.superpixel_id)
                .join(Image, Image.id == Superpixel.image_id)
                .where(
                    Query.task_id.is_not(None),
                    Query.closed_at.is_(None),
                    Image.removed.is_(None),
                    Query.adjudication.is_(False),
                )
                .order_by(Query.round_id.desc(), Query.rank.desc())
            ).all()
        return min(asked, key=lambda row: row.superpixel_id in settled).task_id

    def delete_image(self) -> None:
        """Delete the task of an image that is asked about, as people do in the Data Manager."""
        world = self._world
        with world.store.reading() as session:
            asked = select(Superpixel.image_id).join(Query).where(Query.task_id.is_not(None))
            images = session.scalars(
                select(Image).where(Image.id.in_(asked), Image.removed.is_(None)).order_by(Image.id)
            ).all()
        image = self._random.choice([image for image in images if image.id not in self.deleted])
        world.client.delete(f"/api/tasks/{image.dataset_task}/")
        self.deleted.append(image.id)
        self.did["images deleted"] += 1

    def add_class(self) -> None:
        """Let somebody paint with a class that is added only afterwards."""
        world = self._world
        painted = None
        while painted is None:
            painted = repaint(world.client, world.project.dataset_project, self._random, NEW_CLASS)
        counts = world.reconcile()
        assert counts[Outcome.UNKNOWN_CLASS] or counts[Outcome.UNREADABLE], counts
        assert painted not in world.in_force()
        alc(world, "classes", "add", NEW_CLASS)
        assert painted in world.in_force()
        for labeler in self._labelers:
            labeler.paints.append(NEW_CLASS)
        self.did["classes added"] += 1

    # Workers.

    def pause_worker(self, state: RoundState) -> None:
        """Stop a worker that works at a round in ``state``, until another one has its part."""
        later = {*RUNNING[RUNNING.index(state) + 1 :], RoundState.OPEN}
        with another_worker(self._world):
            while status.latest_round(self._world.store, self._world.project.id).state not in later:
                part = self._part_in_work(state)
                if part is not None:
                    with self._killer.hold:
                        paused = self._pause(part)
                    if paused:
                        self.did[f"paused while {state}"] += 1
                        return
                time.sleep(0.02)
        self.did[f"not paused while {state}"] += 1

    def _part_in_work(self, state: RoundState) -> Part | None:
        latest = status.latest_round(self._world.store, self._world.project.id)
        wanted = select(Part).where(Part.round_id == latest.id, Part.claimed_by.is_not(None))
        with self._world.store.reading() as session:
            return session.scalars(wanted.where(Part.step == Step(state.value))).first()

    def _pause(self, part: Part) -> bool:
        """Whether the worker of a part lost it while it was paused."""

        def is_held() -> bool:
            with self._world.store.reading() as session:
                return session.get_one(Part, part.id).claimed_by == part.claimed_by

        worker = int(part.claimed_by.split("|")[1])
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGSTOP)
        try:
            if not is_held():
                return False
            began = time.monotonic()
            while is_held():
                if time.monotonic() - began > PAUSE_LIMIT_S:
                    return False
                time.sleep(0.1)
            time.sleep(self._random.uniform(0, 2))
        finally:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)
        return True


@contextmanager
def another_worker(world: World):
    """A second worker, which dies when the context ends."""
    with (world.label_studio.parent / "logs/second-worker.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "alc_backend.cli", "worker"],
            env={**os.environ, **world.settings.environment()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def newest(database: Path) -> int:
    """The largest number that a database of Label Studio has given to an annotation."""
    with closing(sqlite3.connect(database)) as connection:
        named = "SELECT seq FROM sqlite_sequence WHERE name = 'task_completion'"
        return int(connection.execute(named).fetchone()[0])
