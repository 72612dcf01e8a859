"""A lost store is made again from a (fake) Label Studio and the dataset folder."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import func, select
from typer.testing import CliRunner

from alc_backend.cli.main import app
from alc_backend.cli.warm_start import OBJECTS, SLIC, open_with
from alc_backend.datasets.layouts import open_dataset
from alc_backend.errors import DatasetError, LabelStudioAwayError, SettingsError
from alc_backend.foundation.warm_start import WarmStart
from alc_backend.labelstudio import query
from alc_backend.labelstudio.tasks import annotation_result
from alc_backend.loop import query_tasks
from alc_backend.loop.annotations.outcomes import Outcome
from alc_backend.loop.annotations.reconciliation import reconcile
from alc_backend.loop.exports import rebuild, snapshot
from alc_backend.loop.projects import connection
from alc_backend.settings import settings as settings_in_force
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.importing import import_folder
from alc_backend.store.models import Image, LedgerEntry, Project, Query, Round, Score, Superpixel
from alc_backend.store.pages import Page
from alc_backend.store.round_states import RoundState
from alc_backend.store.storage import Storage
from tests.annotations import (
    CAT,
    DATASET_PROJECT,
    DOG,
    QUERY_PROJECT,
    ask_about,
    asked_project,
    in_ledger,
    label_map,
    query_of,
    reply_to,
    upload_images,
)
from tests.conftest import BOTH_DATABASES, write_dataset
from tests.fake_label_studio import FakeLabelStudio
from tests.pages import add_page, ask_page, reply_to_page

PROJECTS = (DATASET_PROJECT, QUERY_PROJECT)


@pytest.fixture
def images(dataset):
    return open_dataset(dataset)


@pytest.fixture
def label_studio(images):
    made = FakeLabelStudio()
    upload_images(made, images)
    return made


@pytest.fixture
def again(store, label_studio, images):
    return lambda opened=None, **options: rebuild.rebuild_project(
        store, label_studio.client(), opened or images, *PROJECTS, **options
    )


def nothing_is_left(store) -> bool:
    with store.reading() as session:
        tables = (Project, Image, Superpixel, Round, Query, Score, LedgerEntry)
        rows = sum(session.scalar(select(func.count()).select_from(table)) for table in tables)
    files = [path for path in store.settings.data_dir.rglob("*") if path.suffix in (".png", ".npz")]
    return rows == 0 and not files


@BOTH_DATABASES
def test_questions_and_answers_are_there_again(store, label_studio, images, again):
    tasks = ask_about(label_studio, images, 1)
    reply_to(label_studio, 1, tasks["a", 2], "dog")
    ask_about(label_studio, images, 2, [1], minute=10)
    reply_to(label_studio, 2, tasks["b", 1], "cat", minute=20)
    label_studio.tasks[tasks["c", 2]].is_labeled = True
    made = again()
    assert (made.images, made.queries, made.rounds, made.problems) == (3, 6, 2, [])
    assert made.counts == {Outcome.RECORDED: 2}
    assert in_ledger(store, made.project_id) == {1: ("correct", DOG), 2: ("accept", CAT)}
    assert (label_map(store, made.project_id)[24:40, 32:56] == DOG).all()
    with store.reading() as session:
        rounds = session.scalars(select(Round).order_by(Round.number)).all()
        assert [(r.number, r.state) for r in rounds] == [
            (1, RoundState.CLOSED),
            (2, RoundState.OPEN),
        ]
        assert session.scalar(select(func.count()).select_from(Score)) == 9
    assert query_of(store, "b", 1).round_id == rounds[1].id
    assert query_of(store, "c", 2).closed_at is not None
    assert query_of(store, "b", 2).closed_at is None


def test_a_question_asked_again_is_in_the_later_rounds_queue(store, label_studio, images, again):
    """With the star that the earlier round chose."""
    tasks = ask_about(label_studio, images, 1)
    ask_about(label_studio, images, 2, [1], minute=10)
    asked = label_studio.tasks[tasks["c", 2]]
    label_studio.predict(
        asked.id, asked.predictions[0]["result"], number=50_000, model_version="alc-round-2"
    )
    again()
    known = query_of(store, "c", 2)
    with store.reading() as session:
        assert session.get_one(Round, known.round_id).number == 2
    assert known.chosen_in == 1
    assert (known.row, known.col) == query.starred(asked.predictions[0]["result"], 48, 64)


@BOTH_DATABASES
def test_pages_are_there_again(store, label_studio, images, again):
    tasks = ask_about(label_studio, images, 1)
    shown = ask_page(label_studio, images, round_number=1)
    ask_page(label_studio, images, [("c", 1)], key="1" * 32, task=8001)
    label_studio.tasks[8001].is_labeled = True
    ask_page(label_studio, images, [("c", 2)], key="2" * 32, task=8002)
    reply_to_page(label_studio, 1, 8000, shown, {1, 3}, by=3)
    reply_to_page(label_studio, 2, 8000, shown, None, by=4, minute=1)
    reply_to(label_studio, 3, tasks["a", 2], "dog", minute=2)
    made = again()
    assert (made.queries, made.pages, made.rounds, made.problems) == (6, 3, 1, [])
    assert made.counts == {Outcome.RECORDED: 3}
    with store.reading() as session:
        pages = session.scalars(select(Page).order_by(Page.key)).all()
        assert [(page.task_id, page.closed_at is None) for page in pages] == [
            (8000, True),
            (8001, False),
            (8002, True),
        ]
        assert [tile.superpixel.number for tile in pages[0].tiles] == [1, 2, 1]
    with store.reading() as session:
        entries = ledger.standing(session, made.project_id)
    assert [entry.kind.value for entry in entries] == [
        "accept", "ruled out", "accept", "skip", "skip", "skip", "correct",
    ]  # fmt: skip
    for entry, tile in zip(entries, [*shown.tiles, *shown.tiles], strict=False):
        assert (entry.row, entry.col, entry.pseudo_label) == (tile.row, tile.col, CAT)
        assert (entry.round_number, entry.proposed, entry.task_id) == (1, CAT, 8000)
    assert reconcile(store, label_studio.client(), made.project_id, full=True) == {Outcome.KNOWN: 3}


def test_pages_that_were_made_again_are_what_they_were(
    store, settings, dataset, label_studio, images, again, tmp_path
):
    """A store that had the page when it was answered, and one that is made again, say the same."""
    ask_about(label_studio, images)
    made = again()
    shown = ask_page(label_studio, images)
    row_id = add_page(store, made.project_id, task_id=8000)
    with store.session() as session:
        for row, tile in zip(session.get_one(Page, row_id).tiles, shown.tiles, strict=True):
            row.row, row.col = tile.row, tile.col
    reply_to_page(label_studio, 1, 8000, shown, {2}, minute=3, lead_time=9.0)
    assert reconcile(store, label_studio.client(), made.project_id) == {Outcome.RECORDED: 1}
    with store.reading() as session:
        assert session.scalars(select(Page.id)).all() == [row_id]
    elsewhere = settings.model_copy(
        update={"data_dir": tmp_path / "elsewhere", "database_url": None}
    )
    with closing(Store(elsewhere)) as other:
        lost = rebuild.rebuild_project(other, label_studio.client(), images, *PROJECTS)
        assert (lost.pages, lost.counts) == (1, {Outcome.RECORDED: 1})
        digests = {
            snapshot.digest(snapshot.take(one, project_id))
            for one, project_id in ((store, made.project_id), (other, lost.project_id))
        }
    assert len(digests) == 1


def test_a_round_that_only_pages_tell_of_is_made(store, label_studio, images, again):
    """The predictions of old rounds are removed, and its questions were asked again later."""
    ask_about(label_studio, images, 2)
    shown = ask_page(label_studio, images, round_number=1)
    reply_to_page(label_studio, 1, 8000, shown, {1})
    label_studio.tasks[8000].predictions.clear()
    made = again()
    assert (made.pages, made.rounds, made.problems) == (1, 2, [])
    assert made.counts == {Outcome.RECORDED: 1}


def test_a_page_that_cannot_be_read_stops_nothing(store, label_studio, images, again):
    ask_about(label_studio, images)
    ask_page(label_studio, images)
    label_studio.tasks[8000].data["alc"]["tiles"] = "none"
    ask_page(label_studio, images, key="1" * 32, task=8001)
    label_studio.tasks[8001].data["alc"]["tiles"][0]["image"] = "elsewhere"
    made = again()
    assert (made.queries, made.pages) == (6, 0)
    assert len(made.problems) == 1
    assert "task 8001" in made.problems[0]


def test_a_page_about_other_superpixels_is_refused(store, label_studio, images, again):
    ask_page(label_studio, images)
    label_studio.tasks[8000].data["alc"]["tiles"][1].update(row=0, col=0)
    with pytest.raises(DatasetError, match=r"1 of 1 pages .* task 8000.*--superpixels"):
        again()
    assert nothing_is_left(store)


def test_a_page_of_a_round_that_spread_is_refused(store, label_studio, images, again):
    ask_about(label_studio, images)
    ask_page(label_studio, images, epsilon=0.1)
    with pytest.raises(SettingsError, match=r"task 8000 .*ε = 0.1.*alc restore"):
        again()


# Superpixels that are not those of the queries.


def by_slic(dataset, settings, count, **more):
    start = WarmStart(count=count, **more)
    return open_with(dataset, SLIC if not start.fill else OBJECTS, start, settings)


@pytest.mark.parametrize("count", [4, 90])
def test_other_superpixels_are_refused_before_anything_is_made(
    store, settings, dataset, label_studio, again, count
):
    tasks = ask_about(label_studio, by_slic(dataset, settings, 30))
    reply_to(label_studio, 1, tasks["a", 2], "dog")
    with pytest.raises(DatasetError, match=f"of {len(tasks)} queries do not fit") as error:
        again(by_slic(dataset, settings, count))
    assert all(f"--{name}" in str(error.value) for name in ("superpixels", "fill"))
    assert nothing_is_left(store)
    made = again(by_slic(dataset, settings, 30))  # what was wrong can be put right at once
    assert (made.counts, made.problems) == ({Outcome.RECORDED: 1}, [])


def test_filled_superpixels_go_with_fill_only(store, settings, dataset, label_studio, again):
    filled = by_slic(dataset, settings, 20, fill=True)
    ask_about(label_studio, filled)
    with pytest.raises(DatasetError, match="do not fit"):
        again()
    assert again(by_slic(dataset, settings, 20, fill=True)).problems == []


def test_a_superpixel_that_only_holds_the_star_is_another_one(
    store, dataset, label_studio, images, again
):
    """The same numbers, other borders: the outlines tell."""
    ask_about(label_studio, images)
    path = dataset / "objects" / "a.png"
    ids = np.array(Picture.open(path))
    ids[18:24, 18:24] = 0  # the box stays, a corner is missing
    Picture.fromarray(ids).save(path)
    with pytest.raises(DatasetError, match=r"1 of 6 queries .*superpixel 1 of a"):
        again()
    assert nothing_is_left(store)


def test_images_of_another_size_are_others(store, tmp_path, label_studio, images, again):
    ask_about(label_studio, images)
    twice = write_dataset(tmp_path / "twice")
    for path in twice.rglob("*.png"):
        image = Picture.open(path)
        size = (image.width * 2, image.height * 2)
        image.resize(size, Picture.Resampling.NEAREST).save(path)
    with pytest.raises(DatasetError, match="6 of 6"):
        again(open_dataset(twice))


# Names, interruptions, repetitions.


def test_another_project_of_the_same_title_keeps_its_own(
    store, tmp_path, label_studio, images, again
):
    other = import_folder(store, write_dataset(tmp_path / "other", names=("x",)), "pets").project_id
    with store.session() as session:
        row = session.get_one(Project, other)
        row.dataset_project, row.query_project = 21, 22
    ask_about(label_studio, images)
    made = again()
    assert made.project_id != other
    with store.reading() as session:
        found = {p.id: (p.name, p.query_project) for p in session.scalars(select(Project))}
        keys = session.scalars(select(Image.key).where(Image.project_id == other)).all()
    assert found == {other: ("pets", 22), made.project_id: ("pets (11)", QUERY_PROJECT)}
    assert keys == ["x"]


def test_names_are_free(store):
    config = {"title": "pets", "id": 11}
    for name in ("pets", "pets (11)", "pets (11, 2)"):
        assert connection.free_name(store, config) == name
        with store.session() as session:
            session.add(Project(name=name, classes=["a", "b"]))


def killed(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["reading the images' tasks", "comparing the queries"])
def test_an_interruption_leaves_nothing(store, label_studio, images, again, monkeypatch, step):
    ask_about(label_studio, images)

    def interrupted(message):
        if message.startswith(step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(report=interrupted)
    assert nothing_is_left(store)
    with monkeypatch.context() as patched:  # nor is there time to remove what was made
        patched.setattr(Storage, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            again(report=interrupted)
    assert not nothing_is_left(store)
    made = again()
    with store.reading() as session:
        assert session.scalars(select(Project.name)).all() == ["pets"]
    assert (made.images, made.queries) == (3, 6)


def test_reconciling_does_what_an_interrupted_rebuild_left(store, label_studio, images, again):
    tasks = ask_about(label_studio, images)
    label_studio.projects[QUERY_PROJECT]["maximum_annotations"] = 2
    reply_to(label_studio, 1, tasks["a", 2], "dog", by=1)
    reply_to(label_studio, 2, tasks["a", 2], "cat", by=2, minute=1)
    shown = label_studio.tasks[tasks["a", 2]]
    data = {**shown.data, "alc": {**shown.data["alc"], "adjudication": True}}
    label_studio.add_task(77, data, predictions=[*shown.predictions])

    label_studio.fail(path=f"/api/projects/{QUERY_PROJECT}", after=1)  # as reconciling begins
    with pytest.raises(LabelStudioAwayError):
        again()
    label_studio.recover()
    with pytest.raises(DatasetError, match=r"has this project already \(pets\).*reconcile --full"):
        again()
    with store.reading() as session:
        project = session.scalars(select(Project.id)).one()
    assert reconcile(store, label_studio.client(), project, full=True) == {Outcome.RECORDED: 2}
    assert query_of(store, "a", 2, adjudication=True).proposed == [DOG, CAT]


# Answers that spread by similarity.


def test_rounds_that_spread_are_refused_whatever_the_settings_are(
    store, label_studio, images, again
):
    ask_about(label_studio, images, 1, [1])
    ask_about(label_studio, images, 2, [2], epsilon=0.1)
    with pytest.raises(SettingsError, match=r"task 1002 .*ε = 0.1.*alc restore"):
        again()
    assert nothing_is_left(store)


def test_an_annotation_tells_that_its_round_spread(store, label_studio, images, again):
    """The predictions of old rounds are removed from Label Studio."""
    tasks = ask_about(label_studio, images, 1, epsilon=1e-05)
    reply_to(label_studio, 1, tasks["a", 2], "dog")
    for task in label_studio.tasks.values():
        task.predictions.clear()
    with pytest.raises(SettingsError, match="1e-05"):
        again()


def test_a_setting_that_spreads_is_refused(store, label_studio, images, again):
    ask_about(label_studio, images)
    store.settings = store.settings.model_copy(update={"epsilon": 0.1})
    with pytest.raises(SettingsError, match="ALC_EPSILON"):
        again()


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1e-07, 1.0])
def test_a_prediction_tells_its_rounds_epsilon(images, epsilon):
    label_studio = FakeLabelStudio()
    ask_about(label_studio, images, 3, epsilon=epsilon)
    for task in label_studio.tasks.values():
        result = task.predictions[0]["result"]
        assert query.epsilon_of(result) == epsilon
        assert query.epsilon_of(annotation_result(result, "dog")) == epsilon


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_what_is_published_tells_the_epsilon_that_its_round_had(store, dataset, epsilon):
    project = asked_project(store, dataset)
    with store.session() as session:
        round_ = session.scalars(select(Round).where(Round.project_id == project)).one()
        round_.config = replace(round_.config, epsilon=epsilon)
    found = [query.epsilon_of(item.result) for item in query_tasks.queue_items(store, round_)]
    assert found == [epsilon] * 6


# What an annotator's screen sends back cannot make rounds.


def test_a_round_that_was_never_published_is_not_made(store, label_studio, images, again):
    tasks = ask_about(label_studio, images)
    reply_to(label_studio, 1, tasks["a", 2], "dog")
    result = label_studio.annotation(1)["result"]
    for item in result:
        item["id"] = item["id"].replace("r1-", "r900-")
    made = again()
    assert (made.rounds, made.counts) == (1, {Outcome.RECORDED: 1})


# The command line.


@pytest.fixture
def command(settings, monkeypatch, label_studio, dataset):
    """Runs `alc rebuild` in this process; its Label Studio is the fake one."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    label_studio.serve(monkeypatch)
    numbers = ["--dataset-project", str(DATASET_PROJECT), "--query-project", str(QUERY_PROJECT)]
    settings_in_force.cache_clear()
    yield lambda *words: CliRunner().invoke(app, ["rebuild", str(dataset), *numbers, *words])
    settings_in_force.cache_clear()


def test_the_command_line_takes_the_options_of_init(
    store, settings, dataset, label_studio, command
):
    ask_about(label_studio, by_slic(dataset, settings, 30))
    done = command()
    assert isinstance(done.exception, DatasetError)
    done = command("--superpixels", "slic", "--superpixel-count", "30")
    assert done.exit_code == 0, done.output
    with store.reading() as session:
        kept = session.scalars(select(Project.warm_start)).one()
    assert (kept["superpixels"], kept["count"]) == ("slic", 30)


def test_the_command_line_tells_what_to_check(dataset, label_studio, images, command, tmp_path):
    ask_about(label_studio, images)
    held_out = tmp_path / "held_out"
    shutil.copytree(dataset, held_out)
    done = command("--val", str(held_out))
    assert done.exit_code == 0, done.output
    assert "please check: 3 validation images are training images, too" in done.output


def test_the_command_line_fails_when_something_was_left_out(
    store, dataset, label_studio, images, command
):
    ask_about(label_studio, images)
    (dataset / "images" / "b.png").unlink()
    done = command()
    assert done.exit_code == 1
    assert "left out: task 2001" in done.output.replace("\n", " ")
    assert "6 problems" in done.output  # two tasks, that of the image, and its masks
