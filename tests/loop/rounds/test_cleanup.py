"""Clearing away what older rounds left, without taking anything off a labeler's screen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from alc_backend.labelstudio import uploads
from alc_backend.labelstudio.annotation import parse
from alc_backend.loop.annotations import answers, mask_edits
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.rounds import plan, work_items
from alc_backend.store.models import (
    LedgerEntry,
    Part,
    Project,
    Query,
    Round,
    Score,
    Superpixel,
    utc_now,
)
from alc_backend.store.pages import Page, Tile
from alc_backend.store.round_states import Step
from tests.annotations import (
    QUERY_PROJECT,
    annotation,
    answer,
    asked_project,
    image_of,
    query_of,
    region,
    task_of,
)
from tests.conftest import BOTH_DATABASES
from tests.loop.rounds import running
from tests.pages import add_page, say_to_page
from tests.traits import are_equal, some_traits

HOUR = timedelta(hours=1)


@pytest.fixture
def project(store, dataset):
    """A first round that asks about everything; the second is to be published.

    Its best three are the dogs: with ``fallen_out`` the cats leave the queue.
    """
    return running.second_round(store, dataset)


CATS = [("a", 1), ("b", 1), ("c", 1)]


@pytest.fixture
def cats(store, project):
    return {task_of(store, *place) for place in CATS}


@pytest.fixture
def label_studio(store, project, monkeypatch):
    fake = running.label_studio_before_it(store)
    fake.serve(monkeypatch)
    return fake


def queries(label_studio):
    """The query tasks that there are."""
    return {task.id for task in label_studio.tasks.values() if task.project == QUERY_PROJECT}


def closed(label_studio):
    return {task.id for task in label_studio.tasks.values() if task.is_labeled}


def versions(label_studio):
    return {p["model_version"] for task in label_studio.tasks.values() for p in task.predictions}


@pytest.fixture
def publish(store, label_studio):
    """Publish the second round; it has been open for an hour."""

    def publish():
        running.publish(store, round_of(store, 2))
        with store.session() as session:
            first, second = session.scalars(select(Round).order_by(Round.number))
            first.state = "closed"
            second.state, second.opened_at = "open", utc_now() - HOUR
        label_studio.requests.clear()

    return publish


def test_a_version_that_label_studio_knows_already_is_not_taken_for_a_published_one(
    store, cats, label_studio
):
    """After an older backup was restored, a round gets a number that was there before."""
    label_studio.projects[QUERY_PROJECT]["model_version"] = "alc-round-2"
    label_studio.predict(min(cats), [], model_version="alc-round-2")
    running.publish(store, round_of(store, 2))
    second = round_of(store, 2)
    with store.reading() as session:
        chosen = session.scalars(select(Query).where(Query.round_id == second.id)).all()
    assert len(chosen) == 3
    assert closed(label_studio) == cats  # and not everything


def is_due(store):
    with store.reading() as session:
        return any(
            plan.cleanup_is_due(session, round_) for round_ in work_items.open_rounds(session)
        )


def clear_away(store):
    """What workers do for every open round."""
    with store.reading() as session:
        found = work_items.open_rounds(session)
    for round_ in found:
        running.remove_leftovers(store, round_)


def closed_since(store, age):
    """Let all closed tasks have been closed a while ago."""
    with store.session() as session:
        session.execute(
            update(Query).where(Query.closed_at.is_not(None)).values(closed_at=utc_now() - age)
        )


def reply(store, project, key, choice):
    with store.reading() as session:
        row = session.get_one(Project, project)
    given = parse(answer(1, task_of(store, key, 1), choice))
    assert answers.record(store, row, given, {}) == Outcome.RECORDED


def round_of(store, number):
    with store.reading() as session:
        return session.scalars(select(Round).where(Round.number == number)).one()


# Closing.


@BOTH_DATABASES
def test_what_left_the_queue_is_closed_not_deleted(store, label_studio, publish, cats):
    everything = queries(label_studio)
    publish()
    assert closed(label_studio) == cats
    assert queries(label_studio) == everything
    assert query_of(store, "a", 1).closed_at is not None
    assert query_of(store, "a", 2).closed_at is None
    assert not is_due(store)


def test_what_is_kept_in_the_queue_is_not_closed(store, label_studio, publish):
    store.settings = store.settings.model_copy(update={"fallen_out": "keep"})
    publish()
    assert closed(label_studio) == set()


def test_what_was_answered_is_not_closed(store, project, label_studio, publish, cats):
    reply(store, project, "a", "dog")
    publish()
    assert closed(label_studio) == cats - {task_of(store, "a", 1)}


@BOTH_DATABASES
@pytest.mark.parametrize("ticked", [{1}, set(), None])
def test_what_was_said_on_a_page_leaves_the_single_question_closed(
    store, project, label_studio, publish, cats, ticked
):
    """Label Studio would serve it: nobody has answered that task."""
    page = add_page(store, project, [("a", 1), ("b", 2)], round_number=1)
    say_to_page(store, page, 1, ticked)
    publish()
    assert closed(label_studio) == cats
    closed_since(store, 25 * HOUR)
    clear_away(store)
    assert queries(label_studio).isdisjoint(cats)  # the annotation is of the page's task
    assert query_of(store, "a", 1).task_id is None


def test_what_was_answered_before_a_page_got_its_number_is_closed(
    store, project, label_studio, publish, cats
):
    """Label Studio, restored from a dump, gives the number of the lost annotation again."""
    reply(store, project, "a", "dog")
    page = add_page(store, project, [("b", 2), ("c", 2)], round_number=1)
    say_to_page(store, page, 1, {1, 2}, minute=5)
    publish()
    assert task_of(store, "a", 1) not in closed(label_studio)  # answered once, and open again
    assert query_of(store, "a", 1).round_id == round_of(store, 2).id


def test_revisions_of_tiles_do_not_revise_a_single_answer(
    store, project, label_studio, publish, cats
):
    """A page had the number before: its tiles were revised more often than the answer."""
    page = add_page(store, project, [("b", 2), ("c", 2)], round_number=1)
    say_to_page(store, page, 1, {1, 2}, minute=-9)
    say_to_page(store, page, 1, {1}, minute=-9, revised=-5)
    reply(store, project, "a", "dog")
    publish()
    assert closed(label_studio) == cats - {task_of(store, "a", 1)}


@pytest.mark.parametrize("undone", ["skipped", "withdrawn"])
def test_what_was_answered_but_is_open_stays_in_the_queue(
    store, project, label_studio, publish, cats, undone
):
    reply(store, project, "a", None if undone == "skipped" else "dog")
    if undone == "withdrawn":
        answers.withdraw(store, project, [1])
    publish()
    assert closed(label_studio) == cats - {task_of(store, "a", 1)}
    assert query_of(store, "a", 1).round_id == round_of(store, 2).id


def test_what_was_mended_by_hand_is_closed(store, project, label_studio, publish):
    store.settings = store.settings.model_copy(update={"fallen_out": "keep"})
    task = image_of(store, "a").dataset_task
    painted = parse(annotation(1, task, [region("dog", slice(8, 24), slice(8, 24))]))
    with store.reading() as session:
        row = session.get_one(Project, project)
    assert mask_edits.record(store, label_studio.client, row, painted) == Outcome.RECORDED
    publish()
    assert closed(label_studio) == {task_of(store, "a", 1)}


def test_a_task_deleted_by_hand_does_not_keep_the_others_open(
    store, project, label_studio, publish, cats
):
    gone = task_of(store, "a", 1)
    del label_studio.tasks[gone]
    publish()
    assert closed(label_studio) == cats - {gone}


def test_a_closed_task_is_served_again_when_it_is_asked_again(
    store, project, label_studio, publish, cats
):
    publish()
    second = round_of(store, 2)
    with store.session() as session:
        third = Round(
            project_id=project, number=3, state="publishing", config=replace(second.config, size=6)
        )
        session.add(third)
        session.flush()
        for superpixel in session.scalars(select(Superpixel)):
            about = {"superpixel_id": superpixel.id, "row": 30, "col": 40}
            session.add(Score(round_id=third.id, score=1.0, pseudo_label=1, dominant=1, **about))
    running.publish(store, round_of(store, 3))
    assert closed(label_studio) == set()
    assert query_of(store, "a", 1).closed_at is None


# Deleting.


@BOTH_DATABASES
def test_what_was_closed_is_deleted_a_day_later(store, project, label_studio, publish, cats):
    dogs = queries(label_studio) - cats
    publish()
    closed_since(store, plan.HELD - HOUR)
    assert not is_due(store)
    clear_away(store)
    assert label_studio.writes == []
    closed_since(store, plan.HELD + HOUR)
    assert is_due(store)
    clear_away(store)
    assert queries(label_studio) == dogs
    query = query_of(store, "a", 1)
    assert (query.task_id, query.digest, query.closed_at) == (None, None, None)
    assert not is_due(store)


@pytest.mark.parametrize("choice", ["dog", None], ids=["answered", "skipped"])
def test_what_was_answered_after_it_was_closed_is_not_deleted(
    store, project, label_studio, publish, cats, choice
):
    kept = task_of(store, "a", 1)
    publish()
    reply(store, project, "a", choice)
    closed_since(store, plan.HELD + HOUR)
    clear_away(store)
    assert queries(label_studio) & cats == {kept}
    assert task_of(store, "a", 1) == kept
    assert not is_due(store)


def test_what_was_withdrawn_again_is_not_deleted(store, project, label_studio, publish, cats):
    kept = task_of(store, "a", 1)
    publish()
    reply(store, project, "a", "dog")
    answers.withdraw(store, project, [1])
    closed_since(store, plan.HELD + HOUR)
    clear_away(store)
    assert queries(label_studio) & cats == {kept}


def test_a_task_with_a_draft_is_not_deleted(store, project, label_studio, publish, cats):
    kept = task_of(store, "b", 1)
    publish()
    label_studio.tasks[kept].drafts = [{"id": 1}]
    closed_since(store, plan.HELD + HOUR)
    clear_away(store)
    assert queries(label_studio) & cats == {kept}
    label_studio.tasks[kept].drafts = []
    clear_away(store)
    assert not queries(label_studio) & cats


def test_an_answer_whose_webhook_was_lost_is_not_deleted(
    store, project, label_studio, publish, cats
):
    kept = task_of(store, "b", 1)
    publish()
    label_studio.annotate(answer(1, kept, "dog"))
    closed_since(store, plan.HELD + HOUR)
    clear_away(store)
    assert queries(label_studio) & cats == {kept}


def test_in_the_first_round_nothing_is_due(store, dataset):
    asked_project(store, dataset)
    assert not is_due(store)


def test_a_project_without_queries_in_label_studio_is_left_alone(
    store, project, label_studio, publish
):
    publish()
    closed_since(store, plan.HELD + HOUR)
    with store.session() as session:
        session.get_one(Project, project).query_project = None
    assert not is_due(store)
    clear_away(store)
    assert label_studio.writes == []


# Pages that later plans have replaced.


@pytest.fixture
def sheets(store, project, label_studio):
    """Makes a page of the first round with its sheet and task; returns its row id."""

    def make(number, *, hours, **more):
        key = f"{number:032x}"
        with label_studio.client() as client:
            there = uploads.sheets_project(client, QUERY_PROJECT)
            uploads.upload_sheets(client, there, {key: b"sheet"})
        label_studio.add_task(number, {"alc": {"page": key}, "tiles": []}).is_labeled = True
        row_id = add_page(
            store, project, key=key, task_id=number, closed_at=utc_now() - hours * HOUR, **more
        )
        with store.session() as session:
            session.get_one(Page, row_id).sheet = "/data/upload/1/sheet.jpg"
        return row_id

    return make


def pages_in_store(store):
    with store.reading() as session:
        assert set(session.scalars(select(Tile.page_id))) <= set(session.scalars(select(Page.id)))
        return set(session.scalars(select(Page.task_id)))


def sheets_left(label_studio):
    with label_studio.client() as client:
        there = uploads.sheets_project(client, QUERY_PROJECT)
        return {int(key, 16) for key in uploads.uploaded_sheets(client, there)}


@BOTH_DATABASES
def test_pages_that_were_replaced_are_deleted_a_day_later(
    store, project, label_studio, publish, sheets
):
    publish()
    sheets(801, hours=25, round_number=1)
    sheets(802, hours=23, round_number=1)
    sheets(803, hours=25, round_number=1)
    label_studio.tasks[803].drafts = [{"id": 1}]
    say_to_page(store, sheets(804, hours=25, round_number=1), 1, {1})
    say_to_page(store, sheets(805, hours=25, round_number=1), 2, None)
    with store.session() as session:
        round_ = session.scalars(select(Round).where(Round.number == 2)).one()
        round_.plans, round_.planned_to = 2, 0
    sheets(806, hours=25, round_number=2, plan=1)
    sheets(807, hours=25, round_number=2, plan=2)
    with store.session() as session:
        session.execute(update(LedgerEntry).values(label_studio_project=QUERY_PROJECT))
    assert is_due(store)
    clear_away(store)
    left = {802, 803, 804, 805, 807}
    assert pages_in_store(store) == left
    assert queries(label_studio) & set(range(801, 808)) == left
    assert sheets_left(label_studio) == left


def test_a_page_that_was_replaced_and_deleted_by_hand_is_forgotten(
    store, project, label_studio, publish, sheets
):
    publish()
    sheets(801, hours=25, round_number=1)
    del label_studio.tasks[801]
    clear_away(store)
    assert pages_in_store(store) == set()
    assert sheets_left(label_studio) == set()
    assert not is_due(store)


# Predictions and scores of rounds that were replaced.


@pytest.fixture
def replaced(store, publish):
    """Publish the second round, a while ago."""

    def replaced(age):
        publish()
        second = round_of(store, 2)
        with store.session() as session:
            session.get_one(Round, second.id).opened_at = utc_now() - age

    return replaced


def test_predictions_of_a_round_replaced_today_stay(store, project, label_studio, replaced):
    replaced(plan.HELD - HOUR)
    assert not is_due(store)
    clear_away(store)
    assert label_studio.writes == []
    assert not round_of(store, 1).pruned


@BOTH_DATABASES
def test_predictions_go_a_day_after_they_were_replaced(store, project, label_studio, replaced):
    replaced(plan.HELD + HOUR)
    assert versions(label_studio) == {"alc-round-1", "alc-round-2"}
    assert is_due(store)
    clear_away(store)
    assert versions(label_studio) == {"alc-round-2"}
    assert (round_of(store, 1).pruned, round_of(store, 2).pruned) == (True, False)
    assert not is_due(store)


def test_predictions_that_are_gone_already_are_no_trouble(store, project, label_studio, replaced):
    replaced(plan.HELD + HOUR)
    label_studio.client().delete(
        f"/api/projects/{QUERY_PROJECT}/model-versions/", {"model_version": "alc-round-1"}
    )
    label_studio.requests.clear()
    clear_away(store)
    assert round_of(store, 1).pruned
    assert label_studio.writes == []


@BOTH_DATABASES
def test_scores_of_a_replaced_round_go_but_for_what_was_asked(store, project, replaced):
    replaced(plan.HELD + HOUR)
    never_asked = query_of(store, "c", 1)
    with store.session() as session:
        session.delete(session.get_one(Query, never_asked.id))
    clear_away(store)
    gone = (round_of(store, 1).id, never_asked.superpixel_id)
    with store.reading() as session:
        left = {(row.round_id, row.superpixel_id) for row in session.scalars(select(Score))}
    assert len(left) == 11
    assert gone not in left


def test_pages_of_a_replaced_round_that_never_got_a_task_go(
    store, project, label_studio, sheets, replaced
):
    for number in (801, 802):
        sheets(number, hours=0, round_number=1)
    with store.session() as session:
        for page in session.scalars(select(Page)):
            page.closed_at = None
        page.task_id = None
        never_asked = int(page.key, 16)
    del label_studio.tasks[never_asked]
    replaced(plan.HELD + HOUR)
    clear_away(store)
    (left,) = {801, 802} - {never_asked}
    assert pages_in_store(store) == {left}
    assert sheets_left(label_studio) == {left}


def test_traits_of_a_replaced_round_go_but_for_what_was_asked(store, project, replaced):
    add_page(store, project, [("c", 2)], round_number=1)
    replaced(plan.HELD + HOUR)
    with store.session() as session:
        first = session.scalars(select(Round).where(Round.number == 1)).one()
        first.config = replace(first.config, questions="mixed")
        for number, images in enumerate(([], [1], [2], [3])):
            work = plan.Work(images).as_json()
            session.add(Part(round_id=first.id, step=Step.SCORING, number=number, work=work))
        asked = session.scalars(select(Query).order_by(Query.superpixel_id)).all()
        for query in asked[3:]:
            session.delete(query)
        kept = {query.superpixel_id for query in asked[:3]}
        rest = {query.superpixel_id for query in asked[3:]}
    with store.reading() as session:
        kept |= {*session.scalars(select(Tile.superpixel_id))}
    rest -= kept
    files = store.files(project)
    whole = some_traits(sorted(kept | rest))
    files.write_traits(1, 1, whole)
    files.write_traits(1, 3, whole)
    store.storage.write(files.of_traits(1, [2])[0], b"damaged")
    files.write_plannable(1, "state", whole)
    assert are_equal(files.read_plannable(1, "state"), whole)
    assert files.read_plannable(1, "other") is None
    clear_away(store)
    assert rest
    assert files.read_plannable(1, "state") is None
    for shard in (1, 3):
        left = files.read_traits(1, shard)
        assert set(left.superpixels.tolist()) == kept
        assert left.features.shape[1] == 0


def test_traits_of_a_round_replaced_today_stay(store, project, replaced):
    with store.session() as session:
        first = session.scalars(select(Round).where(Round.number == 1)).one()
        first.config = replace(first.config, questions="mixed")
        work = plan.Work([1]).as_json()
        session.add(Part(round_id=first.id, step=Step.SCORING, number=1, work=work))
    whole = some_traits([1, 2, 700])
    store.files(project).write_traits(1, 1, whole)
    replaced(HOUR)
    clear_away(store)
    assert are_equal(store.files(project).read_traits(1, 1), whole)
