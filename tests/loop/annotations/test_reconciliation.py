"""What webhooks lost is found in Label Studio."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import select, text

from alc_backend.datasets.layouts import open_dataset
from alc_backend.errors import LabelStudioError, NotFoundError
from alc_backend.labelstudio import query
from alc_backend.loop.annotations import reconciliation, recovery
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Project, Query, Round, Superpixel
from tests.annotations import (
    DATASET_PROJECT,
    DOG,
    NOON,
    QUERY_PROJECT,
    FakeLabelStudio,
    annotation,
    answer,
    asked_project,
    entries,
    image_of,
    in_ledger,
    judged,
    label_map,
    query_of,
    region,
    task_of,
)

LATER = NOON + timedelta(minutes=10)


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def label_studio():
    return FakeLabelStudio()


@pytest.fixture
def look(store, project, label_studio):
    return lambda **options: reconciliation.reconcile(store, label_studio, project, **options)


def painted(store, number=50, **changes):
    """Masks of image a, changed by hand."""
    corner = region("dog", slice(0, 4), slice(0, 4))
    return annotation(number, image_of(store, "a").dataset_task, [corner], **changes)


def project_row(store, project):
    with store.reading() as session:
        return session.get_one(Project, project)


def test_lost_answers_and_edits_are_found(store, project, label_studio, look):
    label_studio.keep(answer(1, task_of(store, "a", 2), "dog"))
    label_studio.keep(answer(2, task_of(store, "b", 1), None))
    label_studio.keep(painted(store), DATASET_PROJECT)
    assert look() == {Outcome.RECORDED: 3}
    assert in_ledger(store, project) == {
        1: ("correct", DOG),
        2: ("skip", None),
        50: ("edit", None),
    }
    assert look(full=True) == {Outcome.KNOWN: 3}
    assert len(entries(store)) == 3


def test_lost_changes_and_deletions_are_found(store, project, label_studio, look):
    task = task_of(store, "a", 2)
    for number in (1, 2):
        label_studio.keep(answer(number, task, "dog", minute=number))
    label_studio.keep(painted(store), DATASET_PROJECT)
    look()
    label_studio.keep(answer(1, task, "cat", minute=1, revised=20))
    label_studio.lose(2, 20)
    label_studio.lose(50, 20)
    assert look()[Outcome.DELETED] == 2
    assert in_ledger(store, project) == {1: ("accept", 1)}


def test_a_deletion_in_a_deleted_task_is_found_by_looking_at_everything(
    store, project, label_studio, look
):
    task = task_of(store, "a", 2)
    label_studio.keep(answer(1, task, "dog"))
    look()
    del label_studio.records[QUERY_PROJECT][task]
    assert look() == {}
    assert look(full=True) == {Outcome.DELETED: 1}
    assert in_ledger(store, project) == {}


def test_the_first_look_is_at_everything_answered(store, project, label_studio, look):
    look()
    assert [project for project, *_ in label_studio.asked] == [QUERY_PROJECT, DATASET_PROJECT]
    for _, filters, conjunction, parameters in label_studio.asked:
        assert conjunction == "or"
        assert [item["filter"] for item in filters] == [
            "filter:tasks:total_annotations",
            "filter:tasks:cancelled_annotations",
        ]
        assert {"annotations", "updated_at", "data"} <= set(parameters["include"].split(","))


def asked_since(label_studio):
    """The moments of the last looks, as they stand in the filters."""
    found = []
    for _, (item,), _, _ in label_studio.asked:
        assert (item["filter"], item["operator"]) == ("filter:tasks:updated_at", "greater")
        assert item["type"] == "Datetime"
        found.append(item["value"])
    return found


def test_later_looks_are_at_what_changed_since(store, project, label_studio, look):
    label_studio.keep(answer(1, task_of(store, "a", 2), "dog", minute=0, revised=10))
    label_studio.keep(answer(2, task_of(store, "b", 2), "dog", minute=5))
    look()
    assert project_row(store, project).reconciled_to == LATER
    label_studio.asked.clear()
    look()
    slack = (LATER - reconciliation.SLACK).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    assert slack == "2026-01-01T12:08:00.000000Z"
    assert asked_since(label_studio) == [slack, slack]
    label_studio.keep(answer(2, task_of(store, "b", 2), "cat", minute=5, revised=10.5))
    assert look()[Outcome.RECORDED] == 1
    assert project_row(store, project).reconciled_to == LATER + timedelta(seconds=30)


def test_the_moment_is_in_utc_whatever_the_databases_clock_shows(
    store, project, label_studio, look
):
    if store.engine.dialect.name == "postgresql":
        with store.engine.begin() as connection:
            name = connection.scalar(text("select current_database()"))
            connection.execute(text(f"alter database {name} set timezone to 'Asia/Tokyo'"))
        store.engine.dispose()
    label_studio.keep(answer(1, task_of(store, "a", 2), "dog", revised=10))
    look()
    label_studio.asked.clear()
    look()
    assert asked_since(label_studio) == ["2026-01-01T12:08:00.000000Z"] * 2


def test_without_answers_there_is_no_moment_yet(store, project, label_studio, look):
    before = datetime.now(timezone.utc)
    look()
    row = project_row(store, project)
    assert row.reconciled_to is None
    assert row.reconciled_at >= before


def test_an_answer_to_a_task_of_unknown_number_is_found_by_what_it_asks(
    store, project, label_studio, look
):
    label_studio.keep(answer(1, 9999, "dog"))
    label_studio.data[9999] = {"alc": {"image": "a", "superpixel": 2}}
    look()
    assert entries(store)[0].superpixel_id == query_of(store, "a", 2).superpixel_id


def test_what_cannot_be_read_is_counted_and_stops_nothing(store, project, label_studio, look):
    wrong = region("dog", slice(0, 4), slice(0, 4), shape=(24, 32))
    image = image_of(store, "a").dataset_task
    label_studio.keep(annotation(1, image, [wrong]), DATASET_PROJECT)
    label_studio.keep({**answer(2, task_of(store, "a", 1), "dog"), "created_at": "yesterday"})
    label_studio.keep(answer(3, task_of(store, "a", 2), "dog"))
    label_studio.keep(answer(4, 9999, "dog"))
    label_studio.keep(answer(5, task_of(store, "b", 1), "emu"))
    assert look() == {
        Outcome.UNREADABLE: 2,
        Outcome.RECORDED: 1,
        Outcome.UNKNOWN_TASK: 1,
        Outcome.UNKNOWN_CLASS: 1,
    }
    assert in_ledger(store, project).keys() == {3}


# Deletions that nobody may have meant.


@pytest.fixture
def many(store, label_studio, look):
    """More answers than may vanish at once without anybody saying so."""
    task = task_of(store, "a", 2)
    numbers = range(1, reconciliation.MANY_GONE + 2)
    for number in numbers:
        label_studio.keep(answer(number, task, "dog", by=number))
    look()
    return numbers


@pytest.mark.parametrize("full", [True, False])
def test_many_vanished_answers_are_not_withdrawn_by_themselves(
    store, project, label_studio, look, many, full
):
    for number in many:
        label_studio.lose(number, 30)
    known = entries(store)
    moment = project_row(store, project).reconciled_to
    for _ in range(2):
        with pytest.raises(LabelStudioError, match="--accept-deletions"):
            look(full=full)
    assert len(entries(store)) == len(known)
    assert project_row(store, project).reconciled_to == moment
    assert look(full=full, accept_deletions=True)[Outcome.DELETED] == len(many)
    assert in_ledger(store, project) == {}


def test_a_few_vanished_answers_are_withdrawn(store, project, label_studio, look, many):
    for number in many[:-1]:
        label_studio.lose(number, 30)
    assert look(full=True)[Outcome.DELETED] == reconciliation.MANY_GONE
    assert in_ledger(store, project).keys() == {many[-1]}


def test_an_answer_is_not_withdrawn_because_label_studio_refuses_to_show_it(
    store, project, label_studio, look, monkeypatch
):
    label_studio.keep(answer(1, task_of(store, "a", 2), "dog"))
    look()
    label_studio.lose(1, 30)
    get = label_studio.get

    def refuse(path, **parameters):
        if path.startswith("/api/annotations/"):
            raise LabelStudioError("you may not do this", 403)
        return get(path, **parameters)

    monkeypatch.setattr(label_studio, "get", refuse)
    with pytest.raises(LabelStudioError, match="may not"):
        look(full=True)
    assert in_ledger(store, project) == {1: ("correct", DOG)}


def test_an_answer_that_is_only_in_another_task_now_is_not_withdrawn(
    store, project, label_studio, look
):
    label_studio.keep(answer(1, task_of(store, "a", 2), "dog"))
    look()
    label_studio.records[QUERY_PROJECT].clear()
    label_studio.keep(answer(1, 9999, "dog"))
    look(full=True)
    assert in_ledger(store, project) == {1: ("correct", DOG)}


# A backup was restored that is older than what Label Studio asks.


@pytest.fixture
def images(dataset):
    return open_dataset(dataset)


@pytest.fixture
def restored(store, dataset, images, label_studio):
    """The store before its first round was open; Label Studio has the tasks of two."""
    project_id = import_folder(store, dataset, "pets").project_id
    with store.session() as session:
        row = session.get_one(Project, project_id)
        row.dataset_project, row.query_project = DATASET_PROJECT, QUERY_PROJECT
    label_studio.tasks_asked = label_studio.ask(images, 1, [2])
    label_studio.ask(images, 2, minute=10)
    return project_id


def test_answers_to_a_round_that_a_restored_store_does_not_know_are_recorded(
    store, restored, label_studio
):
    task = label_studio.tasks_asked["a", 2]
    label_studio.reply(1, task, "dog", 1)
    label_studio.reply(2, task + 1000, "dog", 2, minute=20)
    label_studio.reply(3, task - 1, "cat", 2, minute=20)
    counts = reconciliation.reconcile(store, label_studio, restored, full=True)
    assert counts == {Outcome.RECORDED: 3}
    assert in_ledger(store, restored) == {
        1: ("correct", DOG),
        2: ("correct", DOG),
        3: ("accept", 1),
    }
    assert (label_map(store, restored, "a")[24:40, 32:56] == DOG).all()
    assert (label_map(store, restored, "b")[24:40, 32:56] == DOG).all()
    assert [entry.round_number for entry in entries(store)] == [1, 2, 2]
    for entry in entries(store):  # as that round asked
        place = query.starred(label_studio.answered(entry.annotation_id)["result"], 48, 64)
        assert (entry.row, entry.col) == place
    with store.reading() as session:
        rounds = session.scalars(select(Round).order_by(Round.number)).all()
        assert [(r.number, r.state) for r in rounds] == [(1, "closed"), (2, "open")]
        assert len(session.scalars(select(Query)).all()) == 6  # those nobody answered, too
        assert session.get_one(Project, restored).other_tasks == 0
    assert reconciliation.reconcile(store, label_studio, restored, full=True) == {Outcome.KNOWN: 3}


def test_a_later_round_that_puts_a_known_question_anew_is_learned(
    store, restored, label_studio, images
):
    task = label_studio.tasks_asked["a", 2]
    label_studio.reply(1, task, "dog", 2, minute=20)
    reconciliation.reconcile(store, label_studio, restored, full=True)
    label_studio.ask(images, 3, [2], minute=30)
    label_studio.reply(2, label_studio.tasks_asked["b", 2], "dog", 3, minute=40)
    reconciliation.reconcile(store, label_studio, restored)
    assert entries(store)[-1].round_number == 3
    with store.reading() as session:
        numbers = {round_.number: round_.state for round_ in session.scalars(select(Round)).all()}
        assert numbers == {1: "closed", 2: "closed", 3: "open"}
        assert session.get_one(Round, query_of(store, "c", 2).round_id).number == 3
        assert session.get_one(Round, query_of(store, "c", 1).round_id).number == 2


def test_tasks_that_cannot_be_matched_stay_unknown(store, restored, label_studio, images, dataset):
    task = label_studio.tasks_asked["a", 2]
    foreign = {**label_studio.data[task], "alc": {"image": "elsewhere", "superpixel": 2}}
    misfit = {**label_studio.data[task], "alc": {"image": "b", "superpixel": 1}}
    shown = label_studio.shown[QUERY_PROJECT]
    for number, data in ((1, foreign), (2, misfit)):
        label_studio.show(number, data, predictions=shown[task]["predictions"])
        label_studio.reply(number, number, "dog")
    del shown[label_studio.tasks_asked["b", 2] - 1]  # nothing else asks about it
    counts = reconciliation.reconcile(store, label_studio, restored, full=True)
    assert counts == {Outcome.UNKNOWN_TASK: 2}
    assert in_ledger(store, restored) == {}


def test_what_spread_by_similarity_in_an_unknown_round_stays_unknown(
    store, restored, label_studio, images, caplog
):
    label_studio.ask(images, 3, [1], epsilon=0.1, minute=30)
    task = label_studio.tasks_asked["a", 2]
    label_studio.reply(1, task - 1, "dog", 3, minute=40)
    label_studio.reply(2, task, "dog", 2, minute=20)
    counts = reconciliation.reconcile(store, label_studio, restored, full=True)
    assert counts == {Outcome.UNKNOWN_TASK: 1, Outcome.RECORDED: 1}
    assert f"task {task - 1} is of a round with ε above 0" in caplog.text
    assert (label_map(store, restored)[8:24, 8:24] == 1).all()


def test_tasks_are_looked_through_once_and_only_when_something_is_unknown(
    store, restored, label_studio, images, monkeypatch
):
    looks = []
    take_in = recovery.take_in
    monkeypatch.setattr(recovery, "take_in", lambda *given: looks.append(1) or take_in(*given))
    for place, key in enumerate("abc", start=1):
        label_studio.reply(place, label_studio.tasks_asked[key, 2], "dog")
    reconciliation.reconcile(store, label_studio, restored, full=True)
    assert len(looks) == 1
    label_studio.reply(9, label_studio.tasks_asked["a", 2] - 1, "dog", minute=50)
    assert reconciliation.reconcile(store, label_studio, restored) == {
        Outcome.RECORDED: 1,
        Outcome.KNOWN: 3,
    }
    assert len(looks) == 1


# How many annotators are asked.


@pytest.mark.parametrize(("shown", "followed"), [(2, 2), (0, 1), (None, 1), ("3", 1)])
def test_the_overlap_of_the_query_project_is_followed(
    store, project, label_studio, look, shown, followed
):
    label_studio.overlap = shown
    look()
    assert project_row(store, project).overlap == followed


def test_a_dispute_found_together_with_the_overlap_is_asked_again(
    store, project, label_studio, look
):
    label_studio.overlap = 2
    task = task_of(store, "a", 2)
    label_studio.keep(answer(1, task, "dog", by=1))
    label_studio.keep(answer(2, task, "cat", by=2, minute=1))
    look()
    with store.reading() as session:
        superpixel = session.scalars(
            select(Superpixel.id).where(Superpixel.id == query_of(store, "a", 2).superpixel_id)
        ).one()
        noted = session.scalars(select(Round.unasked)).one()
    assert judged(store, project).disputed.keys() == {superpixel}
    assert noted


def test_a_project_without_queries_says_what_to_do(store, project, label_studio):
    with store.session() as session:
        session.get_one(Project, project).query_project = None
    for number in (project, 999):
        with pytest.raises(NotFoundError, match="alc init"):
            reconciliation.reconcile(store, label_studio, number)
