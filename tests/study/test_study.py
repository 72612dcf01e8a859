"""`alc study` from its projects to the prices of questions, with a Label Studio in memory."""

from __future__ import annotations

import json

import pytest

from alc_backend.labelstudio.query import CHOICE
from alc_backend.settings import Settings
from alc_backend.simulate.sample import write_sample
from alc_backend.study import record
from alc_backend.study.record import CLASSIFICATION, CORRECTION, PAGE
from tests.command_line import alc
from tests.fake_label_studio import FakeLabelStudio
from tests.study.people import Volunteers


@pytest.fixture
def given(settings):
    return settings.model_copy(update={"label_studio_url": "http://label-studio.invalid"})


@pytest.fixture
def fake(monkeypatch, given):
    given.data_dir.mkdir(parents=True)
    write_sample(given.data_dir / "sample", images=8, held_out=1)
    fake = FakeLabelStudio()
    fake.serve(monkeypatch)
    return fake


def create(given, *more):
    done = alc(given, "study", "create", "--name", "ours", "--questions", "12", *more)
    assert done.returncode == 0, done.stderr
    return record.load(given.data_dir, None)


def report(given, tmp_path, *more):
    done = alc(given, "study", "report", "--json", str(tmp_path / "found.json"), *more)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "found.json").read_text()), done.stdout


def test_each_group_sees_one_design_of_the_same_questions(given, fake):
    study = create(given, "--people", "3")
    assert [group.design for group in study.groups] == [CORRECTION, CLASSIFICATION, PAGE]
    assert sum(question.is_wrong for question in study.questions) == 6
    for group in study.groups:
        project = fake.projects[group.project]
        assert (project["maximum_annotations"], project["show_skip_button"]) == (3, False)
        assert group.design in project["title"]
        indices = sorted(index for asked in group.tasks.values() for index in asked)
        assert indices == list(range(12))
    corrections, classifications, _ = study.groups
    for task, (index,) in corrections.tasks.items():
        shown = fake.tasks[task]
        label = study.classes[study.questions[index].label]
        assert label in shown.data["question"]
        (chosen,) = [i for i in shown.predictions[0]["result"] if i["from_name"] == CHOICE]
        assert chosen["value"]["choices"] == [label]
        assert "truth" not in json.dumps(shown.data)
    for task in classifications.tasks:
        shown = fake.tasks[task]
        assert [choice["value"] for choice in shown.data["choices"]] == study.classes
        names = {item["from_name"] for item in shown.predictions[0]["result"]}
        assert names == {"box", "outline", "star"}


def test_the_report_finds_what_people_did(given, fake, tmp_path):
    study = create(given)
    people = Volunteers(fake, study)

    def correcting(indices):
        return 5.0 if study.questions[indices[0]].is_wrong else 2.0

    wrong = [index for index, question in enumerate(study.questions) if question.is_wrong]
    people.answer(1, CORRECTION, correcting)
    people.answer(2, CORRECTION, lambda indices: 1.2 * correcting(indices), mistakes=wrong[:3])
    people.answer(3, CLASSIFICATION, lambda indices: 6.0, again=100.0)
    people.answer(4, CLASSIFICATION, lambda indices: 7.0 if indices[0] else 900.0)
    people.answer(5, PAGE, lambda indices: 1.0 + 1.5 * len(indices), mistakes=[3])
    people.answer(6, PAGE, lambda indices: 1.0, first=1)  # never finished
    people.answer(2, CLASSIFICATION, lambda indices: 1.0)  # saw the images before
    people.answer(7, PAGE, lambda indices: None)
    target = tmp_path / "alc.env"
    target.write_text("ALC_EPSILON=0.2\nALC_SECONDS_TILE=9\n")
    found, told = report(given, tmp_path, "--settings", str(target))

    designs = {row["design"]: row for row in found["designs"]}
    assert [designs[name]["people"] for name in (CORRECTION, CLASSIFICATION, PAGE)] == [2, 2, 1]
    assert designs[CORRECTION]["total"]["mean"] == pytest.approx(1.1 * (6 * 5 + 6 * 2))
    assert designs[CORRECTION]["accuracy"]["mean"] == pytest.approx((1 + 0.75) / 2)
    assert designs[CLASSIFICATION]["per_question"]["mean"] == pytest.approx(6.5)
    assert designs[CLASSIFICATION]["interruptions"] == 1
    assert designs[PAGE]["accuracy"]["mean"] == pytest.approx(11 / 12)
    assert len(found["left_out"]) == 3
    for reason in ("answered 5 of 12", "began with the correction queries", "no times"):
        assert sum(reason in line for line in found["left_out"]) == 1, found["left_out"]
        assert reason in told
    assert found["differences"][0]["ratio"] == pytest.approx(1.1 * 3.5 / 6.5)

    lines = target.read_text().splitlines()
    assert lines[0] == "ALC_EPSILON=0.2"
    assert sorted(lines[1:]) == [
        "ALC_SECONDS_ACCEPT=2.2",
        "ALC_SECONDS_CLASSIFY=6.5",
        "ALC_SECONDS_CORRECT=5.5",
        "ALC_SECONDS_TILE=1.5",
    ]
    assert Settings(_env_file=target).seconds == {
        "accept": 2.2, "correct": 5.5, "classify": 6.5, "tile": 1.5,
    }  # fmt: skip


def test_a_report_before_anybody_answered_shows_nothing(given, fake, tmp_path):
    create(given, "--designs", "page,correction", "--share-wrong", "0.25")
    found, _ = report(given, tmp_path)
    assert (found["designs"], found["seconds"]) == ([], {})


def test_a_study_that_cannot_be_made_leaves_nothing_behind(given, fake):
    before = set(fake.projects)
    fake.fail(500, "/api/projects/", method="POST", after=2)
    done = alc(given, "study", "create", "--name", "ours")
    assert done.returncode == 1
    assert set(fake.projects) == before
    assert not record.path_of(given.data_dir, "ours").exists()
    fake.recover()
    create(given)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["create", "--designs", "correction,guess"], "'guess'"),
        (["create", "--questions", "900"], "fewer --questions"),
        (["create", "--name", "../x"], "'../x'"),
        (["create", "nowhere"], "nowhere"),
        (["report"], "alc study create"),
        (["report", "theirs"], "'theirs'"),
        (["report", "damaged"], "damaged.json"),
    ],
)
def test_a_mistake_ends_in_one_sentence(given, fake, arguments, named):
    if arguments[-1] in ("theirs", "damaged"):
        record.folder(given.data_dir).mkdir()
        (record.folder(given.data_dir) / "damaged.json").write_text('{"name": "x"}')
    done = alc(given, "study", *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert named in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_a_second_study_needs_another_name(given, fake):
    create(given)
    done = alc(given, "study", "create", "--name", "ours")
    assert (done.returncode, "another --name" in done.stderr) == (1, True)
