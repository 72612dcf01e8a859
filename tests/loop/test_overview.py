"""What an admin sees of a project at a glance."""

from __future__ import annotations

import numpy as np
import pytest

from alc_backend.core.intervals import wilson
from alc_backend.loop import overview as overviews
from alc_backend.loop.browsing import Sort, browse
from alc_backend.loop.overview import Overviews, overview
from alc_backend.loop.projects import image_queue
from alc_backend.store import upkeep
from alc_backend.store.incoming import Arrival
from alc_backend.store.models import Project, Query, Round, Superpixel
from alc_backend.store.pages import Page
from alc_backend.store.round_states import RoundState
from tests.annotations import (
    DATASET_PROJECT,
    DOG,
    NOON,
    annotation,
    answer,
    arrive,
    asked_project,
    created,
    image_of,
    region,
    round_config,
    task_of,
)
from tests.conftest import BOTH_DATABASES
from tests.machine import write_batch
from tests.pages import add_page, say_to_page


@pytest.fixture
def project(store, dataset):
    return asked_project(store, dataset)


@pytest.fixture
def submit(store, project):
    def submit(*records):
        arrive(store, project, *(created(record) for record in records))

    return submit


@BOTH_DATABASES
def test_the_figures_of_a_project(store, project, submit):
    submit(
        answer(1, task_of(store, "a", 1), "cat", by=7),
        answer(2, task_of(store, "a", 2), "dog", by=8, lead_time=10.0),
        answer(3, task_of(store, "b", 2), "dog", by=8, lead_time=5.0),
        answer(4, task_of(store, "b", 1), None, by=8),
    )
    view = overview(store, project)
    figures = view.figures
    assert (view.images, figures.answers, view.queue) == (3, 3, 3)
    assert figures.accept_rate == pytest.approx(1 / 3)
    assert figures.saved == pytest.approx((1 - 1 / np.log2(3)) / 3)
    assert figures.corrections == [("cat", "dog", 2)]
    second, first = figures.annotators
    assert (second.name, second.answers, second.skipped, second.accepted) == ("8", 2, 1, 0.0)
    assert (second.pace, second.seconds) == (pytest.approx(480), 7.5)
    assert (first.name, first.accepted) == ("7", 1.0)
    assert view.problems == []
    assert not view.running


def test_figures_are_not_counted_anew_for_everyone(store, project, submit, monkeypatch):
    views = Overviews(store)
    submit(answer(1, task_of(store, "a", 1), "cat"))
    assert views.of(project).figures.answers == 1
    submit(answer(2, task_of(store, "a", 2), "dog"))
    assert views.of(project).figures.answers == 1  # as it was a moment ago
    monkeypatch.setattr(overviews, "REFRESH_S", 0.0)
    assert views.of(project).figures.answers == 2
    monkeypatch.setattr(overviews, "REFRESH_S", 60.0)
    counted = []
    monkeypatch.setattr(overviews, "figures", lambda *given: counted.append(given))
    assert [view.figures.answers for view in views.all()] == [2]
    assert counted == []


def test_problems_are_told_with_their_remedies(store, project, submit):
    with store.session() as session:
        session.get_one(Project, project).warm_start_error = "model files are missing"
        session.add(Arrival(project_id=project, dataset_task=9, error="x", finished_at=NOON))
        session.add(
            Round(
                project_id=project,
                number=2,
                state=RoundState.FAILED,
                error="disk full",
                config=round_config(),
            )
        )
    said = "\n".join(overview(store, project).problems)
    assert "Round 2 failed: disk full" in said
    assert "model files are missing; then run `alc pseudo --retry`" in said
    assert "Images without a first label map: 1" in said
    assert image_queue.waiting(store, project).failed == 1


# How labels were confirmed.

EVERYWHERE = [(key, number) for key in "abc" for number in (1, 2)]


def confirmed(store, project):
    """What was confirmed in each way: superpixels, seconds of a screen and of a label."""
    told = overview(store, project).figures.confirmed
    return {row.way: (row.labels, row.screen_s, row.label_s) for row in told}


@BOTH_DATABASES
def test_how_labels_were_confirmed(store, project, submit):
    assert confirmed(store, project) == dict.fromkeys(("single", "page", "edit"), (0, None, None))
    assert overview(store, project).unconfirmed == 6
    submit(
        answer(1, task_of(store, "a", 1), "cat", lead_time=3.0),
        answer(2, task_of(store, "b", 2), "dog", lead_time=4.0),
        answer(3, task_of(store, "c", 2), None, lead_time=5.0),
    )
    page = add_page(store, project, [("a", 2), ("b", 1), ("c", 2)], proposed=DOG)
    say_to_page(store, page, 4, {1, 2}, lead_time=9.0)
    painted = region("dog", slice(8, 24), slice(8, 24))
    task = image_of(store, "c").dataset_task
    edit = annotation(5, task, [painted], lead_time=30.0)
    arrive(store, project, created(edit, project=DATASET_PROJECT))
    assert confirmed(store, project) == {
        "single": (2, 4.0, 6.0),  # the time of the skip is that of the two others, too
        "page": (2, 9.0, 4.5),
        "edit": (1, 30.0, 30.0),
    }
    assert overview(store, project).unconfirmed == 1  # skipped, and a dog ruled out


def test_a_superpixel_counts_for_what_confirmed_it_last(store, project, submit):
    page = add_page(store, project, [("a", 2)], proposed=DOG)
    submit(answer(1, task_of(store, "a", 2), "cat"))
    say_to_page(store, page, 2, {1}, minute=1)
    labels = {way: told[0] for way, told in confirmed(store, project).items()}
    assert labels == {"single": 0, "page": 1, "edit": 0}
    submit(answer(3, task_of(store, "a", 2), "cat", minute=2))
    labels = {way: told[0] for way, told in confirmed(store, project).items()}
    assert labels == {"single": 1, "page": 0, "edit": 0}


def test_interruptions_are_left_out(store, project, submit):
    for number, (place, seconds) in enumerate(
        zip(EVERYWHERE[:5], [2.0, 3.0, 4.0, 40.0, 40.1], strict=True), start=1
    ):  # the last one took more than ten times the median
        submit(answer(number, task_of(store, *place), "cat", lead_time=seconds))
    assert confirmed(store, project)["single"] == (5, 3.5, 49.0 / 4)


def test_times_that_label_studio_does_not_know(store, project, submit):
    submit(answer(1, task_of(store, "a", 1), "cat", lead_time=None))
    page = add_page(store, project, [("a", 2)], proposed=DOG)
    say_to_page(store, page, 2, {1}, lead_time=None)
    assert confirmed(store, project) == {
        "single": (1, None, None), "page": (1, None, None), "edit": (0, None, None)
    }  # fmt: skip


def test_pages_on_which_nothing_stayed_ticked(store, project):
    say_to_page(store, add_page(store, project, proposed=DOG), 1, set(), lead_time=9.0)
    assert confirmed(store, project)["page"] == (0, 9.0, None)


@BOTH_DATABASES
def test_how_often_proposals_were_right(store, project, submit):
    submit(answer(1, task_of(store, "a", 1), "cat"))  # nothing was proposed
    dogs = add_page(store, project, EVERYWHERE[:4], proposed=DOG)
    cats = add_page(store, project, EVERYWHERE[3:], key="1" * 32, task_id=801)
    skipped = add_page(store, project, EVERYWHERE[:2], key="2" * 32, task_id=802)
    say_to_page(store, dogs, 2, {1, 2, 3})
    say_to_page(store, cats, 3, {1, 2, 3})
    say_to_page(store, skipped, 4, None)
    found = overview(store, project).figures.classes
    assert [row.name for row in found] == ["background", "cat", "dog"]
    background, cat, dog = [row.precision for row in found]
    assert background is None
    assert (cat.tried, cat.right, cat.share) == (3, 3, 1.0)
    assert (dog.tried, dog.right, dog.share) == (4, 3, 0.75)
    assert (cat.low, cat.high) == wilson(3, 3)
    assert (dog.low, dog.high) == wilson(3, 4)


def test_pages_do_not_tell_how_good_pseudo_labels_are(store, project, submit):
    """They propose what a model believes, page by page of one class."""
    submit(answer(1, task_of(store, "b", 2), "dog"), answer(2, task_of(store, "c", 1), "cat"))
    say_to_page(store, add_page(store, project), 3, {1, 2, 3})
    figures = overview(store, project).figures
    assert (figures.answers, figures.accept_rate) == (5, 0.5)
    (who,) = figures.annotators
    assert (who.answers, who.accepted) == (5, 0.5)


def test_a_skipped_page_is_one_skip(store, project, submit):
    say_to_page(store, add_page(store, project), 1, None)
    submit(answer(2, task_of(store, "b", 2), None))
    (who,) = overview(store, project).figures.annotators
    assert who.skipped == 2


def test_how_many_wrong_tiles_an_annotator_overlooked(store, project):
    page_id = add_page(store, project)
    with store.session() as session:
        for tile in session.get_one(Page, page_id).tiles[:2]:
            tile.repeated = True
    say_to_page(store, page_id, 3, {1, 3})
    figures = overview(store, project).figures
    (who,) = figures.annotators
    assert (who.answers, who.repeated, who.overlooked) == (1, 2, 1)
    assert [row.precision.tried for row in figures.classes if row.precision] == [1]


def test_the_queue_holds_what_pages_ask_about(store, project):
    with store.session() as session:
        for asked in session.query(Query):
            asked.closed_at = NOON
    assert overview(store, project).queue == 0
    page = add_page(store, project)
    add_page(store, project, [("c", 1)], key="1" * 32, task_id=None)  # not in Label Studio yet
    assert overview(store, project).queue == 3
    say_to_page(store, page, 1, {1, 2})
    assert overview(store, project).queue == 1
    with store.session() as session:
        session.get_one(Page, page).closed_at = NOON
    assert overview(store, project).queue == 0


def test_what_rests_on_the_machines_own_word(store, project, submit):
    write_batch(store, project)
    submit(answer(1, task_of(store, "b", 2), "dog"))
    found = overview(store, project).figures
    assert found.machine == 1
    assert [annotator.name for annotator in found.annotators] == ["7"]
    assert found.answers == 1
    assert not any(row.precision for row in found.classes)
    assert [row.confirmed for row in found.classes] == [0, 0, 1]  # what the machine wrote is none


@BOTH_DATABASES
def test_classes_with_what_people_said(store, project, submit):
    submit(
        answer(1, task_of(store, "a", 1), "cat"),
        answer(2, task_of(store, "b", 2), "dog"),
        answer(3, task_of(store, "c", 1), "dog"),
    )
    background, cat, dog = overview(store, project).figures.classes
    assert (background.confirmed, background.examples, background.corrected_to) == (0, [], None)
    assert (cat.confirmed, cat.corrected_to, cat.corrections) == (1, "dog", 2)
    assert (dog.confirmed, dog.corrected_to, dog.corrections) == (2, None, 0)
    with store.reading() as session:
        shown = [session.get_one(Superpixel, each) for each in dog.examples]
        assert [(each.image.key, each.number) for each in shown] == [("c", 1), ("b", 2)]


def test_the_time_that_open_questions_take(store, project, submit):
    assert overview(store, project).left_s is None  # nobody has answered anything yet
    submit(answer(1, task_of(store, "a", 1), "cat", lead_time=4.0))
    view = overview(store, project)
    assert view.queue > 0
    assert view.left_s == pytest.approx(4.0 * view.queue)
    assert view.figures.labeler_s == pytest.approx(4.0)


def test_how_good_the_network_and_the_label_maps_are(store, project):
    view = overview(store, project)
    assert (view.quality, view.quality_before, view.accuracy) == (None, None, None)
    for number, miou, estimate in ((2, 0.5, 0.75), (3, 0.6, None)):
        with store.session() as session:
            session.add(
                Round(
                    project_id=project,
                    number=number,
                    state=RoundState.CLOSED,
                    config=round_config(),
                    data_miou=miou,
                    estimate=estimate,
                    estimate_answers=None if estimate is None else 8,
                )
            )
    view = overview(store, project)
    assert (view.quality, view.quality_before) == (0.6, 0.5)
    assert view.accuracy == 0.75


@BOTH_DATABASES
def test_what_is_edited_after_an_answer_is_what_the_edit_made_it(store, project, submit):
    submit(answer(1, task_of(store, "a", 1), "cat"))
    whole = region("dog", slice(0, 48), slice(0, 64))
    task = image_of(store, "a").dataset_task
    arrive(store, project, created(annotation(2, task, [whole]), project=DATASET_PROJECT))
    _, cat, dog = overview(store, project).figures.classes
    assert (cat.confirmed, dog.confirmed) == (0, 2)
    with store.reading() as session:
        (shown,) = browse(session, project, sort=Sort.CORRECTED, many=9).shown
        assert (shown.image.key, shown.corrected) == ("a", 2)
        assert upkeep.differences(session, project) == []
