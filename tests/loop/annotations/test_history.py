"""Who changed what, undoing it, and how far annotators agree."""

from __future__ import annotations

import numpy as np
import pytest

from alc_backend.errors import LabelStudioAwayError, LabelStudioError, NotFoundError, RoundError
from alc_backend.loop.annotations import history, webhooks
from alc_backend.store import upkeep
from alc_backend.store.models import Project
from tests.annotations import (
    CAT,
    DATASET_PROJECT,
    DOG,
    QUERY_PROJECT,
    annotation,
    answer,
    arrive,
    created,
    deleted,
    entries,
    image_of,
    in_ledger,
    judged,
    label_map,
    receive,
    region,
    task_of,
)
from tests.command_line import alc_with
from tests.conftest import BOTH_DATABASES, CLASSES
from tests.machine import write_batch
from tests.pages import add_page, say_to_page


@pytest.fixture
def submit(store, project, label_studio):
    """Let annotations be made in Label Studio, whose webhooks arrive."""

    def submit(*records, to="query"):
        where = DATASET_PROJECT if to == "dataset" else QUERY_PROJECT
        told = [created(record, project=where) for record in records]
        for body in told:  # each by itself: Label Studio tells no earlier revisions
            arrive(store, project, body, label_studio=label_studio)

    return submit


@pytest.fixture
def log(store, project):
    return lambda **options: history.list_entries(store, project, **options)


@pytest.fixture
def revert(store, project, label_studio):
    return lambda number: history.revert(store, label_studio.client, project, number)


def ask(store, project, overlap):
    with store.session() as session:
        upkeep.set_overlap(session, project, overlap)


def brief(lines, *names):
    return [tuple(getattr(line, name) for name in names) for line in lines]


def painted(store, number, *regions, **changes):
    """An edit of image a that began from nothing."""
    return annotation(number, image_of(store, "a").dataset_task, list(regions), **changes)


@BOTH_DATABASES
def test_every_answer_says_who_changed_what_from_what_to_what(store, project, submit, log):
    assert log() == []
    submit(
        answer(1, task_of(store, "a", 2), "dog", by=7),
        answer(2, task_of(store, "b", 1), "cat", by=8),
        answer(3, task_of(store, "c", 1), None, by=8),
    )
    lines = log()
    assert brief(lines, "annotator", "image", "superpixel", "kind", "before", "after") == [
        ("7", "a", 2, "correct", "cat", "dog"),
        ("8", "b", 1, "accept", "cat", "cat"),
        ("8", "c", 1, "skip", "cat", None),
    ]
    assert brief(lines, "pixels", "round", "annotation") == [(384, 1, 1), (256, 1, 2), (256, 1, 3)]
    assert [line.answer for line in lines] == [entry.id for entry in entries(store)]
    assert all(line.in_force for line in lines)


def test_an_edit_has_a_line_for_each_superpixel_it_changed(store, project, submit, log):
    submit(painted(store, 1, region("dog", slice(22, 26), slice(8, 40))), to="dataset")
    assert brief(log(), "superpixel", "kind", "before", "after", "pixels", "in_force") == [
        (0, "edit", None, "dog", 4 * 32 - 2 * 16 - 2 * 8, True),
        (1, "edit", None, "dog", 2 * 16, True),
        (2, "edit", None, "dog", 2 * 8, True),
    ]


@BOTH_DATABASES
def test_the_log_can_be_narrowed(store, project, submit, log):
    submit(
        answer(1, task_of(store, "a", 1), "cat", by=7),
        answer(2, task_of(store, "a", 2), "dog", by=8),
        answer(3, task_of(store, "b", 2), "dog", by=8),
    )
    assert brief(log(images=["a"]), "annotation") == [(1,), (2,)]
    assert brief(log(annotator="8"), "annotation") == [(2,), (3,)]
    assert brief(log(images=["a"], annotator="8"), "annotation") == [(2,)]
    assert brief(log(last=2), "annotation") == [(2,), (3,)]
    assert brief(log(images=["a"], last=1), "annotation") == [(2,)]
    assert log(images=["z"]) == []


def test_answers_of_other_projects_are_not_in_the_log(store, project, submit):
    submit(answer(1, task_of(store, "a", 2), "dog"))
    with store.session() as session:
        other = Project(name="other", classes=CLASSES)
        session.add(other)
        session.flush()
        number = other.id
    assert history.list_entries(store, number) == []


def test_revised_and_withdrawn_entries_no_longer_count(store, project, submit, log):
    task = task_of(store, "a", 2)
    submit(answer(1, task, "dog"), answer(1, task, "background", revised=2))
    assert brief(log(), "after", "in_force") == [("dog", False), ("background", True)]
    arrive(store, project, deleted(1))
    assert brief(log(), "kind", "in_force") == [
        ("correct", False),
        ("correct", False),
        ("deleted", False),
    ]


def test_the_latest_of_two_answers_counts(store, project, submit, log):
    task = task_of(store, "a", 2)
    submit(answer(1, task, "dog", by=7), answer(2, task, "background", by=8, minute=1))
    assert brief(log(), "annotation", "in_force") == [(1, False), (2, True)]


def test_votes_that_wait_or_disagree_are_in_force(store, project, submit, log):
    ask(store, project, 2)
    task = task_of(store, "a", 2)
    submit(answer(1, task, "dog", by=7))
    assert brief(log(), "in_force") == [(True,)]
    submit(answer(2, task, "cat", by=8, minute=1))
    assert brief(log(), "in_force") == [(True,), (True,)]


def test_all_votes_of_an_agreement_are_in_force(store, project, submit, log):
    ask(store, project, 2)
    task = task_of(store, "a", 2)
    submit(answer(1, task, "dog", by=7), answer(2, task, "dog", by=8, minute=1))
    assert judged(store, project).resolved
    assert brief(log(), "in_force") == [(True,), (True,)]


# Undoing.


def deleted_in(label_studio):
    """The annotations that Label Studio was told to delete."""
    paths = [request.path.split("/") for request in label_studio.writes]
    assert all(path[2] == "annotations" for path in paths)
    return [int(path[3]) for path in paths]


@BOTH_DATABASES
def test_an_undone_answer_is_gone_here_and_in_label_studio(
    store, project, submit, log, revert, label_studio
):
    before = label_map(store, project)
    submit(answer(1, task_of(store, "a", 2), "dog"), answer(2, task_of(store, "b", 2), "dog"))
    undone = revert(log()[0].answer)
    assert (undone.entry.annotation_id, len(undone.entries)) == (1, 1)
    assert deleted_in(label_studio) == [1]
    assert in_ledger(store, project) == {2: ("correct", DOG)}
    assert np.array_equal(label_map(store, project), before)
    assert len(judged(store, project).resolved) == 1
    assert brief(log(images=["a"]), "kind", "in_force") == [("correct", False), ("deleted", False)]


def test_an_edit_is_undone_too(store, project, submit, log, revert, label_studio):
    before = label_map(store, project)
    submit(painted(store, 1, region("dog", slice(0, 4), slice(0, 4))), to="dataset")
    assert not np.array_equal(label_map(store, project), before)
    revert(log()[0].answer)
    assert np.array_equal(label_map(store, project), before)
    assert deleted_in(label_studio) == [1]


def test_an_annotation_that_label_studio_no_longer_has_is_withdrawn_here(
    store, project, submit, log, revert, label_studio
):
    submit(answer(1, task_of(store, "a", 2), "dog"))
    label_studio.remove_annotation(1)
    revert(log()[0].answer)
    assert in_ledger(store, project) == {}


@pytest.mark.parametrize(
    ("status", "error"),
    [(None, LabelStudioAwayError), (503, LabelStudioAwayError), (403, LabelStudioError)],
)
def test_nothing_is_undone_that_label_studio_does_not_delete(
    store, project, submit, log, revert, label_studio, status, error
):
    submit(answer(1, task_of(store, "a", 2), "dog"))
    label_studio.fail(status)
    with pytest.raises(error):
        revert(log()[0].answer)
    assert in_ledger(store, project) == {1: ("correct", DOG)}
    label_studio.recover()
    revert(log()[0].answer)
    assert in_ledger(store, project) == {}


def test_undoing_twice_and_undoing_the_unknown_are_refused(
    store, project, submit, log, revert, label_studio
):
    submit(answer(1, task_of(store, "a", 2), "dog"))
    number = log()[0].answer
    with pytest.raises(NotFoundError, match="alc answers log"):
        revert(number + 1000)
    with pytest.raises(NotFoundError):
        history.revert(store, label_studio.client(), project + 1, number)
    revert(number)
    for known in (number, log()[-1].answer):  # the answer, and the entry that it was withdrawn
        with pytest.raises(RoundError, match="already"):
            revert(known)
    assert deleted_in(label_studio) == [1]


def test_a_late_webhook_does_not_bring_an_undone_answer_back(
    store, project, label_studio, submit, log, revert
):
    given = answer(1, task_of(store, "a", 2), "dog")
    submit(given)
    revert(log()[0].answer)
    late = created({**given, "updated_at": "2026-01-01T13:00:00Z"}, action="ANNOTATION_UPDATED")
    receive(store, project, late)
    webhooks.drain(store, label_studio.client)
    assert in_ledger(store, project) == {}


# Agreement.


@BOTH_DATABASES
def test_agreement_counts_votes_of_those_who_were_asked_the_same(store, project, submit):
    ask(store, project, 2)
    a1, a2, b1, b2, c1 = (
        task_of(store, *place) for place in (("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1))
    )
    submit(
        answer(1, a1, "cat", by=7),
        answer(2, a1, "cat", by=8),
        answer(3, a2, "dog", by=7),
        answer(4, a2, "dog", by=8),
        answer(5, b1, "cat", by=7),
        answer(6, b1, "dog", by=8),
        answer(7, b2, "dog", by=7),  # waits for another
        answer(8, b2, None, by=8),
        answer(9, c1, None, by=7),
    )
    submit(painted(store, 10, region("dog", slice(0, 4), slice(0, 4)), by=8), to="dataset")
    # of three shared items one is disputed: Do = 2/6, De = 2·3·3 / (6·5)
    assert history.team_agreement(store, project).as_json() == {
        "overlap": 2,
        "items": 3,
        "unanimous": 2,
        "alpha": pytest.approx(1 - (2 / 6) / (18 / 30)),
        "waiting": 1,
        "disputed": 1,
        "annotators": {
            "7": {"accept": 2, "correct": 2, "skip": 1},
            "8": {"accept": 1, "correct": 2, "skip": 1, "edit": 1},
        },
    }


def test_without_answers_there_is_no_agreement(store, project):
    found = history.team_agreement(store, project)
    assert (found.among.items, found.among.alpha, found.annotators) == (0, None, {})


def test_one_annotators_second_thoughts_are_no_disagreement(store, project, submit):
    task = task_of(store, "a", 2)
    submit(answer(1, task, "dog", by=7), answer(2, task, "cat", by=7, minute=1))
    assert history.team_agreement(store, project).among.items == 0


# Pages of look-alikes.


@BOTH_DATABASES
def test_each_tile_of_a_page_has_a_line(store, project, log):
    say_to_page(store, add_page(store, project, proposed=DOG), 1, {1, 3})
    names = ("image", "superpixel", "kind", "before", "after", "position", "proposed", "in_force")
    assert brief(log(), *names) == [
        ("a", 1, "correct", "cat", "dog", 1, "dog", True),
        ("a", 2, "ruled out", "cat", None, 2, "dog", True),
        ("b", 1, "correct", "cat", "dog", 3, "dog", True),
    ]


def test_single_answers_have_no_position(store, project, submit, log):
    submit(answer(1, task_of(store, "a", 2), "dog"))
    assert brief(log(), "position", "proposed") == [(0, None)]


def test_ruling_a_class_out_counts_until_the_superpixel_has_that_class(store, project, submit, log):
    say_to_page(store, add_page(store, project, proposed=DOG), 1, set())
    submit(answer(2, task_of(store, "a", 2), "dog", minute=1))
    submit(answer(3, task_of(store, "a", 1), "cat", minute=1))
    assert brief(log(), "kind", "superpixel", "in_force") == [
        ("ruled out", 1, True),
        ("ruled out", 2, False),
        ("ruled out", 1, True),
        ("correct", 2, True),
        ("accept", 1, True),
    ]


@BOTH_DATABASES
def test_a_tile_is_undone_with_its_page(store, project, submit, log, revert, label_studio):
    before = label_map(store, project)
    say_to_page(store, add_page(store, project, proposed=DOG), 1, {1, 3})
    submit(answer(2, task_of(store, "b", 2), "dog"))
    undone = revert(log()[1].answer)
    assert (undone.entry.position, len(undone.entries)) == (2, 3)
    assert deleted_in(label_studio) == [1]
    assert in_ledger(store, project) == {2: ("correct", DOG)}
    assert np.array_equal(label_map(store, project), before)
    with pytest.raises(RoundError, match="already"):
        revert(log()[0].answer)


def test_unticking_is_no_vote(store, project, submit):
    ask(store, project, 2)
    page = add_page(store, project, proposed=DOG)
    say_to_page(store, page, 1, {1}, by="7")
    say_to_page(store, page, 2, {2}, by="8", minute=1)
    found = history.team_agreement(store, project)
    assert (found.among.items, found.waiting, found.disputed) == (0, 2, 0)
    assert found.annotators == {
        "7": {"correct": 1, "ruled out": 2},
        "8": {"correct": 1, "ruled out": 2},
    }


def test_the_commands_name_tiles(store, project, label_studio, settings, monkeypatch):
    label_studio.serve(monkeypatch)
    say_to_page(store, add_page(store, project, proposed=DOG), 1, {1})
    environment = {**settings.environment(), "COLUMNS": "200"}

    def alc(*arguments):
        return alc_with(environment, settings.data_dir.parent, "answers", *arguments).stdout

    said = alc("log")
    assert "correct: cat → dog (tile 1)" in said
    assert "rules out dog (cat) (tile 2)" in said
    number = entries(store)[0].id
    undone = " ".join(alc("revert", str(number)).split())
    assert undone == (
        f"answer {number} (annotation 1) is undone, and so are the 2 other answers of its page"
    )
    assert in_ledger(store, project) == {}


def test_several_answers_are_undone_at_once(
    store, project, submit, label_studio, settings, monkeypatch
):
    label_studio.serve(monkeypatch)
    say_to_page(store, add_page(store, project, proposed=DOG), 1, {1})
    submit(answer(2, task_of(store, "b", 2), "dog"), answer(3, task_of(store, "c", 2), "dog"))
    numbers = [entry.id for entry in entries(store)]
    arguments = ("answers", "revert", *map(str, (numbers[0], 999, numbers[1], numbers[3])))
    done = alc_with(settings.environment(), settings.data_dir.parent, *arguments)
    assert done.returncode == 1
    assert "no answer 999" in " ".join(done.stderr.split())
    assert done.stdout.count("is undone") == 2  # two tiles are of one page
    assert in_ledger(store, project) == {3: ("correct", DOG)}


@BOTH_DATABASES
def test_a_batch_of_the_machine_is_undone_whole_and_without_label_studio(
    store, project, submit, log, revert, label_studio
):
    write_batch(store, project)
    submit(answer(1, task_of(store, "b", 2), "cat"))
    told = ("kind", "annotator", "before", "after", "position", "proposed", "in_force")
    assert brief(log(), *told) == [
        ("machine", "machine", "cat", "dog", 1, "dog", True),
        ("machine", "machine", "cat", "dog", 2, "dog", False),  # somebody has answered
        ("accept", "7", "cat", "cat", 0, None, True),
    ]
    label_studio.fail(503)
    undone = revert(log()[0].answer)
    assert (undone.entry.annotation_id, len(undone.entries)) == (-1, 2)
    assert in_ledger(store, project) == {1: ("accept", CAT)}
    with pytest.raises(RoundError, match="withdrawn already"):
        revert(log()[0].answer)


def test_the_machine_is_no_annotator(store, project, submit):
    ask(store, project, 2)
    write_batch(store, project)
    submit(answer(1, task_of(store, "a", 2), "dog", by=7))
    found = history.team_agreement(store, project)
    assert (found.among.items, found.waiting) == (0, 1)
    assert found.annotators == {"7": {"correct": 1}}


def test_the_commands_name_batches(store, project, settings):
    write_batch(store, project)
    environment = {**settings.environment(), "COLUMNS": "200"}
    environment.pop("LABEL_STUDIO_API_KEY", None)

    def alc(*arguments):
        return alc_with(environment, settings.data_dir.parent, "answers", *arguments).stdout

    assert "machine, batch 1: cat → dog" in alc("log")
    undone = alc("revert", str(entries(store)[0].id))
    assert " ".join(undone.split()) == "batch 1 of the machine is undone: 2 labels"
    assert in_ledger(store, project) == {}
