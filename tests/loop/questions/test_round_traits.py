"""Rounds with more superpixels than a plan looks at."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from alc_backend.errors import CancelledError
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.questions import planning, round_traits
from alc_backend.store import ledger
from alc_backend.store.models import Part, Round, Superpixel, utc_now
from alc_backend.store.pages import Page
from tests.annotations import answer, arrive, asked_project, created, round_config, task_of
from tests.conftest import BOTH_DATABASES, write_dataset
from tests.loop.rounds import running
from tests.traits import are_equal, some_traits

IMAGES = [f"i{number:02}" for number in range(30)]
ANSWERED = 8
LIMIT, TAUGHT = 20, 5

pytestmark = BOTH_DATABASES


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(round_traits, "PLANNED_AMONG", LIMIT)
    monkeypatch.setattr(round_traits, "MOST_TAUGHT", TAUGHT)


@pytest.fixture
def project(store, tmp_path):
    """A project with 60 superpixels, of which some were answered before its round was scored."""
    made = asked_project(store, write_dataset(tmp_path / "many", IMAGES))
    for number in range(ANSWERED):
        task = task_of(store, IMAGES[number], 1)
        arrive(store, made, created(answer(1 + number, task, "dog", minute=number)))
    assert not webhooks.waiting(store, made)
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        round_.config = round_config(questions="mixed", min_area=1)
        round_.ledger_position = ledger.position(session, made)
        for shard in range(3):
            work = {"images": [shard + 1]}
            row = Part(round=round_, step="scoring", number=shard, work=work, finished_at=utc_now())
            session.add(row)
        ids = session.scalars(select(Superpixel.id).order_by(Superpixel.id)).all()
    for shard, part in enumerate(np.array_split(np.array(ids), 3)):
        store.files(made).write_traits(1, shard, some_traits(part))
    return made


def plannable(store):
    """What plans choose from, and what was said meanwhile."""
    said = []
    round_ = running.only_round(store)
    found = round_traits.plannable(store, round_, lambda *words: said.append(words[2]))
    assert found.is_part == (len(found.traits.superpixels) < 60)
    return found.traits, said


def state(store):
    round_ = running.only_round(store)
    with store.reading() as session:
        return round_traits.state_of(session, round_)


def answered(store, project):
    with store.reading() as session:
        return ledger.judgement(session, project).resolved.keys()


def everything(store, project):
    files = store.files(project)
    shards = [files.read_traits(1, shard) for shard in range(3)]
    return shards[0].joined(shards, 3)


def promise(traits):
    """The gain of putting each right, by the network's doubt, written down once more."""
    pixels = traits.class_pixels
    found = []
    for index in range(len(traits.sizes)):
        classes = traits.labels[index], traits.dominant[index]
        share = sum(1 / pixels[one] for one in classes) + 3 / pixels.sum()
        found.append(float(traits.doubt[index]) * traits.sizes[index] * share)
    return np.array(found)


def test_plans_choose_from_what_promises_most_and_learn_from_some_answers(store, project):
    found, said = plannable(store)
    assert len(found.superpixels) == LIMIT
    assert said[0] == "choosing what to plan from, shard 1 of 3"
    known = answered(store, project)
    assert len(known) == ANSWERED
    chosen = set(found.superpixels.tolist())
    assert len(chosen & known) == TAUGHT
    whole = everything(store, project)
    open_ = [i for i, row_id in enumerate(whole.superpixels.tolist()) if row_id not in known]
    best = sorted(open_, key=lambda i: -promise(whole)[i])[: LIMIT - TAUGHT]
    assert chosen - known == set(whole.superpixels[best].tolist())
    assert found.class_pixels.tolist() == whole.class_pixels.tolist()
    assert are_equal(found, whole.only(np.sort(found.superpixels)))
    assert found.features.shape[1] == 4


def test_they_are_chosen_once_and_kept(store, project):
    first, _ = plannable(store)
    for name in store.files(project).of_traits(1, range(3)):
        store.storage.delete(name)
    again, said = plannable(store)
    assert are_equal(first, again)
    assert said == []


def test_later_answers_and_a_lost_or_damaged_file_change_nothing(store, project):
    first, _ = plannable(store)
    arrive(store, project, created(answer(90, task_of(store, "i20", 1), "cat", minute=90)))
    assert not webhooks.waiting(store, project)
    store.files(project).delete_plannable(1)
    assert are_equal(plannable(store)[0], first)
    (path,) = store.settings.data_dir.rglob("plannable")
    path.write_bytes(path.read_bytes()[:100])
    assert are_equal(plannable(store)[0], first)


def test_a_scoring_that_is_done_anew_is_chosen_from_anew(store, project):
    first, _ = plannable(store)
    whole = everything(store, project)
    files = store.files(project)
    for shard in range(3):
        part = files.read_traits(1, shard)
        files.write_traits(1, shard, part._replace(doubt=part.doubt[::-1].copy()))
    with store.session() as session:
        for part in session.scalars(select(Part).where(Part.step == "scoring")):
            part.finished_at = utc_now()
    second, said = plannable(store)
    assert said
    assert not np.array_equal(first.doubt, second.doubt)
    assert len(second.superpixels) == LIMIT < len(whole.superpixels)


def test_a_plan_asks_about_what_it_chooses_from(store, project):
    chosen = set(plannable(store)[0].superpixels.tolist())
    with store.session() as session:
        round_ = session.scalars(select(Round)).one()
        session.add(Part(round=round_, step="planning", number=0, work={"images": []}))
    round_ = running.only_round(store)
    with running.working(store, round_, "planning") as report:
        plan = planning.make_plan(store, round_, report, lambda *_: None)
    assert len(plan.learnt.known.members) == TAUGHT
    assert (plan.learnt.known.classes == 2).all()
    with store.reading() as session:
        pages = session.scalars(select(Page)).unique().all()
        asked = {tile.superpixel_id for page in pages for tile in page.tiles if not tile.repeated}
    assert asked
    assert asked <= chosen - answered(store, project)


def test_what_is_chosen_while_a_shard_is_missing_is_not_kept(store, project):
    files = store.files(project)
    lost = files.read_traits(1, 2)
    (name,) = files.of_traits(1, [2])
    store.storage.delete(name)
    without, _ = plannable(store)
    assert not {*without.superpixels.tolist()} & {*lost.superpixels.tolist()}
    files.write_traits(1, 2, lost)
    again, _ = plannable(store)
    assert {*again.superpixels.tolist()} & {*lost.superpixels.tolist()}


def test_a_worker_that_has_lost_the_part_writes_nothing(store, project):
    def stop(done, total, message):
        if message == "choosing what to plan from":
            raise CancelledError("another worker has it")

    with pytest.raises(CancelledError):
        round_traits.plannable(store, running.only_round(store), stop)
    assert store.files(project).read_plannable(1, state(store)) is None


def test_a_round_with_no_more_than_that_is_read_whole(store, project, monkeypatch):
    monkeypatch.setattr(round_traits, "PLANNED_AMONG", 60)
    found, _ = plannable(store)
    assert are_equal(found, everything(store, project))
    assert store.files(project).read_plannable(1, state(store)) is None
