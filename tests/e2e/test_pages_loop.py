"""Pages of look-alikes in the whole loop, with a real Label Studio, worker, backend and Redis."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
from sqlalchemy import func, select

from alc_backend.cli.demo.labeler import Given, answer_queries
from alc_backend.core.proposals import NEWS
from alc_backend.labelstudio import page as pages
from alc_backend.labelstudio.annotation import parse
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.annotations.reconciliation import reconcile
from alc_backend.loop.questions import planning
from alc_backend.store import ledger
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import LedgerEntry, Query, Round, Superpixel
from alc_backend.store.pages import Page
from tests.conftest import wait_for
from tests.e2e.demonstration import alc, wait_open

pytestmark = [pytest.mark.ls, pytest.mark.slow]


def answered(demo, count: int) -> list[Given]:
    """What the oracle was asked, and said."""
    given: list[Given] = []
    answer_queries(demo.store, demo.client, demo.project_id, count, on_answer=given.append)
    wait_for(lambda: not webhooks.waiting(demo.store))
    return given


def tiles_in_label_studio(demo) -> dict[tuple[int, int], bool]:
    """Annotation and position → whether the tile was left ticked."""
    found = {}
    for task in demo.client.tasks(demo.query_project):
        for record in task["annotations"]:
            ticked = parse(record, int(task["id"])).ticked
            if ticked is not None:
                for position in range(1, len(task["data"]["tiles"]) + 1):
                    found[record["id"], position] = position in ticked
    return found


def tiles_in_ledger(demo) -> dict[tuple[int, int], bool]:
    with demo.store.reading() as session:
        return {
            (entry.annotation_id, entry.position): entry.is_answer
            for entry in ledger.standing(session, demo.project_id)
            if entry.position
        }


def before_the_next_plan(given: list[Given]) -> list[Given]:
    """The first answers, as many as are too few to learn from."""
    known = itertools.accumulate(one.tiles or 1 for one in given)
    return [one for one, count in zip(given, known, strict=True) if count < NEWS]


def plans(demo) -> tuple[int, int | None]:
    with demo.store.reading() as session:
        rounds = select(Round).where(Round.project_id == demo.project_id)
        latest = session.scalars(rounds.order_by(Round.number.desc())).first()
        return latest.plans, latest.planned_to


def test_a_round_of_pages_and_single_questions(running_alone, tmp_path):
    demo, processes = running_alone
    alc(demo, "round", "start", ALC_QUESTIONS="mixed", ALC_TILES="4")
    opened = wait_open(demo, processes)
    assert opened.config.questions == "mixed"
    assert plans(demo)[0] == 1

    # What is worth most comes first, and every tile is in the ledger as it is in Label Studio.
    given = answered(demo, 20)
    assert any(one.tiles for one in given)
    scores = [one.score for one in before_the_next_plan(given)]
    assert len(scores) > 1
    assert scores == sorted(scores)
    assert tiles_in_ledger(demo) == tiles_in_label_studio(demo)
    assert len(tiles_in_ledger(demo)) == sum(one.tiles for one in given)
    known = reconcile(demo.store, demo.client, demo.project_id, full=True)
    assert set(known) == {Outcome.KNOWN}

    assert sum(one.tiles or 1 for one in given) >= NEWS

    # The answers teach: a new plan is put first, and pages of the one before it are closed.
    def planned_again() -> bool:
        with demo.store.reading() as session:
            due = planning.is_due(session, session.get_one(Round, opened.id))
        return plans(demo)[0] > 1 and not due

    wait_for(planned_again, limit_s=60)
    with demo.store.reading() as session:
        rows = session.scalars(select(Page).where(Page.plan < plans_of(session, opened))).all()
        open_ = [row.task_id for row in rows if row.closed_at is None and row.task_id is not None]
        given_to = set(session.scalars(select(LedgerEntry.task_id)))
        assert set(open_) <= given_to  # those that somebody has answered
    again = answered(demo, 12)
    assert again[0].score < given[0].score
    assert tiles_in_ledger(demo) == tiles_in_label_studio(demo)

    # Nobody is asked twice about what is settled.
    with demo.store.reading() as session:
        entries = ledger.standing(session, demo.project_id)
        named = Counter(entry.superpixel_id for entry in entries if entry.is_answer)
        assert max(named.values()) == 1
        refused = [entry for entry in entries if entry.kind == EntryKind.RULED_OUT]
        assert all(entry.class_id is None and entry.proposed is not None for entry in refused)
        assert session.scalar(select(func.count()).select_from(Superpixel)) >= len(named)

    # A page that is changed is revised.
    annotation, _ = next(iter(tiles_in_ledger(demo)))
    record = demo.client.get(f"/api/annotations/{annotation}/")
    task = demo.client.get(f"/api/tasks/{record['task']}")
    with demo.store.reading() as session:
        project = session.get_one(type(opened.project), demo.project_id)
    shown = pages.described(task["data"], project.class_ids)
    revised = {"result": pages.annotation_result(shown, [1])}
    demo.client.patch(f"/api/annotations/{annotation}/", revised)
    wait_for(lambda: ticked(demo, annotation) == {1})
    assert tiles_in_ledger(demo) == tiles_in_label_studio(demo)

    # What was accepted is reviewed; what is unticked there is doubted, and asked about singly.
    made = json.loads(alc(demo, "review", "--doubtful", "4", "--json"))["pages"]
    review = int(made[0]["address"].rpartition("=")[2])
    task = demo.client.get(f"/api/tasks/{review}")
    assert task["is_labeled"]
    shown = pages.described(task["data"], project.class_ids)
    kept = {"result": pages.annotation_result(shown, range(2, len(shown.tiles) + 1))}
    demo.client.post(f"/api/tasks/{review}/annotations/", {**kept, "lead_time": 5.0})
    (doubted,) = wait_for(lambda: judged(demo).disputed)
    wait_for(lambda: adjudicated(demo) == [doubted], limit_s=60)

    # A store that is lost is made again with everything that was said on pages.
    before = ledger_digest(demo, tmp_path / "before")
    elsewhere = {"ALC_DATA_DIR": str(tmp_path / "rebuilt"), "REDIS_URL": "redis://127.0.0.1:1/0"}
    numbers = ("--dataset-project", str(project.dataset_project))
    numbers += ("--query-project", str(project.query_project))
    folder = demo.settings.data_dir / "sample/train"
    assert "0 problems" in alc(demo, "rebuild", str(folder), *numbers, **elsewhere)
    assert ledger_digest(demo, tmp_path / "after", **elsewhere) == before

    # A review that is undone leaves the answers as they were.
    with demo.store.reading() as session:
        entries = select(LedgerEntry.id).where(LedgerEntry.task_id == review)
        number = session.scalars(entries).first()
    assert "is undone" in alc(demo, "answers", "revert", str(number))
    assert judged(demo).disputed == {}
    assert tiles_in_ledger(demo) == tiles_in_label_studio(demo)

    # One that is deleted is withdrawn, all of it.
    demo.client.delete(f"/api/annotations/{annotation}/")
    wait_for(lambda: annotation not in {number for number, _ in tiles_in_ledger(demo)})
    assert tiles_in_ledger(demo) == tiles_in_label_studio(demo)


def judged(demo) -> ledger.Judgement:
    with demo.store.reading() as session:
        return ledger.judgement(session, demo.project_id)


def adjudicated(demo) -> list[int]:
    """The superpixels (row ids) that Label Studio asks about once more."""
    with demo.store.reading() as session:
        asked = select(Query.superpixel_id).where(Query.adjudication, Query.task_id.is_not(None))
        return list(session.scalars(asked))


def ticked(demo, annotation: int) -> set[int]:
    """The tiles (positions) that an answer left ticked."""
    tiles = tiles_in_ledger(demo)
    return {position for (number, position), kept in tiles.items() if number == annotation and kept}


def ledger_digest(demo, folder, **environment) -> dict:
    alc(demo, "export", str(folder), "--project", "ALC sample", **environment)
    return json.loads((folder / "manifest.json").read_text())["ledger"]


def plans_of(session, round_: Round) -> int:
    return session.get_one(Round, round_.id).plans
