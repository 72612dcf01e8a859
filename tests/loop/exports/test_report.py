"""The report of a live project: its rounds, what answers changed, the images changed most."""

from __future__ import annotations

import csv
import re
import shutil

import pytest

from alc_backend.common.style import base_style
from alc_backend.core import metrics
from alc_backend.loop.exports import report
from alc_backend.simulate.report import page
from alc_backend.store.models import Round
from tests.annotations import (
    answer,
    arrive,
    asked_project,
    created,
    label_map,
    label_studio_of,
    task_of,
)
from tests.conftest import BOTH_DATABASES, CLASSES
from tests.pages import add_page, say_to_page

SIZE = 16 * 24
"""Pixels of superpixel 2, a dog that is labelled cat."""


def answered(store, dataset):
    project_id = asked_project(store, dataset)
    label_studio = label_studio_of(store)
    for number, (key, superpixel, choice) in enumerate(
        (("a", 1, "cat"), ("a", 2, "dog"), ("b", 2, "dog"), ("c", 1, None)), start=1
    ):
        record = answer(number, task_of(store, key, superpixel), choice, minute=number)
        arrive(store, project_id, created(record), label_studio=label_studio)
    return project_id


@BOTH_DATABASES
def test_rounds_and_answers(store, dataset, tmp_path):
    project_id = answered(store, dataset)
    with store.session() as session:
        session.query(Round).update({"answers": 0, "data_miou": 0.4, "model_miou": 0.3})
    told = []
    found = report.document(store, project_id, lambda *news: told.append(news))
    first, last = found["rows"][0]["rounds"]
    assert (first["answers"], first["data_miou"], first["model_miou"]) == (0, 0.4, 0.3)
    assert last["answers"] == 3
    assert last["accept_rate"] == pytest.approx(1 / 3)
    assert last["hours"] == pytest.approx(4 * 2.5 / 3600)
    confusion = sum(
        metrics.confusion_matrix(
            store.files(project_id).read_label_map("ground_truth", image.id),
            label_map(store, project_id, image.key),
            len(CLASSES),
        )
        for image in store.images(project_id, "train")
    )
    assert last["data_miou"] == pytest.approx(metrics.mean_iou(confusion))
    assert found["moved"][CLASSES.index("cat")][CLASSES.index("dog")] == 2 * SIZE
    assert [example["key"] for example in found["examples"]] == ["b", "a"]
    assert [news[0] for news in told] == [0, 1, 2]
    page.write(found, "pets", tmp_path / "report")
    with (tmp_path / "report/changed.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert rows["dog"]["given"] == rows["cat"]["taken"] == str(2 * SIZE)
    with (tmp_path / "report/corrections.csv").open() as file:
        assert [*csv.reader(file)][1:] == [
            ["cat", "2", "0"], ["dog", "0", "2"], ["background", "0", "0"],
        ]  # fmt: skip
    with (tmp_path / "report/labels_gained.csv").open() as file:
        gains = {row["class"]: float(row["gained"]) for row in csv.DictReader(file)}
    cats = 3 * (256 + SIZE)
    assert gains == pytest.approx({"dog": 1, "cat": 2 * SIZE / cats, "background": 0})
    text = (tmp_path / "report/report.html").read_text()
    assert "pets" in text
    assert "40.0" in text
    assert (tmp_path / "report/repaired.png").exists()


def test_without_ground_truth_and_without_answers(store, dataset, tmp_path):
    shutil.rmtree(dataset / "ground_truth")
    project_id = asked_project(store, dataset)
    found = report.document(store, project_id)
    last = found["rows"][0]["rounds"][-1]
    assert (last["answers"], last["data_miou"], last["accept_rate"]) == (0, None, None)
    assert found["examples"] == []
    path = page.write(found, "pets", tmp_path / "report")
    assert "The rounds" in path.read_text()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["report.html"]


def test_pages_count_as_answers_and_hours_but_not_for_the_accept_rate(store, dataset):
    project_id = answered(store, dataset)
    page = add_page(store, project_id, [("b", 1), ("c", 2)])
    say_to_page(store, page, 20, {1}, minute=9, lead_time=8.0)
    last = report.document(store, project_id, lambda *news: None)["rows"][0]["rounds"][-1]
    assert last["answers"] == 4
    assert last["accept_rate"] == pytest.approx(1 / 3)
    assert last["hours"] == pytest.approx((4 * 2.5 + 8.0) / 3600)


def test_the_page_is_one_file_whose_sections_can_be_linked(store, dataset, tmp_path):
    found = report.document(store, answered(store, dataset))
    text = page.write(found, "pets", tmp_path / "report").read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    linked = set(re.findall(r'href="#([^"]+)"', text))
    assert linked == set(ids) >= {"table-1", "before-and-after", "settings"}
    assert set(re.findall(r'(?:src|href)="(?!#|data:)([^"]*)"', text)) == set()
    assert base_style() in text
    assert "<dt>pseudo labels accepted</dt>" in text
