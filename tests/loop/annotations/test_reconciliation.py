"""What webhooks lost is found in Label Studio."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import select, text

from alc_backend.datasets.layouts import open_dataset
from alc_backend.errors import LabelStudioError, NotFoundError
from alc_backend.labelstudio import page, query
from alc_backend.loop.annotations import reconciliation
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.store.importing import import_folder
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import Project, Query, Round
from alc_backend.store.pages import Page
from tests.annotations import (
    DATASET_PROJECT,
    DOG,
    NOON,
    QUERY_PROJECT,
    annotation,
    answer,
    ask_about,
    at,
    entries,
    image_of,
    in_ledger,
    judged,
    label_map,
    query_of,
    region,
    reply_to,
    task_of,
)
from tests.conftest import BOTH_DATABASES
from tests.fake_label_studio import FakeLabelStudio
from tests.machine import write_batch
from tests.pages import ask_page, reply_to_page

pytestmark = BOTH_DATABASES

LATER = NOON + timedelta(minutes=10)


def painted(store, number=50, **changes):
    """Masks of image a, changed by hand."""
    corner = region("dog", slice(0, 4), slice(0, 4))
    return annotation(number, image_of(store, "a").dataset_task, [corner], **changes)


def project_row(store, project):
    with store.reading() as session:
        return session.get_one(Project, project)


@pytest.mark.parametrize("status", [403, 500])
def test_a_prediction_that_is_not_given_stops_nothing_else(
    store, project, label_studio, look, status
):
    """Neither the other annotations nor the withdrawals of what is gone."""
    label_studio.annotate(answer(1, task_of(store, "a", 1), "dog"))
    label_studio.annotate(answer(2, task_of(store, "b", 1), "dog"))
    assert look() == {Outcome.RECORDED: 2}
    label_studio.remove_annotation(1)
    label_studio.annotate(painted(store, parent_prediction=900))
    label_studio.annotate(answer(3, task_of(store, "b", 2), "dog"))
    label_studio.fail(status, "/api/predictions/900")
    counts = look(full=True)
    assert counts == {
        Outcome.UNREADABLE: 1,
        Outcome.KNOWN: 1,
        Outcome.RECORDED: 1,
        Outcome.DELETED: 1,
    }
    label_studio.recover()
    assert look(full=True)[Outcome.RECORDED] == 1


@pytest.mark.parametrize("status", [403, 500])
def test_an_annotation_that_may_not_be_seen_stays_and_others_go(
    store, project, label_studio, look, status
):
    for number, key in enumerate("abc", start=1):
        label_studio.annotate(answer(number, task_of(store, key, 1), "dog"))
    look()
    for number in (1, 2):
        label_studio.remove_annotation(number)
    label_studio.fail(status, "/api/annotations/1/")
    assert look(full=True)[Outcome.DELETED] == 1
    assert in_ledger(store, project).keys() == {1, 3}


def test_lost_answers_and_edits_are_found(store, project, label_studio, look):
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog"))
    label_studio.annotate(answer(2, task_of(store, "b", 1), None))
    label_studio.annotate(painted(store))
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
        label_studio.annotate(answer(number, task, "dog", minute=number))
    label_studio.annotate(painted(store))
    look()
    label_studio.annotate(answer(1, task, "cat", minute=1, revised=20))
    label_studio.remove_annotation(2, at(20))
    label_studio.remove_annotation(50, at(20))
    assert look()[Outcome.DELETED] == 2
    assert in_ledger(store, project) == {1: ("accept", 1)}


def test_a_deletion_in_a_deleted_task_is_found_by_looking_at_everything(
    store, project, label_studio, look
):
    task = task_of(store, "a", 2)
    label_studio.annotate(answer(1, task, "dog"))
    look()
    del label_studio.tasks[task]
    label_studio.add_task(9999, {}, updated_at=at(60))  # their number does not tell
    assert look() == {}
    assert look(full=True) == {Outcome.DELETED: 1}
    assert in_ledger(store, project) == {}


def test_the_first_look_is_at_everything_answered(store, project, label_studio, look):
    look()
    assert looks(label_studio) == [
        (project, f"filter:tasks:{name}", "greater", 0)
        for project in (QUERY_PROJECT, DATASET_PROJECT)
        for name in ("total_annotations", "cancelled_annotations")
    ]


def looks(label_studio):
    """What the tasks that were looked at had to be like: project, column, operator, value."""
    found = []
    for request in label_studio.asked("/api/tasks/"):
        query = json.loads(request.parameters.get("query", "{}"))
        items = query.get("filters", {"items": []})["items"]
        named = any(item["operator"] == "in_list" for item in items)
        if len(items) > 1 and not named:
            item, _ = items  # and by id, for pages
            what = (item["filter"], item["operator"], item["value"])
            found.append((int(request.parameters["project"]), *what))
    return found


def looked_since(label_studio):
    """The moments that tasks were looked for since, and the numbers of annotations."""
    found = looks(label_studio)
    assert [item[:3] for item in found] == [
        (project, f"filter:tasks:{name}", "greater")
        for project in (QUERY_PROJECT, DATASET_PROJECT)
        for name in ("updated_at", "annotations_ids")
    ]
    return [known for *_, known in found]


def test_later_looks_are_at_what_changed_since(store, project, label_studio, look):
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog", minute=0, revised=10))
    label_studio.annotate(answer(2, task_of(store, "b", 2), "dog", minute=5))
    look()
    assert project_row(store, project).reconciled_to == LATER
    look()  # now the numbers were known when it began
    label_studio.requests.clear()
    look()
    slack = (LATER - reconciliation.SLACK).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    assert slack == "2026-01-01T12:08:00.000000Z"
    assert looked_since(label_studio) == [slack, 2, slack, 2]
    label_studio.annotate(answer(2, task_of(store, "b", 2), "cat", minute=5, revised=10.5))
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
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog", revised=10))
    look()
    look()
    label_studio.requests.clear()
    look()
    assert looked_since(label_studio) == ["2026-01-01T12:08:00.000000Z", 1] * 2


def test_without_tasks_there_is_no_moment_yet(store, project, label_studio, look):
    label_studio.tasks.clear()
    before = datetime.now(timezone.utc)
    look()
    row = project_row(store, project)
    assert row.reconciled_to is None
    assert row.reconciled_at >= before


def test_an_answer_to_a_task_of_unknown_number_is_found_by_what_it_asks(
    store, project, label_studio, look
):
    label_studio.add_task(9999, {"alc": {"image": "a", "superpixel": 2}})
    label_studio.annotate(answer(1, 9999, "dog"))
    look()
    assert entries(store)[0].superpixel_id == query_of(store, "a", 2).superpixel_id


def test_what_cannot_be_read_is_counted_and_stops_nothing(store, project, label_studio, look):
    wrong = region("dog", slice(0, 4), slice(0, 4), shape=(24, 32))
    image = image_of(store, "a").dataset_task
    label_studio.annotate(annotation(1, image, [wrong]))
    label_studio.annotate({**answer(2, task_of(store, "a", 1), "dog"), "created_at": "yesterday"})
    label_studio.annotate(answer(3, task_of(store, "a", 2), "dog"))
    label_studio.annotate(answer(4, 9999, "dog"))
    label_studio.annotate(answer(5, task_of(store, "b", 1), "emu"))
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
        label_studio.annotate(answer(number, task, "dog", by=number))
    look()
    return numbers


@pytest.mark.parametrize("full", [True, False])
def test_many_vanished_answers_are_not_withdrawn_by_themselves(
    store, project, label_studio, look, many, full
):
    for number in many:
        label_studio.remove_annotation(number)
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
        label_studio.remove_annotation(number)
    assert look(full=True)[Outcome.DELETED] == reconciliation.MANY_GONE
    assert in_ledger(store, project).keys() == {many[-1]}


def test_an_answer_is_not_withdrawn_because_label_studio_refuses_to_show_it(
    store, project, label_studio, look, caplog
):
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog"))
    look()
    label_studio.remove_annotation(1)
    label_studio.fail(403, "/api/annotations/")
    assert not look(full=True)
    assert "annotation 1 stays in force: Label Studio answered 403" in caplog.text
    assert in_ledger(store, project) == {1: ("correct", DOG)}


def test_an_answer_that_is_only_in_another_task_now_is_not_withdrawn(
    store, project, label_studio, look
):
    label_studio.annotate(answer(1, task_of(store, "a", 2), "dog"))
    look()
    label_studio.remove_annotation(1)
    label_studio.annotate(answer(1, 9999, "dog"))
    look(full=True)
    assert in_ledger(store, project) == {1: ("correct", DOG)}


# A backup was restored that is older than what Label Studio asks.


@pytest.fixture
def images(dataset):
    return open_dataset(dataset)


@pytest.fixture
def restored(store, dataset):
    """The store before its first round was open."""
    project_id = import_folder(store, dataset, "pets").project_id
    with store.session() as session:
        row = session.get_one(Project, project_id)
        row.dataset_project, row.query_project = DATASET_PROJECT, QUERY_PROJECT
    return project_id


@pytest.fixture
def beyond():
    """A Label Studio that the restored store does not know."""
    return FakeLabelStudio()


@pytest.fixture
def asked(beyond, images):
    """Its tasks, of two rounds."""
    found = ask_about(beyond, images, 1, [2])
    ask_about(beyond, images, 2, minute=10)
    return found


def test_answers_to_pages_that_a_restored_store_does_not_know_are_recorded(
    store, restored, beyond, asked, images
):
    """With the pages, and the round, though no single question of it was answered."""
    shown = ask_page(beyond, images, round_number=2, minute=11)
    ask_page(beyond, images, [("c", 1)], round_number=2, key="1" * 32, task=8001)
    reply_to_page(beyond, 1, 8000, shown, {1, 3}, minute=20)
    counts = reconciliation.reconcile(store, beyond.client(), restored, full=True)
    assert counts == {Outcome.RECORDED: 1}
    found = [(entry.position, entry.kind, entry.round_number) for entry in entries(store)]
    assert found == [
        (1, EntryKind.ACCEPT, 2),
        (2, EntryKind.RULED_OUT, 2),
        (3, EntryKind.ACCEPT, 2),
    ]
    with store.reading() as session:
        assert session.scalars(select(Page.task_id).order_by(Page.key)).all() == [8000, 8001]


def test_pages_about_images_that_are_not_ours_hold_up_no_other_answer(
    store, restored, beyond, asked, images
):
    shown = ask_page(beyond, images)
    for number, task in ((1, 8000), (2, 8001)):
        beyond.add_task(task, shown_elsewhere(shown, task))
        reply_to_page(beyond, number, task, shown, {1})
    reply_to(beyond, 3, asked["a", 2], "dog", 1)
    counts = reconciliation.reconcile(store, beyond.client(), restored, full=True)
    assert counts == {Outcome.RECORDED: 1, Outcome.UNKNOWN_TASK: 2}
    assert {entry.position for entry in entries(store)} == {0}


def shown_elsewhere(content, number):
    """A page's task data with another key, about another image."""
    data = page.task_data(content)
    data["alc"]["page"] = f"{number:032x}"
    for tile in data["alc"]["tiles"]:
        tile["image"] += " elsewhere"
    return data


def test_answers_to_a_round_that_a_restored_store_does_not_know_are_recorded(
    store, restored, beyond, asked
):
    task = asked["a", 2]
    reply_to(beyond, 1, task, "dog", 1)
    reply_to(beyond, 2, task + 1000, "dog", 2, minute=20)
    reply_to(beyond, 3, task - 1, "cat", 2, minute=20)
    counts = reconciliation.reconcile(store, beyond.client(), restored, full=True)
    assert counts == {Outcome.RECORDED: 3}
    assert in_ledger(store, restored) == {
        1: ("correct", DOG),
        2: ("correct", DOG),
        3: ("accept", 1),
    }
    assert (label_map(store, restored, "a")[24:40, 32:56] == DOG).all()
    assert (label_map(store, restored, "b")[24:40, 32:56] == DOG).all()
    numbers = {entry.annotation_id: entry.round_number for entry in entries(store)}
    assert numbers == {1: 1, 2: 2, 3: 2}
    for entry in entries(store):  # as that round asked
        place = query.starred(beyond.annotation(entry.annotation_id)["result"], 48, 64)
        assert (entry.row, entry.col) == place
    with store.reading() as session:
        rounds = session.scalars(select(Round).order_by(Round.number)).all()
        assert [(r.number, r.state) for r in rounds] == [(1, "closed"), (2, "open")]
        assert len(session.scalars(select(Query)).all()) == 6  # those nobody answered, too
        assert session.get_one(Project, restored).other_tasks == 0
    assert reconciliation.reconcile(store, beyond.client(), restored, full=True) == {
        Outcome.KNOWN: 3
    }


def test_a_later_round_that_puts_a_known_question_anew_is_learned(
    store, restored, beyond, asked, images
):
    task = asked["a", 2]
    reply_to(beyond, 1, task, "dog", 2, minute=20)
    reconciliation.reconcile(store, beyond.client(), restored, full=True)
    ask_about(beyond, images, 3, [2], minute=30)
    reply_to(beyond, 2, asked["b", 2], "dog", 3, minute=40)
    reconciliation.reconcile(store, beyond.client(), restored)
    assert entries(store)[-1].round_number == 3
    asked_in = {number: query_of(store, "c", number).round_id for number in (1, 2)}
    with store.reading() as session:
        numbers = {round_.number: round_.state for round_ in session.scalars(select(Round)).all()}
        assert numbers == {1: "closed", 2: "closed", 3: "open"}
        assert session.get_one(Round, asked_in[2]).number == 3
        assert session.get_one(Round, asked_in[1]).number == 2


def test_tasks_that_cannot_be_matched_stay_unknown(store, restored, beyond, asked):
    task = asked["a", 2]
    shown = beyond.tasks[task]
    foreign = {**shown.data, "alc": {"image": "elsewhere", "superpixel": 2}}
    misfit = {**shown.data, "alc": {"image": "b", "superpixel": 1}}
    for number, data in ((1, foreign), (2, misfit)):
        beyond.add_task(number, data, predictions=[*shown.predictions])
        reply_to(beyond, number, number, "dog")
    del beyond.tasks[asked["b", 2] - 1]  # nothing else asks about it
    counts = reconciliation.reconcile(store, beyond.client(), restored, full=True)
    assert counts == {Outcome.UNKNOWN_TASK: 2}
    assert in_ledger(store, restored) == {}


def test_what_spread_by_similarity_in_an_unknown_round_stays_unknown(
    store, restored, beyond, asked, images, caplog
):
    ask_about(beyond, images, 3, [1], epsilon=0.1, minute=30)
    task = asked["a", 2]
    reply_to(beyond, 1, task - 1, "dog", 3, minute=40)
    reply_to(beyond, 2, task, "dog", 2, minute=20)
    counts = reconciliation.reconcile(store, beyond.client(), restored, full=True)
    assert counts == {Outcome.UNKNOWN_TASK: 1, Outcome.RECORDED: 1}
    assert f"task {task - 1} is of a round with ε above 0" in caplog.text
    assert (label_map(store, restored)[8:24, 8:24] == 1).all()


def in_full(label_studio):
    """The requests for all query tasks with their predictions."""
    requests = label_studio.asked("/api/tasks/")
    return [
        r for r in requests if r.parameters["fields"] == "all" and "include" not in r.parameters
    ]


def test_tasks_are_looked_through_once_and_only_when_something_is_unknown(
    store, restored, beyond, asked
):
    for number, key in enumerate("abc", start=1):
        reply_to(beyond, number, asked[key, 2], "dog")
    reconciliation.reconcile(store, beyond.client(), restored, full=True)
    assert len(in_full(beyond)) == 1
    reply_to(beyond, 9, asked["a", 2] - 1, "dog", minute=50)
    assert reconciliation.reconcile(store, beyond.client(), restored) == {
        Outcome.RECORDED: 1,
        Outcome.KNOWN: 3,
    }
    assert len(in_full(beyond)) == 1


# How many annotators are asked.


@pytest.mark.parametrize(("shown", "followed"), [(2, 2), (0, 1), (None, 1), ("3", 1)])
def test_the_overlap_of_the_query_project_is_followed(
    store, project, label_studio, look, shown, followed
):
    label_studio.projects[QUERY_PROJECT]["maximum_annotations"] = shown
    look()
    assert project_row(store, project).overlap == followed


def test_a_dispute_found_together_with_the_overlap_is_asked_again(
    store, project, label_studio, look
):
    label_studio.projects[QUERY_PROJECT]["maximum_annotations"] = 2
    task = task_of(store, "a", 2)
    label_studio.annotate(answer(1, task, "dog", by=1))
    label_studio.annotate(answer(2, task, "cat", by=2, minute=1))
    look()
    superpixel = query_of(store, "a", 2).superpixel_id
    with store.reading() as session:
        noted = session.scalars(select(Round.unasked)).one()
    assert judged(store, project).disputed.keys() == {superpixel}
    assert noted


def test_a_project_without_queries_says_what_to_do(store, project, label_studio):
    with store.session() as session:
        session.get_one(Project, project).query_project = None
    for number in (project, 999):
        with pytest.raises(NotFoundError, match="alc init"):
            reconciliation.reconcile(store, label_studio.client(), number)


@pytest.mark.parametrize("accept_deletions", [False, True])
def test_batches_of_the_machine_are_none_of_label_studios(store, project, look, accept_deletions):
    write_batch(store, project)
    assert not look(full=True, accept_deletions=accept_deletions)
    assert in_ledger(store, project) == {-1: ("machine", DOG)}
    assert not look()
