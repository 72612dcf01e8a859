"""Rounds on CVAT: questions as frames with tags, answers from finished jobs, masks written back."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Picture
from pydantic import SecretStr
from sqlalchemy import func, select

pytest.importorskip("cvat_sdk", reason="cvat-sdk is not installed")

from alc_backend.cvat import client
from alc_backend.cvat.client import Cvat as Server
from alc_backend.cvat.shapes import shapes_of
from alc_backend.errors import CvatError
from alc_backend.loop.overview import overview
from alc_backend.loop.rounds import lifecycle
from alc_backend.loop.rounds.platforms import Cvat, platform_of
from alc_backend.store.cvat import CvatQuestion, CvatTask
from alc_backend.store.models import Image, Project, Query, Round, Score
from alc_backend.store.round_states import RoundState
from tests.annotations import label_map
from tests.command_line import alc
from tests.conftest import CLASSES
from tests.cvat.fake_cvat import FIRST_LABEL, TASK
from tests.loop.cvat.annotators import (
    add_tag,
    ask_round,
    asked,
    jobs_of,
    remove_tags,
    run_round,
    said,
    set_state,
    try_again,
)
from tests.loop.cvat.conftest import KEYS
from tests.loop.rounds.running import work

CAT, DOG = 1, 2


def collect(store, project, **options):
    return dict(platform_of(store, project).collect(project, **options))


def masks_of(cvat, key):
    """What a frame of the original task shows, as a label map."""
    names = {FIRST_LABEL + place: name for place, name in enumerate(CLASSES[1:])}
    found = np.zeros((48, 64), dtype=np.uint8)
    for shape in cvat.tasks[TASK].shapes:
        if shape["frame"] == KEYS.index(key):
            *runs, left, top, right, bottom = (int(value) for value in shape["points"])
            mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
            box = found[top : bottom + 1, left : right + 1]
            box[mask.reshape(box.shape)] = CLASSES.index(names[shape["label_id"]])
    return found


def test_a_round_is_a_task_of_frames_in_order_with_the_pseudo_label_as_tag(
    store, project, cvat, asked_round
):
    assert (asked_round.state, asked_round.error) == (RoundState.OPEN, None)
    (task,) = cvat.questions()
    assert task.name.startswith("Round 1 (")
    assert task.project == cvat.questions_project
    order = asked(store, asked_round)
    assert len(order) == len(task.files) == 3
    names = {label["id"]: label["name"] for label in cvat.labels}
    assert [names[tag["label_id"]] for tag in sorted(task.tags, key=lambda tag: tag["frame"])] == (
        ["cat"] * 3
    )
    for content, (key, number) in zip(task.files.values(), order, strict=True):
        picture = np.asarray(Picture.open(io.BytesIO(content)))
        assert picture.shape == (512, 512, 3)
        yellow = (picture[..., 0] > 200) & (picture[..., 1] > 180) & (picture[..., 2] < 120)
        assert yellow.any(), (key, number)


def test_only_finished_jobs_count_and_a_digit_beats_the_preset_tag(
    store, project, cvat, asked_round
):
    order = asked(store, asked_round)
    (job,) = jobs_of(cvat)
    add_tag(cvat, job, 1, "dog")
    add_tag(cvat, job, 2, "cat")
    remove_tags(cvat, job, 2)
    assert collect(store, project) == {}
    assert said(store) == []
    set_state(cvat, job)
    assert collect(store, project) == {"recorded": 3}
    assert said(store) == [
        (*order[0], "accept", CAT, "anna"),
        (*order[1], "correct", DOG, "anna"),
        (*order[2], "skip", None, "anna"),
    ]
    assert collect(store, project) == {}
    assert collect(store, project, full=True) == {"known": 3}


def test_the_next_round_learns_asks_the_rest_and_writes_the_masks_back(
    store, settings, project, cvat, asked_round, queue
):
    (key, number), *others = asked(store, asked_round)
    (job,) = jobs_of(cvat)
    add_tag(cvat, job, 0, "dog")
    set_state(cvat, job)
    before = masks_of(cvat, key)
    second = run_round(store, project, queue)
    assert (second.state, second.warning) == (RoundState.OPEN, None)
    assert second.answers == 3
    assert len(cvat.questions()) == 2
    assert not set(asked(store, second)) & {(key, number), *others}
    shown = masks_of(cvat, key)
    assert np.array_equal(shown, label_map(store, project, key))
    assert not np.array_equal(shown, before)
    (job,) = jobs_of(cvat)
    set_state(cvat, job)
    assert collect(store, project) == {"recorded": 3}
    assert len(said(store)) == 6
    done = alc(settings, "export", str(settings.data_dir / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_job_that_was_opened_again_and_changed_is_a_revision(store, project, cvat, asked_round):
    order = asked(store, asked_round)
    (job,) = jobs_of(cvat)
    set_state(cvat, job)
    collect(store, project)
    set_state(cvat, job, "in progress")
    add_tag(cvat, job, 0, "dog")
    assert collect(store, project) == {}
    assert label_map(store, project, order[0][0]).max() == CAT
    set_state(cvat, job)
    assert collect(store, project) == {"recorded": 1, "known": 2}
    assert said(store)[3:] == [(*order[0], "correct", DOG, "anna")]
    assert label_map(store, project, order[0][0]).max() == DOG


def test_masks_that_somebody_changed_in_cvat_stay(
    store, settings, project, cvat, asked_round, queue
):
    (key, _), *_ = asked(store, asked_round)
    frame = KEYS.index(key)
    painted = np.full((48, 64), DOG, dtype=np.uint8)
    (shape,) = shapes_of(
        painted, np.zeros((48, 64), np.int32), frame, CLASSES, {"dog": FIRST_LABEL + 1}
    )
    cvat.tasks[TASK].shapes.append({**shape, "id": 5, "outside": False, "rotation": 0.0})
    (job,) = jobs_of(cvat)
    add_tag(cvat, job, 0, "dog")
    set_state(cvat, job)
    drawn = list(cvat.tasks[TASK].shapes)
    done = alc(settings, "export", str(settings.data_dir / "out"))
    assert f"{key} (task {TASK}, frame {frame}): its masks were changed in CVAT" in done.stderr
    assert cvat.tasks[TASK].shapes == drawn
    assert "were changed in CVAT" in run_round(store, project, queue).warning


@pytest.mark.parametrize("where", ["PATCH /tasks/7/annotations", "GET /tasks/7/annotations"])
def test_masks_that_were_half_written_are_written_anew(store, project, cvat, asked_round, where):
    (key, _), *_ = asked(store, asked_round)
    (job,) = jobs_of(cvat)
    add_tag(cvat, job, 0, "dog")
    set_state(cvat, job)
    collect(store, project)
    platform = platform_of(store, project)
    cvat.away_at(where, after=1)
    with pytest.raises(Exception, match="503"):
        platform.write_masks(project)
    cvat.away_at(None)
    assert platform.write_masks(project) == []
    assert np.array_equal(masks_of(cvat, key), label_map(store, project, key))
    numbers = [shape["id"] for shape in cvat.tasks[TASK].shapes]
    assert platform.write_masks(project) == []
    assert numbers == [shape["id"] for shape in cvat.tasks[TASK].shapes]


@pytest.mark.parametrize(
    "where",
    ["POST /tasks", "POST /tasks/{}/data", "GET /requests/r{}", "PATCH /tasks/{}/annotations",
     "GET /jobs"],
)  # fmt: skip
def test_a_server_that_goes_away_while_it_is_asked_gets_one_task_in_the_end(
    store, project, cvat, queue, where
):
    cvat.away_at(where)
    round_ = ask_round(store, project, queue)
    assert round_.state == RoundState.PUBLISHING
    assert round_.switched_at is None
    cvat.away_at(None)
    try_again(store, queue)
    with store.reading() as session:
        assert session.get_one(Round, round_.id).state == RoundState.OPEN
        questions = session.scalars(select(CvatQuestion)).all()
        queries = session.scalars(select(Query).where(Query.round_id == round_.id)).all()
        task = session.scalars(select(CvatTask)).one()
    (made,) = cvat.questions()
    assert made.number == task.task
    assert (len(made.files), len(made.tags), len(questions)) == (3, 3, 3)
    assert {query.task_id for query in queries} == {-question.id for question in questions}


def test_a_server_that_is_away_loses_no_answer(store, settings, project, cvat, asked_round, queue):
    (job,) = jobs_of(cvat)
    set_state(cvat, job)
    cvat.is_away = True
    done = alc(settings, "reconcile")
    assert done.returncode == 1
    assert "503" in done.stderr
    round_ = run_round(store, project, queue)
    assert round_.state == RoundState.PUBLISHING
    assert "without looking for lost answers" in round_.warning
    cvat.is_away = False
    assert "3 recorded" in alc(settings, "reconcile").stdout


def test_what_was_answered_in_a_task_that_is_gone_stays(store, project, cvat, asked_round):
    (job,) = jobs_of(cvat)
    set_state(cvat, job)
    collect(store, project)
    (task,) = cvat.questions()
    for number in task.jobs:
        del cvat.jobs[number]
    del cvat.tasks[task.number]
    assert collect(store, project, full=True) == {}
    assert [entry[2] for entry in said(store)] == ["accept"] * 3
    with store.reading() as session:
        assert session.scalars(select(CvatTask)).one().gone_at is not None


def test_an_unknown_tag_holds_up_no_other_frame(store, project, cvat, asked_round):
    (job,) = jobs_of(cvat)
    cvat.add_label("bird", cvat.questions_project)
    add_tag(cvat, job, 1, "bird")
    set_state(cvat, job)
    assert collect(store, project) == {"recorded": 2, "of an unknown class": 1}


def test_the_admin_page_counts_the_questions(store, project, cvat, asked_round):
    assert isinstance(platform_of(store, project), Cvat)
    assert overview(store, project).queue == 3
    (job,) = jobs_of(cvat)
    set_state(cvat, job)
    collect(store, project)
    assert overview(store, project).queue == 0


def test_an_answer_can_be_undone_and_is_asked_again(store, settings, project, cvat, asked_round):
    order = asked(store, asked_round)
    (job,) = jobs_of(cvat)
    add_tag(cvat, job, 0, "dog")
    set_state(cvat, job)
    collect(store, project)
    done = alc(settings, "answers", "revert", "1")
    assert done.returncode == 0, done.stderr
    assert label_map(store, project, order[0][0]).max() == CAT
    assert collect(store, project, full=True) == {"known": 3}
    assert overview(store, project).queue == 1


def test_what_label_studio_alone_has_is_refused_in_a_sentence(settings, project):
    for command in (
        "classes add bird", "classes rename cat lion", "images remove a", "images restore a",
        "review", "pseudo",
    ):  # fmt: skip
        done = alc(settings, *command.split())
        assert done.returncode == 1
        assert "asked in CVAT" in done.stderr


def test_what_was_left_over_of_an_earlier_round_takes_no_correction_back(
    store, project, cvat, asked_round, queue
):
    run_round(store, project, queue)  # asks all of the first one again
    (left_over,), (job,) = jobs_of(cvat, 0), jobs_of(cvat)
    place = asked(store, asked_round)[0]
    corrected = asked(store, second_of(store)).index(place)
    add_tag(cvat, job, corrected, "dog")
    set_state(cvat, job)
    collect(store, project)
    told = said(store)
    assert (*place, "correct", DOG, "anna") in told
    set_state(cvat, left_over)
    assert collect(store, project) == {"known": 3}
    assert said(store) == told


def second_of(store) -> Round:
    with store.reading() as session:
        return session.scalars(select(Round).where(Round.number == 2)).one()


def test_a_job_with_an_unknown_tag_is_told_and_read_once_the_label_has_its_name_again(
    store, project, cvat, asked_round
):
    project_there = cvat.questions_project
    (label,) = (
        label for label in cvat.labels
        if (label["name"], label.get("project_id")) == ("cat", project_there)
    )  # fmt: skip
    label["name"] = "kitten"
    (job,) = jobs_of(cvat)
    set_state(cvat, job)
    assert collect(store, project) == {"of an unknown class": 3}
    (problem,) = overview(store, project).problems
    assert "3 frames have a tag that names no class" in problem
    label["name"] = "cat"
    assert collect(store, project) == {"recorded": 3}
    assert overview(store, project).problems == []


def test_a_task_that_cvat_refuses_holds_up_no_other(
    store, project, cvat, asked_round, queue, monkeypatch
):
    run_round(store, project, queue)
    set_state(cvat, jobs_of(cvat)[0])
    first, *_ = (task.number for task in cvat.questions())
    allowed = Server.jobs

    def jobs(server, task):
        if task == first:
            raise CvatError(f"task {task}: 403 Forbidden", 403)
        return allowed(server, task)

    monkeypatch.setattr(Server, "jobs", jobs)
    counts = collect(store, project)
    assert counts.pop("unreadable") == 1
    assert counts["recorded"] >= 3


def test_a_dataset_is_not_imported_into_a_project_in_cvat(store, settings, dataset, project):
    with store.reading() as session:
        name = session.get_one(Project, project).name
    with_token = settings.model_copy(update={"label_studio_api_key": SecretStr("t0ken")})
    done = alc(with_token, "init", str(dataset), "--name", name)
    assert done.returncode == 1
    assert "is asked in CVAT" in done.stderr
    with store.reading() as session:
        assert session.scalar(select(func.count()).select_from(Image)) == len(KEYS)


def test_a_task_that_cvat_never_makes_ends_the_round_and_is_made_by_the_next_try(
    store, project, cvat, queue, monkeypatch
):
    monkeypatch.setattr(client, "MADE_IN_S", 0)
    cvat.import_state = "queued"
    round_ = ask_round(store, project, queue)
    assert round_.state == RoundState.FAILED
    assert "see whether its import worker runs, then start the round again" in round_.error
    cvat.import_state = "finished"
    again, _ = lifecycle.start(store, queue.append, project)
    assert again.id == round_.id
    work(store, queue)
    with store.reading() as session:
        assert session.get_one(Round, round_.id).state == RoundState.OPEN
    assert len(cvat.questions()) == 1


def test_a_round_that_was_cancelled_half_made_chooses_its_batch_anew(store, project, cvat, queue):
    cvat.away_at("PATCH /tasks/{}/annotations")
    round_ = ask_round(store, project, queue)
    (half_made,), before = cvat.questions(), asked(store, round_)
    lifecycle.cancel(store, project)
    cvat.away_at(None)
    with store.session() as session:
        for entry in session.scalars(select(Score)):
            entry.score = -entry.score  # as another network might
    queue.clear()
    assert lifecycle.start(store, queue.append, project)[0].id == round_.id
    work(store, queue)
    (task,) = cvat.questions()
    assert task.number != half_made.number
    assert len(task.tags) == len(task.files) == len(asked(store, round_))
    assert asked(store, round_)[:3] != before
