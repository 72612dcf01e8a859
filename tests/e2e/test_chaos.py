"""Whatever dies, no answer is lost, none counts twice, and the rounds go on.

``make test`` runs the short form, on PostgreSQL too with CHAOS=short; ``make chaos`` runs the long
one, on SQLite and on PostgreSQL. CHAOS_SEED gives other dice.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr
from rich.console import Console
from sqlalchemy import select

from alc_backend.cli.demo.options import DemoOptions
from alc_backend.cli.demo.processes import (
    start_backend,
    start_label_studio,
    wait_for_label_studio,
)
from alc_backend.labelstudio import model_version
from alc_backend.labelstudio.annotation import parse
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import asked_about
from alc_backend.labelstudio.tasks import PLANNED_TO
from alc_backend.labelstudio.tokens import create_personal_token
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.annotations.reconciliation import reconcile
from alc_backend.loop.projects import connection
from alc_backend.loop.questions import planning
from alc_backend.loop.rounds import lifecycle, status
from alc_backend.service.jobs.processes import Processes
from alc_backend.service.jobs.queues import Jobs
from alc_backend.service.jobs.queues import connect as connect_redis
from alc_backend.settings import Settings
from alc_backend.simulate.sample import write_sample
from alc_backend.store import ledger, upkeep
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder
from alc_backend.store.kinds import Removal
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import Image, LedgerEntry, Project, Query, Round, Superpixel
from alc_backend.store.pages import Page
from alc_backend.store.round_states import RoundState
from tests.e2e.chaos import Killer, Labeler, Supervisor, UnreliableWire, new_user, wait_until
from tests.e2e.label_studio import copy_migrated
from tests.e2e.troubles import Troubles, World
from tests.ports import free_port

pytestmark = [pytest.mark.ls, pytest.mark.slow]

LONG = os.environ.get("CHAOS") == "long"
SEED = int(os.environ.get("CHAOS_SEED", 0))
DATABASES = ["sqlite", "postgresql"] if "CHAOS" in os.environ else ["sqlite"]
HOUR = 3600
ANSWERS, ROUNDS, IMAGES, BATCH = (500, 5, 200, 130) if LONG else (50, 2, 40, 60)
AHEAD = 60 if LONG else 20
"""How many more questions than are waited for are answered at most: the images must last."""

LABELERS = 4 if LONG else 2
KILLS, PAUSE_S = (40, (4.0, 20.0)) if LONG else (4, (0.5, 2.0))
EMAIL, PASSWORD = "demo@example.com", "correct horse 7"

SHORT_RUN = {
    1: [
        (0.2, lambda do: do.set_clock(-HOUR)),
        (0.5, lambda do: do.twins(keep_second=True)),
        (0.8, lambda do: do.dump()),
        (1.0, None),
        (1.0, lambda do: do.restore(accept=False)),
        (1.0, lambda do: do.pause_worker(RoundState.TRAINING)),
        (1.0, lambda do: do.delete_image()),
    ],
    2: [
        (0.0, lambda do: do.set_clock(0)),
        (0.1, lambda do: do.add_class()),
        (0.2, lambda do: do.accept_deletions()),
    ],
}
LONG_RUN = {
    1: [
        (0.1, lambda do: do.set_clock(-HOUR)),
        (0.3, lambda do: do.twins(keep_second=True)),
        (0.6, lambda do: do.dump()),
        (0.7, lambda do: do.restore(accept=False)),
        (1.0, None),
        (1.0, lambda do: do.kill_label_studio()),
        (1.0, lambda do: do.pause_worker(RoundState.TRAINING)),
    ],
    2: [
        (0.1, lambda do: do.set_clock(0)),
        (0.3, lambda do: do.delete_image()),
        (0.5, lambda do: do.add_class()),
        (1.0, None),
        (1.0, lambda do: do.delete_image()),
        (1.0, lambda do: do.pause_worker(RoundState.PUBLISHING)),
    ],
    3: [
        (0.2, lambda do: do.set_clock(HOUR / 6)),
        (0.4, lambda do: do.twins(keep_second=False)),
        (0.8, lambda do: do.dump()),
        (1.0, None),
        (1.0, lambda do: do.delete_image()),
        (1.0, lambda do: do.pause_worker(RoundState.SCORING)),
    ],
    4: [
        (0.0, lambda do: do.restore(accept=True)),
        (0.2, lambda do: do.delete_image()),
        (0.4, lambda do: do.set_clock(0)),
        (0.6, lambda do: do.twins(keep_second=True)),
        (1.0, None),
        (1.0, lambda do: do.kill_label_studio()),
        (1.0, lambda do: do.delete_image()),
        (1.0, lambda do: do.pause_worker(RoundState.TRAINING)),
    ],
    5: [
        (0.1, lambda do: do.accept_deletions()),
        (0.2, lambda do: do.delete_image()),
        (0.4, lambda do: do.twins(keep_second=False)),
    ],
}
RUN = LONG_RUN if LONG else SHORT_RUN
"""What happens after which share of a round's answers; at None the next round starts."""


@pytest.fixture(params=DATABASES)
def chaos_database(request):
    if request.param == "sqlite":
        yield None
        return
    server = request.getfixturevalue("postgres")
    yield server.create_database("chaos")
    server.drop_database("chaos")


def test_nothing_is_lost_when_everything_dies(tmp_path, chaos_database, monkeypatch):
    port, backend_port, wire_port = free_port(), free_port(), free_port()
    options = DemoOptions(data_dir=tmp_path, port=port, backend_port=backend_port)
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=chaos_database,
        label_studio_url=f"http://127.0.0.1:{port}",
        secret=SecretStr("s3cret"),
        port=backend_port,
        backend_url=f"http://127.0.0.1:{wire_port}",
        preset="sample",
        iterations=25,
        input_size=64,
        batch_size=4,
        checkpoint_every=5,
        stale_after_s=8,
        reconcile_every_s=15,
        questions="mixed",
        tiles=4,
        repeats=0.3,
        seconds_page=0.1,  # pages come early: so small a network believes little
        seconds_tile=0.1,
        _env_file=None,
    )
    copy_migrated(options)
    clock = tmp_path / "clock"
    clock.write_text("0")
    with Processes(tmp_path / "logs") as processes:
        with monkeypatch.context() as patched:
            patched.setenv("CHAOS_CLOCK", str(clock))
            patched.setenv("PYTHONPATH", str(Path(__file__).parent / "clock"))
            start_label_studio(processes, options, PASSWORD, restart=True)
            wait_for_label_studio(processes, options)
        token = create_personal_token(settings.label_studio_url, EMAIL, PASSWORD)
        settings = settings.model_copy(update={"label_studio_api_key": SecretStr(token)})
        wire = UnreliableWire(wire_port, f"http://127.0.0.1:{backend_port}", seed=SEED + 1)
        start_backend(processes, settings, restart=True)
        store, client = Store(settings), Client.from_settings(settings)
        training, held_out = write_sample(tmp_path / "sample", images=IMAGES, held_out=4)
        project_id = import_folder(store, training, "chaos", validation=held_out).project_id
        project = connection.connect_project(store, client, project_id, lambda message: None)
        try:
            with Supervisor(processes) as supervisor:
                world = World(
                    processes, supervisor, settings, store, client, project,
                    tmp_path / "label-studio", clock,
                )  # fmt: skip
                did, deleted = make_trouble(world)
                settle(store, client, project)
                report(did, wire, store, project_id)
                check_everything(store, client, project_id, deleted)
        finally:
            wire.close()
            client.close()
            store.close()


def make_trouble(world: World) -> tuple[Counter[str], list[int]]:
    """Label and retrain while everything goes wrong; what was done, and the images deleted."""
    settings, store, client, project = world.settings, world.store, world.client, world.project
    jobs = Jobs(settings, connect_redis(settings))
    lifecycle.start(store, jobs.enqueue_part, project.id, size=BATCH)
    wait_until(lambda: opened(store, project.id) == 1, 600, "the first round")
    tokens = [
        new_user(client, f"labeler{number}@example.com", PASSWORD) for number in range(LABELERS)
    ]
    labelers: list[Labeler] = []
    goal = 0

    def answered() -> int:
        return sum(labeler.did["answered"] for labeler in labelers)

    def has_time() -> bool:
        return answered() < goal + AHEAD

    labelers += [
        Labeler(
            client.url,
            token,
            project.query_project,
            project.dataset_project,
            SEED + number,
            has_time,
        )
        for number, token in enumerate(tokens)
    ]
    killer = Killer(world.processes, settings, SEED + 2, PAUSE_S, KILLS)
    troubles = Troubles(world, labelers, killer, SEED + 3)
    for thread in (*labelers, killer):
        thread.start()

    def reach(wanted: int) -> None:
        nonlocal goal
        goal = wanted
        wait_until(lambda: answered() >= goal, 600, f"answer {goal}")

    began = time.monotonic()
    for number, happenings in RUN.items():
        begun = answered()
        for share, happens in happenings:
            reach(begun + int(share * ANSWERS / ROUNDS))
            if happens is None:
                lifecycle.start(store, jobs.enqueue_part, project.id, size=BATCH)
            else:
                happens(troubles)
            print(f"{time.monotonic() - began:5.0f} s, {answered()} answers, {dict(troubles.did)}")
        if number < ROUNDS:
            wait_until(
                lambda number=number: opened(store, project.id) == number + 1,
                600,
                f"round {number + 1}",
            )
    reach(max(ANSWERS + troubles.lost, begun + ANSWERS // ROUNDS))
    for labeler in labelers:
        labeler.stop()
    wait_until(lambda: not killer.is_alive(), 40 * KILLS, f"kill {KILLS}")
    did = sum((labeler.did for labeler in labelers), troubles.did)
    did["annotations lost with dumps"] = troubles.lost
    did.update({f"{name} killed": count for name, count in killer.did.items()})
    assert set(killer.did) >= set(Killer.VICTIMS)
    assert did["pages answered"]
    return did, troubles.deleted


def opened(store, project_id: int) -> int:
    """The number of the open round, once nothing runs."""
    latest = status.latest_round(store, project_id)
    assert latest is None or latest.state != RoundState.FAILED, latest.error
    return latest.number if latest is not None and latest.state == RoundState.OPEN else 0


def settle(store, client, project) -> None:
    """Let what is on its way arrive; what was lost is found by the changes alone."""
    wait_until(lambda: not webhooks.waiting(store, project.id), 120, "an empty inbox")
    reconcile(store, client, project.id)
    wait_until(lambda: is_planned(store, project.id), 120, "the last plan")


def is_planned(store, project_id: int) -> bool:
    latest = status.latest_round(store, project_id)
    with store.reading() as session:
        return not planning.is_due(session, session.get_one(Round, latest.id))


def report(did, wire, store, project_id: int) -> None:
    with store.reading() as session:
        entries = session.query(LedgerEntry).filter(LedgerEntry.project_id == project_id)
        rounds = session.scalars(select(Round).order_by(Round.number)).all()
        early = entries.filter(LedgerEntry.answered_at < rounds[0].created_at).count()
        told = f"{entries.count()} ledger entries, {early} dated back, {len(rounds)} rounds"
    Console(force_terminal=False).print(dict(did), dict(wire.did), told)
    assert early  # Label Studio's clock was really set back


def check_everything(store, client, project_id, deleted) -> None:
    with store.reading() as session:
        project = session.get_one(Project, project_id)  # it has another class by now
    given, said = annotations(client, project), ledger_says(store, project)
    for number in kept_newer(store, client, project):
        for known in (given, said):
            for place in [place for place in known if place[0] == number]:
                del known[place]
    assert said == given
    assert {kind for kind, _ in given.values()} >= {"answer", "ruled out"}
    answered = {number for (number, _), (kind, _) in given.items() if kind != "edit"}
    assert len(answered) >= 0.8 * ANSWERS
    full = reconcile(store, client, project.id, full=True)
    assert set(full) <= {Outcome.KNOWN}, full

    assert_label_maps_are_the_replay(store, project)

    with store.reading() as session:
        assert upkeep.differences(session, project.id) == []
        found = session.scalars(select(Round).order_by(Round.number)).all()
    assert [round_.number for round_ in found] == list(range(1, ROUNDS + 1))
    assert [round_.state for round_ in found] == [RoundState.CLOSED] * (ROUNDS - 1) + [
        RoundState.OPEN
    ]
    files = store.files(project.id)
    assert all(files.has_network(round_.number) for round_ in found)
    assert not files.has_network(ROUNDS + 1)

    assert_the_queue_is_in_order(store, client, project)
    assert_nobody_is_asked_about(store, client, project, deleted)


Said = dict[tuple[int, int], tuple[str, str | None]]
"""Annotation (id) and position → the kind and, for answers, the class."""


def annotations(client, project) -> Said:
    """Every annotation in Label Studio, those of pages tile by tile."""
    given: Said = {}
    for task in client.tasks(project.query_project):
        for item in task["annotations"]:
            annotation = parse(item, task["id"])
            tiles = task["data"]["tiles"]
            for position in range(1, len(tiles) + 1) if tiles else [0]:
                said = ("answer", annotation.choice) if annotation.choice else ("skip", None)
                if annotation.ticked is not None and not annotation.cancelled:
                    right = position in annotation.ticked
                    proposed = task["data"]["alc"]["proposed"]
                    said = ("answer", proposed) if right else ("ruled out", None)
                    if task["data"]["alc"]["tiles"][position - 1]["repeated"]:
                        said = ("repeated", proposed if right else None)
                given[annotation.annotation_id, position] = said
    for task in client.tasks(project.dataset_project):
        for item in task["annotations"]:
            given[int(item["id"]), 0] = ("edit", None)
    return given


def kept_newer(store, client, project) -> set[int]:
    """The annotations that Label Studio, restored from a dump, has as they were before a revision.

    The ledger has had them so, and keeps the revision.
    """
    with store.reading() as session:
        moments: dict[int, set[datetime]] = {}
        for entry in session.scalars(select(LedgerEntry)):
            moments.setdefault(entry.annotation_id, set()).add(entry.updated_at)
        last = {
            entry.annotation_id: entry.updated_at
            for entry in ledger.standing(session, project.id, removed=True)
        }
    return {
        annotation.annotation_id
        for number in (project.query_project, project.dataset_project)
        for task in client.tasks(number)
        for annotation in (parse(item, task["id"]) for item in task["annotations"])
        if annotation.annotation_id in last
        and annotation.updated_at in moments[annotation.annotation_id]
        and annotation.updated_at < last[annotation.annotation_id]
    }


def ledger_says(store, project) -> Said:
    with store.reading() as session:
        entries = ledger.standing(session, project.id, removed=True)
    return {
        (entry.annotation_id, entry.position): (
            "answer" if entry.is_answer else entry.kind.value,
            None if entry.class_id is None else project.classes[entry.class_id],
        )
        for entry in entries
    }


def assert_label_maps_are_the_replay(store, project) -> None:
    """Replay the ledger here, entry by entry, and compare every label map."""
    files = store.files(project.id)
    with store.reading() as session:
        maps = LabelMaps(session, files, project.id)
        here = select(Image).where(Image.split == "train", Image.removed.is_(None))
        images = session.scalars(here).all()
        numbers = dict(session.execute(select(Superpixel.id, Superpixel.number)).all())
        last: dict[tuple[int, int], LedgerEntry] = {}
        for entry in session.scalars(select(LedgerEntry).order_by(LedgerEntry.revision)):
            last[entry.annotation_id, entry.position] = entry
    standing = [entry for entry in last.values() if entry.kind != "deleted"]
    changed = 0
    for image in images:
        superpixels = files.read_superpixels(image.id)
        expected = files.read_label_map("initial", image.id).copy()
        winners: dict[int, LedgerEntry] = {}
        here = [entry for entry in standing if entry.image_id == image.id]
        for entry in sorted(here, key=lambda e: (e.answered_at, e.annotation_id, e.position)):
            if entry.kind in ("accept", "correct"):
                before = winners.get(entry.superpixel_id)
                if not (
                    before is not None
                    and (before.kind, entry.kind) == ("correct", "accept")
                    and before.class_id == entry.class_id
                ):
                    winners[entry.superpixel_id] = entry
        writes = [(e.answered_at, e.annotation_id, e) for e in winners.values()]
        writes += [(e.updated_at, e.annotation_id, e) for e in here if e.kind == "edit"]
        for _, _, entry in sorted(writes, key=lambda write: write[:2]):
            if entry.kind == "correct" or (
                entry.kind == "accept" and expected[entry.row, entry.col] != entry.class_id
            ):
                expected[superpixels == numbers[entry.superpixel_id]] = entry.class_id
            elif entry.kind == "edit":
                labels, where = files.read_edit(entry.annotation_id, entry.revision)
                expected[where] = labels[where]
        assert np.array_equal(maps.read(image.id), expected), image.key
        changed += not np.array_equal(expected, files.read_label_map("initial", image.id))
    assert changed >= 0.3 * len(images)


def assert_the_queue_is_in_order(store, client, project) -> None:
    """Label Studio asks each question once: the plans' in their order, then by descending SIM."""
    version = model_version.of_round(ROUNDS)
    assert client.get(f"/api/projects/{project.query_project}")["model_version"] == version
    tasks = list(client.tasks(project.query_project))
    # A worker that is killed while Label Studio makes its tasks leaves twins, which are closed.
    served = [task for task in tasks if task["annotations"] or not task["is_labeled"]]
    keys = Counter(asked_about(task["data"]) for task in served)
    twins = [task for task in served if keys[asked_about(task["data"])] > 1]
    assert twins == []
    turns: dict[int, tuple[float, float]] = {}
    with store.reading() as session:
        settled = ledger.judgement(session, project.id).settled
        queries = session.scalars(
            select(Query)
            .join(Round, Round.id == Query.round_id)
            .where(Round.number == ROUNDS, Query.rank >= 0)  # what was undone comes before all
            .where(Query.superpixel_id.not_in(settled))
            .join(Superpixel, Superpixel.id == Query.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Image.removed.is_(None))  # of these nobody is asked; see below
        )
        plans = session.scalars(select(Round.plans).where(Round.number == ROUNDS)).one()
        planned = set()  # the tasks of the last plan: single questions, pages, or both
        for query in queries:
            turns[query.task_id] = (2 if query.place is None else query.place), -query.score
            if query.place is not None and query.place < PLANNED_TO / plans:
                planned.add(query.task_id)
        pages = session.scalars(
            select(Page)
            .join(Round, Round.id == Page.round_id)
            .where(Round.number == ROUNDS, Page.plan == Round.plans, Page.closed_at.is_(None))
        ).all()
        planned.update(page.task_id for page in pages)
        assert planned
        turns.update({page.task_id: (page.place, 0.0) for page in pages})
    scores = {
        task["id"]: min(
            prediction["score"]
            for prediction in task["predictions"]
            if prediction["model_version"] == version
        )
        for task in tasks
        if task["id"] in turns and task["predictions"]
    }
    assert scores
    assert planned <= scores.keys()
    in_order = [turns[task_id] for task_id in sorted(scores, key=lambda number: scores[number])]
    assert in_order == sorted(in_order)


def assert_nobody_is_asked_about(store, client, project, deleted: list[int]) -> None:
    """The images without tasks are out of the dataset, and their questions closed."""
    with store.reading() as session:
        removed = session.scalars(select(Image).where(Image.removed.is_not(None))).all()
    assert {image.id for image in removed} == set(deleted)
    assert {image.removed for image in removed} == {Removal.TASK_DELETED}
    keys = {image.key for image in removed}
    about = [
        task
        for task in client.tasks(project.query_project, fields="task_only")
        if images_of(task["data"]["alc"]) & keys
    ]
    assert about
    assert {task["is_labeled"] for task in about} == {True}


def images_of(about: dict) -> set[str]:
    """The keys of the images that a task asks about."""
    return {tile["image"] for tile in about["tiles"]} if "page" in about else {about["image"]}
