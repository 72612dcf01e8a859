"""Reviews: what annotators answered is looked at again, and what is doubted is asked once more."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import page as pages
from alc_backend.loop.annotations import history
from alc_backend.loop.overview import overview
from alc_backend.loop.questions import reviewing
from alc_backend.store import recording, upkeep
from alc_backend.store.cvat import CvatProject
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import Project, Query, Round, Superpixel
from alc_backend.store.pages import Page
from tests.annotations import (
    CAT,
    DOG,
    NOON,
    annotation,
    arrive,
    created,
    entries,
    judged,
    label_studio_of,
)
from tests.command_line import alc
from tests.conftest import BOTH_DATABASES
from tests.fake_label_studio import QUERY_PROJECT
from tests.loop.rounds import running


@pytest.fixture
def label_studio(store, project, monkeypatch):
    fake = label_studio_of(store)
    fake.serve(monkeypatch)
    return fake


def superpixels(store, number, many):
    """The first superpixels of a number: 1 are cats, 2 are dogs, and all are labelled cat."""
    with store.reading() as session:
        rows = select(Superpixel.id).where(Superpixel.number == number).order_by(Superpixel.id)
        return list(session.scalars(rows))[:many]


@pytest.fixture
def say(store, project):
    """Let annotators answer single questions about superpixels, one a minute."""
    given = iter(range(1, 1000))

    def say(ids, class_id, by="7", *, adjudication=False):
        for superpixel_id in ids:
            number = next(given)
            moment = NOON + timedelta(minutes=number)
            with store.session() as session:
                query = Query(
                    superpixel_id=superpixel_id, adjudication=adjudication, round_id=1,
                    rank=number, score=1.0, row=30, col=40, pseudo_label=CAT,
                )  # fmt: skip
                session.add(query)
                session.flush()
                reply = recording.Reply(number, class_id, by, 2.0, moment, moment)
                recording.record(session, query, reply)

    return say


@pytest.fixture
def reviewed(store, project, label_studio):
    """Let somebody open a page of a review and leave these tiles ticked."""

    def reviewed(page, ticked, number=5000, minute=600.0, revised=None):
        task_id = int(page.address.rpartition("=")[2])
        task = label_studio.tasks[task_id]
        shown = pages.described(task.data, {"background": 0, "cat": CAT, "dog": DOG})
        result = pages.annotation_result(shown, ticked)
        record = annotation(number, task_id, result, by=1, minute=minute, revised=revised)
        arrive(store, project, created(record, task.data), label_studio=label_studio)

    return reviewed


@pytest.fixture(autouse=True)
def followed(label_studio):
    """Label Studio follows the open round."""
    label_studio.projects[QUERY_PROJECT]["model_version"] = "alc-round-1"


def ask(store, label_studio, project, found):
    return reviewing.ask(store, label_studio.client(), project, found)


@BOTH_DATABASES
def test_what_the_network_doubts_most_comes_first(store, project, say):
    cats, dogs = superpixels(store, 1, 3), superpixels(store, 2, 2)
    say([*cats, *dogs], CAT)
    found = reviewing.doubtful(store, project, 4)
    assert [one.superpixel for one in found] == [*dogs, *cats[:2]]
    assert all((one.class_id, one.row, one.col) == (CAT, 30, 40) for one in found)


@BOTH_DATABASES
def test_the_corrections_of_one_annotator(store, project, say):
    dogs = superpixels(store, 2, 5)
    say(dogs[:2], DOG, "7")
    say(dogs[2:4], DOG, "8")
    say(dogs[4:], CAT, "7")
    found = reviewing.corrections(store, project, "7", 10)
    assert [one.superpixel for one in found] == dogs[1::-1]  # the latest first
    assert reviewing.corrections(store, project, "7", 1) == found[:1]


def test_a_page_is_about_one_class_ticked_and_handed_out_to_nobody(
    store, project, label_studio, say
):
    cats, dogs = superpixels(store, 1, 3), superpixels(store, 2, 2)
    say(cats, CAT)
    say(dogs, DOG)
    found = reviewing.doubtful(store, project, 9) + reviewing.corrections(store, project, "7", 9)
    made = ask(store, label_studio, project, found)
    assert [(page.answered, page.tiles) for page in made] == [("cat", 3), ("dog", 2)]
    for page in made:
        task = label_studio.tasks[int(page.address.rpartition("=")[2])]
        assert task.is_labeled
        assert page.answered in task.data["question"]
        (prediction,) = task.predictions
        assert (prediction["model_version"], prediction["score"]) == ("alc-round-1", 1.0)
        ticked = pages.ticked(prediction["result"])
        assert ticked == frozenset(range(1, page.tiles + 1))


def test_each_answer_is_reviewed_once(store, project, label_studio, say):
    say(superpixels(store, 2, 3), DOG)
    made = ask(store, label_studio, project, reviewing.corrections(store, project, "7", 9))
    assert reviewing.corrections(store, project, "7", 9) == []
    assert ask(store, label_studio, project, []) == made
    assert len([task for task in label_studio.tasks_of(QUERY_PROJECT) if task.data["tiles"]]) == 1


@BOTH_DATABASES
def test_what_stays_ticked_stays_and_what_is_unticked_is_asked_again(
    store, project, label_studio, say, reviewed
):
    dogs = superpixels(store, 2, 3)
    say(dogs, DOG)
    before = judged(store, project)
    (page,) = ask(store, label_studio, project, reviewing.corrections(store, project, "7", 9))
    reviewed(page, {1, 3})
    after = judged(store, project)
    assert after.disputed == {dogs[1]: (DOG,)}
    assert {*after.resolved} == {dogs[0], dogs[2]}
    assert all(after.resolved[one].id == before.resolved[one].id for one in after.resolved)
    assert [entry.kind for entry in entries(store)][-3:] == [EntryKind.REVIEWED] * 3
    with store.reading() as session:
        assert session.get_one(Round, 1).unasked
        assert upkeep.differences(session, project) == []


def test_the_answer_to_the_doubt_decides(store, project, label_studio, say, reviewed):
    (dog,) = superpixels(store, 2, 1)
    say([dog], DOG)
    (page,) = ask(store, label_studio, project, reviewing.corrections(store, project, "7", 9))
    reviewed(page, set())
    running.ask_missing(store, running.only_round(store))
    (asked,) = [t for t in label_studio.tasks.values() if t.data["alc"].get("adjudication")]
    assert asked.overlap == 1
    assert "“dog”" in asked.data["question"]
    with store.reading() as session:
        query = session.scalars(select(Query).where(Query.adjudication)).one()
        assert (query.row, query.col, query.pseudo_label) == (30, 40, CAT)
    result = [{"from_name": "label", "type": "choices", "value": {"choices": ["dog"]}}]
    record = annotation(6000, asked.id, result, by=9, minute=700)
    arrive(store, project, created(record, asked.data), label_studio=label_studio)
    found = judged(store, project)
    assert found.disputed == {}
    assert (found.resolved[dog].class_id, found.resolved[dog].annotation_id) == (DOG, 6000)
    assert reviewing.corrections(store, project, "9", 9) == []  # that was a second look


def test_a_review_that_is_undone_leaves_the_answers(store, project, label_studio, say, reviewed):
    dogs = superpixels(store, 2, 2)
    say(dogs, DOG)
    before = judged(store, project)
    (page,) = ask(store, label_studio, project, reviewing.corrections(store, project, "7", 9))
    reviewed(page, set())
    review = entries(store)[-1]
    history.revert(store, label_studio.client, project, review.id)
    after = judged(store, project)
    assert after.disputed == {}
    assert {one: a.id for one, a in after.resolved.items()} == {
        one: a.id for one, a in before.resolved.items()
    }


def test_a_review_that_is_changed_counts_as_it_is_now(store, project, label_studio, say, reviewed):
    dogs = superpixels(store, 2, 2)
    say(dogs, DOG)
    (page,) = ask(store, label_studio, project, reviewing.corrections(store, project, "7", 9))
    reviewed(page, set())
    reviewed(page, {1}, revised=650.0)
    assert len(judged(store, project).disputed) == 1
    reviewed(page, {1, 2}, revised=660.0)
    assert judged(store, project).disputed == {}
    with store.reading() as session:
        assert upkeep.differences(session, project) == []


def test_an_answer_given_after_the_review_counts(store, project, label_studio, say, reviewed):
    (dog,) = superpixels(store, 2, 1)
    say([dog], DOG)
    (page,) = ask(store, label_studio, project, reviewing.corrections(store, project, "7", 9))
    reviewed(page, set(), minute=30)
    with store.session() as session:
        query = session.scalars(select(Query).where(Query.superpixel_id == dog)).one()
        later = NOON + timedelta(minutes=40)
        recording.record(session, query, recording.Reply(70, DOG, "8", 2.0, later, later))
    assert judged(store, project).resolved[dog].class_id == DOG


def test_the_next_round_shows_open_reviews_ticked(store, project, label_studio, say):
    say(superpixels(store, 2, 3), DOG)
    (page,) = ask(store, label_studio, project, reviewing.corrections(store, project, "7", 9))
    with store.session() as session:
        first = session.get_one(Round, 1)
        first.state = "closed"
        session.add(Round(project_id=project, number=2, state="publishing", config=first.config))
    with store.reading() as session:
        second = session.scalars(select(Round).where(Round.number == 2)).one()
    running.publish(store, second)
    task = label_studio.tasks[int(page.address.rpartition("=")[2])]
    assert [one["model_version"] for one in task.predictions] == ["alc-round-1", "alc-round-2"]
    assert task.is_labeled


def test_an_interrupted_review_is_finished(store, project, label_studio, say):
    say(superpixels(store, 2, 3), DOG)
    found = reviewing.corrections(store, project, "7", 9)
    label_studio.fail(400, "/api/tasks", method="PATCH", times=1)
    with pytest.raises(LabelStudioError):
        ask(store, label_studio, project, found)
    (page,) = ask(store, label_studio, project, [])
    task = label_studio.tasks[int(page.address.rpartition("=")[2])]
    assert task.is_labeled
    assert len(task.predictions) == 1
    with store.reading() as session:
        assert session.scalars(select(Page)).one().closed_at is not None


def test_before_the_first_round_there_is_nothing_to_review(store, project, settings):
    with store.session() as session:
        session.get_one(Round, 1).opened_at = None
    done = alc(settings, "review", "--doubtful", "5")
    assert done.returncode == 1
    assert "no round was opened" in done.stderr


def test_a_project_in_cvat_is_refused(store, project, settings):
    with store.session() as session:
        session.add(CvatProject(project_id=project, source="task", number=7, questions=5))
    done = alc(settings, "review", "--doubtful", "5")
    assert done.returncode == 1
    assert "CVAT" in done.stderr


def test_the_command_lists_the_pages(store, project, label_studio, say, settings):
    say(superpixels(store, 2, 3), DOG)
    settings.label_studio_public_url = "https://labels.example/"
    done = alc(settings, "review", "--annotator", "7", "--last", "2")
    (page,) = ask(store, label_studio, project, [])
    task_id = page.address.rpartition("=")[2]
    with store.reading() as session:
        number = session.get_one(Project, project).query_project
    assert f"https://labels.example/projects/{number}/data?task={task_id}" in done.stdout
    again = alc(settings, "review", "--annotator", "9")
    assert "no such answer" in " ".join((again.stdout + again.stderr).split())
    assert page.address.rpartition("=")[2] in again.stdout
    assert overview(store, project).reviews == [("dog", int(task_id))]


def test_a_review_that_is_answered_waits_no_more(store, project, label_studio, say, reviewed):
    say(superpixels(store, 2, 3), DOG)
    (page,) = ask(store, label_studio, project, reviewing.corrections(store, project, "7", 9))
    reviewed(page, {1, 2, 3})
    assert overview(store, project).reviews == []
    assert ask(store, label_studio, project, []) == []
