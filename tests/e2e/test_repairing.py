"""Repairing masks that are good already, with two annotators and a real Label Studio.

The masks are in CamVid's colours. What docs/repairing.md says is done here, step by step.
"""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select

from alc_backend.cli.demo.labeler import answer_queries
from alc_backend.datasets.layouts import open_dataset
from alc_backend.foundation.warm_start import Warmer, WarmStart
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.tasks import annotation_result
from alc_backend.store import standing
from alc_backend.store.models import LedgerEntry, Project, Query, Superpixel
from tests.conftest import wait_for
from tests.e2e.chaos import new_user
from tests.e2e.demonstration import alc
from tests.foundation.tiny import write_models

pytestmark = [pytest.mark.ls, pytest.mark.slow]

COLOURS = {
    "background": (0, 0, 0), "sky": (128, 128, 128), "road": (128, 64, 128),
    "building": (128, 0, 0), "car": (64, 0, 128),
}  # fmt: skip
"""CamVid's, by class."""

CLASSES = list(COLOURS)
KEYS = ("0001TP_006690", "0001TP_006720", "0016E5_00390")
MODELS = {"ALC_DETECTOR": "grounding-dino-base", "ALC_SEGMENTER": "sam-vit-b"}
SMALL = {"ALC_ITERATIONS": "3", "ALC_INPUT_SIZE": "64", "ALC_BATCH_SIZE": "2"}


def street(number: int) -> np.ndarray:
    """The true classes of an image, uint8 (24, 160)."""
    truth = np.zeros((24, 160), dtype=np.uint8)
    truth[:10], truth[16:] = 1, 2
    truth[4:16, 20:60] = 3
    truth[12:22, 80 + 10 * number : 120 + 10 * number] = 4
    return truth


def painted(ids: np.ndarray) -> Picture.Image:
    return Picture.fromarray(np.array([*COLOURS.values()], dtype=np.uint8)[ids])


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A dataset whose masks are right but for one car, which is road in its mask."""
    root = tmp_path_factory.mktemp("streets") / "camvid"
    for folder in ("JPEGImages", "SegmentationClass", "ground_truth"):
        (root / folder).mkdir(parents=True)
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in COLOURS.items()]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))
    looks = np.array([[90, 90, 90], [90, 150, 230], [70, 70, 80], [180, 120, 60], [200, 30, 40]])
    for number, key in enumerate(KEYS):
        truth = street(number)
        mask = np.where(truth == 4, 2, truth) if number == 0 else truth
        Picture.fromarray(looks[truth].astype(np.uint8)).save(root / f"JPEGImages/{key}.png")
        painted(mask).save(root / f"SegmentationClass/{key}.png")
        Picture.fromarray(truth).save(root / f"ground_truth/{key}.png")
    return root


@pytest.fixture(scope="module")
def second(running):
    demo, _ = running
    client = Client(
        demo.client.url, new_user(demo.client, "adjudicator@example.com", "green 42 tea")
    )
    yield client
    client.close()


@pytest.fixture(scope="module")
def streets(running, given):
    """The project of the given masks, whose every superpixel is asked about."""
    demo, _ = running
    write_models(demo.settings.models)
    said = alc(
        demo, "init", str(given), "--name", "streets", "--superpixels", "grounded-sam",
        "--box-threshold", "0.1", "--fill", "slic", "--superpixel-count", "12",
        ALC_OVERLAP="2", **MODELS,
    )  # fmt: skip
    assert "3 images" in " ".join(said.split())
    alc(demo, "round", "start", "--project", "streets", "--size", "1000", "--wait", **SMALL)
    with demo.store.reading() as session:
        return session.scalars(select(Project).where(Project.name == "streets")).one()


def disputed(demo, project) -> set[int]:
    with demo.store.reading() as session:
        return set(standing.disputed(session, project.id))


def answers(demo, project) -> int:
    with demo.store.reading() as session:
        entries = select(LedgerEntry.annotation_id).where(LedgerEntry.project_id == project.id)
        return len(set(session.scalars(entries)))


def answer_wrongly(demo, person, project) -> int:
    """Somebody mistakes the first superpixel for a building; its row id."""
    task = person.get(f"/api/projects/{project.query_project}/next")
    shown = task["predictions"][0]
    body = {
        "result": annotation_result(shown["result"], "building"), "parent_prediction": shown["id"]
    }  # fmt: skip
    person.post(f"/api/tasks/{task['id']}/annotations/", body)
    with demo.store.reading() as session:
        query = session.scalars(select(Query).where(Query.task_id == task["id"])).one()
        return query.superpixel_id


def test_superpixels_are_those_of_the_detector_and_masks_those_that_were_given(
    running, given, streets
):
    demo, _ = running
    files = demo.store.files(streets.id)
    start = WarmStart.of(streets.warm_start)
    assert (start.superpixels, start.threshold, start.fill) == ("grounded-sam", 0.1, True)
    warmer = Warmer(start, CLASSES, demo.settings)
    for number, image in enumerate(sorted(demo.store.images(streets.id, "train"), key=lambda i: i.key)):
        found = warmer.from_image(np.asarray(Picture.open(given / f"JPEGImages/{image.key}.png")))
        assert found.found
        assert np.array_equal(files.read_superpixels(image.id), found.superpixels)
        truth = street(number)
        mask = np.where(truth == 4, 2, truth) if number == 0 else truth
        assert np.array_equal(files.read_label_map("initial", image.id), mask)
    assert streets.overlap == 2


def test_two_annotators_repair_the_masks(running, given, streets, second, tmp_path):
    demo, _ = running
    with demo.store.reading() as session:
        asked = session.scalars(
            select(Query.id).join(Superpixel).where(Query.round.has(project_id=streets.id))
        ).all()
    everything = 10 * len(asked)

    # One of two annotators errs once; nothing is written until a third answer settles it.
    wrong = answer_wrongly(demo, second, streets)
    firsts = answer_queries(demo.store, demo.client, streets.id, everything)
    seconds = answer_queries(demo.store, second, streets.id, everything)
    assert firsts == len(asked)
    assert seconds >= len(asked) - 1
    wait_for(lambda: answers(demo, streets) >= 2 * len(asked))
    if wrong in disputed(demo, streets):
        wait_for(lambda: answer_queries(demo.store, demo.client, streets.id, 1))
        wait_for(lambda: not disputed(demo, streets))
    agreed = json.loads(alc(demo, "answers", "agreement", "--json", "--project", "streets"))
    assert agreed["overlap"] == 2
    assert agreed["disputed"] == 0

    # The release: corrected masks, the list of changes, statistics by class, and the data card.
    release = tmp_path / "release"
    alc(demo, "export", str(release), "--project", "streets")
    alc(demo, "export", str(release), "--project", "streets", "--verify")
    before = {sample.key: sample for sample in open_dataset(given).samples()}
    after = {sample.key: sample for sample in open_dataset(release).samples()}
    for number, key in enumerate(KEYS):
        truth, objects = street(number), after[key].superpixels
        for superpixel in np.unique(objects[objects > 0]):
            here = objects == superpixel
            right = (before[key].labels[here] == truth[here]).mean()
            changed = (before[key].labels[here] != after[key].labels[here]).any()
            assert not (changed and right > 0.5), "what was mostly right stays as it was"
    car = street(0) == 4
    assert (before[KEYS[0]].labels[car] == 2).all()
    assert (after[KEYS[0]].labels[car] == 4).any()
    with (release / "changes.csv").open(encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert {row["image"] for row in rows} >= {KEYS[0]}
    assert all(len(row["annotators"].split(";")) == 2 for row in rows)
    with (release / "classes.csv").open(encoding="utf-8") as file:
        classes = {row["class"]: row for row in csv.DictReader(file)}
    assert int(classes["car"]["superpixels given"]) > 0
    assert int(classes["road"]["superpixels taken"]) > 0
    assert float(classes["car"]["IoU before"]) < 1
    card = (release / "README.md").read_text("utf-8")
    assert "| annotators asked each question | 2 |" in card
    assert "Foundation models" not in card  # they made no label map

    # Corrections and gains of each class, of the label maps and of networks.
    alc(demo, "report", "--project", "streets", "--out", str(tmp_path / "report"))
    assert {"corrections.csv", "labels_gained.csv", "moves.csv"} <= {
        path.name for path in (tmp_path / "report").iterdir()
    }
    compared, held_out = tmp_path / "compared", tmp_path / "held_out"
    shutil.copytree(given, compared)
    shutil.rmtree(compared / "ground_truth")
    shutil.copytree(release / "labels", compared / "ground_truth")
    shutil.copytree(release / "images", held_out / "images")
    shutil.copytree(release / "labels", held_out / "ground_truth")
    said = alc(
        demo, "simulate", str(compared), "--val", str(held_out), "--figure", "7", "--seeds", "0",
        "--json", str(tmp_path / "figure7.json"), **SMALL,
    )  # fmt: skip
    assert "743 were corrected" in " ".join(said.split())
    given_masks, corrected = json.loads((tmp_path / "figure7.json").read_text())["rows"]
    assert given_masks["rounds"][0]["data_miou"] < corrected["rounds"][0]["data_miou"] == 1
    alc(demo, "report", str(tmp_path / "figure7.json"), "--out", str(tmp_path / "figure7"))
    assert (tmp_path / "figure7/networks_gained.csv").is_file()
