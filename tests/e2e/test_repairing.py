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
from tests.foundation.tiny_hub import write_models

pytestmark = [pytest.mark.ls, pytest.mark.slow]

COLOURS = {
    "background": (0, 0, 0), "sky": (128, 128, 128), "road": (128, 64, 128),
    "building": (128, 0, 0), "car": (64, 0, 128),
}  # fmt: skip
"""CamVid's, by class."""

CLASSES = list(COLOURS)
KEYS = ("0001TP_006690", "0001TP_006720")
MODELS = {"ALC_DETECTOR": "grounding-dino-base", "ALC_SEGMENTER": "sam-vit-b"}
SMALL = {"ALC_ITERATIONS": "3", "ALC_INPUT_SIZE": "64", "ALC_BATCH_SIZE": "2"}


def street(number: int) -> np.ndarray:
    """The true classes of an image, uint8 (24, 160)."""
    truth = np.zeros((24, 160), dtype=np.uint8)
    truth[:10], truth[16:] = 1, 2
    truth[4:16, 20:60] = 3
    if number == 0:
        truth[:, 60:] = 4  # a car close by
    else:
        truth[12:22, 90:130] = 4
    return truth


def mask_of(number: int) -> np.ndarray:
    """The classes that the given mask of an image says, uint8 (24, 160)."""
    truth = street(number)
    return np.where(truth == 4, 2, truth).astype(np.uint8) if number == 0 else truth


def painted(ids: np.ndarray) -> Picture.Image:
    return Picture.fromarray(np.array([*COLOURS.values()], dtype=np.uint8)[ids])


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A dataset whose masks are right but for one car, which its mask takes for road."""
    root = tmp_path_factory.mktemp("streets") / "camvid"
    for folder in ("JPEGImages", "SegmentationClass", "ground_truth"):
        (root / folder).mkdir(parents=True)
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in COLOURS.items()]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))
    looks = np.array([[90, 90, 90], [90, 150, 230], [70, 70, 80], [180, 120, 60], [200, 30, 40]])
    for number, key in enumerate(KEYS):
        truth = street(number)
        Picture.fromarray(looks[truth].astype(np.uint8)).save(root / f"JPEGImages/{key}.png")
        painted(mask_of(number)).save(root / f"SegmentationClass/{key}.png")
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
        "--box-threshold", "0.1", ALC_OVERLAP="2", **MODELS,
    )  # fmt: skip
    assert "2 images" in " ".join(said.split())
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
    """Somebody gives the first question a class that nobody else will name; its superpixel."""
    task = person.get(f"/api/projects/{project.query_project}/next")
    shown = task["predictions"][0]
    with demo.store.reading() as session:
        query = session.scalars(select(Query).where(Query.task_id == task["id"])).one()
    truth = street(KEYS.index(task["data"]["alc"]["image"]))
    right = {query.pseudo_label, int(truth[query.row, query.col])}
    wrong = next(name for class_id, name in enumerate(CLASSES) if class_id not in right)
    body = {
        "result": annotation_result(shown["result"], wrong), "parent_prediction": shown["id"]
    }  # fmt: skip
    person.post(f"/api/tasks/{task['id']}/annotations/", body)
    return query.superpixel_id


def expected(demo, project) -> dict[str, np.ndarray]:
    """The label maps when superpixels that are mostly wrong get the class at their star."""
    files, found = demo.store.files(project.id), {}
    for number, image in enumerate(demo.store.images(project.id, "train")):
        truth, labels = street(number), mask_of(number)
        objects, repaired = files.read_superpixels(image.id), labels.copy()
        with demo.store.reading() as session:
            queries = session.scalars(
                select(Query).join(Superpixel).where(Superpixel.image_id == image.id)
            ).all()
            numbers = {query.id: query.superpixel.number for query in queries}
        for query in queries:
            here = objects == numbers[query.id]
            star = query.row, query.col
            mostly_right = (labels[here] == truth[here]).mean() > 0.5
            if not mostly_right and truth[star] != labels[star]:
                repaired[here] = truth[star]
        found[image.key] = repaired
    return found


def test_superpixels_are_those_of_the_detector_and_masks_those_that_were_given(
    running, given, streets
):
    demo, _ = running
    files = demo.store.files(streets.id)
    start = WarmStart.of(streets.warm_start)
    assert (start.superpixels, start.threshold) == ("grounded-sam", 0.1)
    warmer = Warmer(start, CLASSES, demo.settings)
    for number, image in enumerate(demo.store.images(streets.id, "train")):
        found = warmer.from_image(np.asarray(Picture.open(given / f"JPEGImages/{image.key}.png")))
        assert found.found
        assert np.array_equal(files.read_superpixels(image.id), found.superpixels)
        assert np.array_equal(files.read_label_map("initial", image.id), mask_of(number))
    assert streets.overlap == 2


def test_two_annotators_repair_the_masks(running, given, streets, second, tmp_path):
    demo, _ = running
    with demo.store.reading() as session:
        asked = session.scalars(
            select(Query.id).join(Superpixel).where(Query.round.has(project_id=streets.id))
        ).all()

    # One of two annotators errs once; what they disagree about is asked again, and settled.
    wrong = answer_wrongly(demo, second, streets)
    answer_queries(demo.store, second, streets.id, len(asked) - 1)
    answer_queries(demo.store, demo.client, streets.id, 10 * len(asked))
    wait_for(lambda: answers(demo, streets) >= 2 * len(asked))

    def settled() -> bool:
        answer_queries(demo.store, demo.client, streets.id, 1)
        with demo.store.reading() as session:
            third = select(Query.id).where(Query.superpixel_id == wrong, Query.adjudication)
            asked_again = session.scalars(third).all()
        return len(asked_again) == 1 and answers(demo, streets) > 2 * len(asked)

    wait_for(settled)
    wait_for(lambda: not disputed(demo, streets))
    agreed = json.loads(alc(demo, "answers", "agreement", "--json", "--project", "streets"))
    assert agreed["overlap"] == 2
    assert agreed["disputed"] == 0

    # The release: corrected masks, the list of changes, statistics by class, and the data card.
    release = tmp_path / "release"
    alc(demo, "export", str(release), "--project", "streets")
    alc(demo, "export", str(release), "--project", "streets", "--verify")
    right = expected(demo, streets)
    for sample in open_dataset(release).samples():
        assert np.array_equal(sample.labels, right.pop(sample.key))
    assert not right
    with (release / "changes.csv").open(encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert {row["image"] for row in rows} == {KEYS[0]}  # accepting changed nothing elsewhere
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
