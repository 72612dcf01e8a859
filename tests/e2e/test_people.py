"""Several annotators, with a real Label Studio; in a whole run, on what ``test_loop`` left."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from rich.console import Console
from sqlalchemy import func, insert, select, update

from alc_backend.cli.demo.rounds import ensure_open_round
from alc_backend.labelstudio import tasks
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.tasks import annotation_result
from alc_backend.loop import query_tasks
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.annotations.reconciliation import reconcile
from alc_backend.loop.rounds import plan, status, work_items
from alc_backend.store import ledger
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import LedgerEntry, Project, Query, Round, Score, Superpixel, utc_now
from alc_backend.store.round_states import RoundState
from tests.conftest import wait_for
from tests.e2e.chaos import new_user
from tests.e2e.demonstration import alc
from tests.loop.rounds.running import publish, remove_leftovers

pytestmark = [pytest.mark.ls, pytest.mark.slow]

PASSWORD = "correct horse 7"


@pytest.fixture(scope="module")
def second(running):
    """Another annotator, when there is something to answer."""
    demo, processes = running
    ensure_open_round(demo, processes, Console(quiet=True), 40)
    client = Client(demo.client.url, new_user(demo.client, "second@example.com", PASSWORD))
    yield client
    client.close()


def sample(demo) -> list[str]:
    """The option that names the project: an earlier test has made another one."""
    with demo.store.reading() as session:
        return ["--project", session.get_one(Project, demo.project_id).name]


def fetch(demo, person: Client):
    return person.get(f"/api/projects/{demo.query_project}/next")


def answer(demo, person: Client, task, choice: str) -> int:
    shown = task["predictions"][0]
    body = {
        "result": annotation_result(shown["result"], choice),
        "parent_prediction": shown["id"],
    }
    made = person.post(f"/api/tasks/{task['id']}/annotations/", body)
    wait_for(lambda: made["id"] in recorded(demo))
    return int(made["id"])


def recorded(demo) -> set[int]:
    with demo.store.reading() as session:
        return set(session.scalars(select(LedgerEntry.annotation_id)))


def judged(demo) -> ledger.Judgement:
    with demo.store.reading() as session:
        return ledger.judgement(session, demo.project_id)


def label_of(demo, superpixel_id: int) -> set[str]:
    """The classes that the present label map gives a superpixel."""
    files = demo.store.files(demo.project_id)
    with demo.store.reading() as session:
        superpixel = session.get_one(Superpixel, superpixel_id)
        classes = session.get_one(Project, demo.project_id).classes
        maps = LabelMaps(session, files, demo.project_id)
    here = files.read_superpixels(superpixel.image_id) == superpixel.number
    return {classes[label] for label in np.unique(maps.read(superpixel.image_id)[here])}


def choices(task) -> list[str]:
    return [choice["value"] for choice in task["data"]["choices"]]


def test_what_two_annotators_disagree_about_is_settled_by_a_third_answer(running, second):
    demo, _ = running
    project = f"/api/projects/{demo.query_project}"
    demo.client.patch(project, {"maximum_annotations": 2})
    reconcile(demo.store, demo.client, demo.project_id)
    task = fetch(demo, demo.client)
    before, (kept, other, third) = task["id"], choices(task)[:3]
    with demo.store.reading() as session:
        superpixel = session.scalars(select(Query).where(Query.task_id == before)).one()
    asked = superpixel.superpixel_id
    shown = label_of(demo, asked)

    answer(demo, demo.client, task, other)
    assert asked in judged(demo).waiting
    assert label_of(demo, asked) == shown
    same = demo.client.get(f"/api/tasks/{before}/")
    assert fetch(demo, second)["id"] != 0  # half-answered questions come first, in any order
    answer(demo, second, same, third)
    assert [len(judged(demo).disputed), len(judged(demo).waiting)] == [1, 0]
    assert label_of(demo, asked) == shown

    def adjudication():
        with demo.store.reading() as session:
            return session.scalars(
                select(Query.task_id).where(Query.adjudication, Query.task_id.is_not(None))
            ).first()

    number = wait_for(adjudication)
    wait_for(lambda: demo.client.get("/api/predictions/", task=number))
    asked_again = demo.client.get(f"/api/tasks/{number}/")
    assert asked_again["overlap"] == 1
    assert choices(asked_again)[:2] == [other, third]
    assert "disagree" in asked_again["data"]["question"]
    settled_by = answer(demo, demo.client, asked_again, third)
    assert label_of(demo, asked) == {third}
    agreed = json.loads(alc(demo, "answers", "agreement", "--json", *sample(demo)))
    assert (agreed["overlap"], agreed["unanimous"], agreed["disputed"]) == (2, 0, 0)

    # Undone, it is disputed again; with one annotator asked, the latest answer counts.
    with demo.store.reading() as session:
        entry = session.scalars(
            select(LedgerEntry).where(LedgerEntry.annotation_id == settled_by)
        ).one()
    assert "is undone" in alc(demo, "answers", "revert", str(entry.id), *sample(demo))
    assert asked in judged(demo).disputed
    demo.client.patch(project, {"maximum_annotations": 1})
    reconcile(demo.store, demo.client, demo.project_id)
    assert label_of(demo, asked) == {third}
    history = json.loads(alc(demo, "answers", "log", "--json", "--last", "4", *sample(demo)))[
        "answers"
    ]
    assert [(line["kind"], line["after"]) for line in history] == [
        ("correct", other),
        ("correct", third),
        ("correct", third),
        ("deleted", None),
    ]
    assert [line["in_force"] for line in history] == [False, True, False, False]
    assert kept not in (other, third)


def test_a_task_on_the_screen_can_be_submitted_after_it_left_the_queue(running, second):
    demo, _ = running
    wait_for(lambda: not webhooks.waiting(demo.store))
    held = fetch(demo, second)
    round_ = scored(demo, but=held["id"])
    demo.store.settings = demo.store.settings.model_copy(update={"fallen_out": "remove"})
    publish(demo.store, round_)
    with demo.store.session() as session:
        work_items.open_round(session, session.get_one(Round, round_.id))

    queue = {item.task_id for item in query_tasks.queue_items(demo.store, round_)}
    assert held["id"] not in queue
    with demo.store.reading() as session:
        left = session.scalars(select(Query.task_id).where(Query.closed_at.is_not(None))).all()
    assert held["id"] in left
    for number in left:
        task = demo.client.get(f"/api/tasks/{number}/")
        assert task["is_labeled"] is True, task
    assert fetch(demo, demo.client)["id"] in queue
    with demo.store.reading() as session:  # nothing is deleted on the day it left the queue
        assert not plan.cleanup_is_due(session, session.get_one(Round, round_.id))

    answer(demo, second, held, choices(held)[1])
    with demo.store.reading() as session:
        query = session.scalars(select(Query).where(Query.task_id == held["id"])).one()
    assert query.superpixel_id in judged(demo).resolved
    assert fetch(demo, second)["id"] in queue

    # A day later the tasks that nobody ever answered are deleted.
    with demo.store.session() as session:
        yesterday = utc_now() - timedelta(hours=25)
        closed = update(Query).where(Query.closed_at.is_not(None))
        session.execute(closed.values(closed_at=yesterday))
    before = set(tasks.existing_tasks(demo.client, demo.query_project))
    remove_leftovers(demo.store, round_)
    after = set(tasks.existing_tasks(demo.client, demo.query_project))
    with demo.store.reading() as session:
        answered = set(
            session.scalars(
                select(Query.task_id).join(
                    LedgerEntry, LedgerEntry.superpixel_id == Query.superpixel_id
                )
            )
        )
    assert before - after == set(left) - answered
    assert len(before - after) >= 3
    assert held["id"] in after


def scored(demo, but: int) -> Round:
    """A next round in publishing: three questions, none of them that of task ``but``."""
    with demo.store.session() as session:
        last = session.scalars(
            select(Round).where(Round.number == select(func.max(Round.number)).scalar_subquery())
        ).one()
        round_ = Round(
            project_id=demo.project_id,
            number=last.number + 1,
            state=RoundState.PUBLISHING,
            config=replace(last.config, size=3),
        )
        session.add(round_)
        session.flush()
        away = select(Query.superpixel_id).where(Query.task_id == but)
        entries = session.execute(
            select(Score.superpixel_id, Score.row, Score.col, Score.pseudo_label, Score.dominant)
            .join(Round, Round.id == Score.round_id)
            .where(Round.number == last.number, Score.superpixel_id.not_in(away))
        ).all()
        session.execute(
            insert(Score),
            [
                {**entry._asdict(), "round_id": round_.id, "score": float(place)}
                for place, entry in enumerate(entries)
            ],
        )
    return status.latest_round(demo.store, demo.project_id)
