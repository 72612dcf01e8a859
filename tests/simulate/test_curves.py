"""Figures 3, 7 and 8: label maps and networks, measured by a supervised network."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from alc_backend.simulate import figures, plans, results
from alc_backend.simulate.experiment import Experiment
from alc_backend.simulate.report import class_plots, page, plots
from alc_backend.simulate.runner import Runner
from tests.simulate.worlds import TRAINING, write_world

GOAL_COLUMN = "95 % of supervised after clicks (normalised)"


def row(label, method, seed, models, price=1.0):
    names = ("data_miou", "precision", "recall", "accept_rate", "hours", "hours_classifying")
    return {
        "label": label, "method": method, "oracle": "object", "seed": seed, "by_hours": [],
        "confusion_before": [], "confusion_after": [],
        "rounds": [
            {
                **dict.fromkeys(names), "round": n, "answers": 10 * n, "share": n / 10,
                "model_miou": model, "normalised_clicks": 10 * n * price,
            }
            for n, model in enumerate(models)
        ],
    }  # fmt: skip


@pytest.fixture
def document():
    rows = [
        row("ALC", "alc", 0, [0.40, 0.44, 0.50], 0.4),
        row("ALC", "alc", 1, [0.40, 0.46, 0.50], 0.4),
        row("Spx", "spx", 0, [None, 0.20, 0.30]),
        row("supervised", "supervised", 0, [0.5]),
    ]
    return {
        "kind": "simulation", "settings": {"shows": "figure 3"}, "versions": {}, "examples": [],
        "dataset": {
            "images": 2, "superpixels": 100, "validation_images": 3,
            "classes": ["background", "cat", "dog"], "left_out": [],
        },
        "rows": figures.relative(rows),
    }  # fmt: skip


def lines_of(plot):
    (panel,) = plot.figure.axes
    return {line.get_label(): line.get_xydata().tolist() for line in panel.lines}


def test_the_curve_of_label_correction_is_drawn_with_normalised_clicks_too(document):
    drawn = lines_of(plots.curves(document["rows"], "model_share"))
    assert drawn["ALC"] == [[0, pytest.approx(0.8)], [10, pytest.approx(0.9)], [20, 1]]
    assert drawn["ALC (normalised)"] == [[0, pytest.approx(0.8)], [4, pytest.approx(0.9)], [8, 1]]
    assert drawn["Spx"] == [[10, pytest.approx(0.4)], [20, pytest.approx(0.6)]]
    assert "Spx (normalised)" not in drawn
    alone = [row for row in document["rows"] if row["method"] != "spx"]
    assert "ALC (normalised)" not in lines_of(plots.curves(alone, "model_share"))


@pytest.mark.parametrize(("quality", "level"), [("model_share", 1.0), ("model_miou", 0.5)])
def test_the_supervised_network_is_a_level_line_beside_95_percent_of_it(document, quality, level):
    plot = plots.curves(document["rows"], quality)
    drawn = lines_of(plot)
    assert [y for _, y in drawn["supervised"]] == [level, level]
    assert [y for _, y in drawn["95 % of supervised"]] == pytest.approx([0.95 * level] * 2)
    assert ["object", "supervised", 0, level, None, 1] in plot.numbers
    (shown,) = plot.figure.legends
    assert {"supervised", "95 % of supervised"} <= {text.get_text() for text in shown.get_texts()}


def test_tables_tell_the_share_at_every_budget_and_the_clicks_to_95_percent(document, tmp_path):
    written = page.write(document, "title", tmp_path).read_text()
    assert "of supervised at 10 % (10)" in written
    assert "of supervised at 20 % (20)" in written
    assert GOAL_COLUMN in written
    assert ">15 (6)<" in written
    with (tmp_path / "model_share.csv").open() as file:
        assert ["object", "ALC (normalised)", "4.0"] in [line[:3] for line in csv.reader(file)]
    (table,) = results.tables(document)
    headers = [str(column.header).replace("\n", " ") for column in table.columns]
    assert headers[headers.index("of supervised 10 % (10)") + 1] == "of supervised 20 % (20)"
    cells = list(table.columns[headers.index(GOAL_COLUMN)].cells)
    assert cells == ["15 (6)", "–", "–"]


def test_with_other_superpixels_no_share_of_them_is_told(document, tmp_path):
    for made in document["rows"]:
        if made["method"] == "spx":
            for point in made["rounds"]:
                point["share"] /= 4
    written = page.write(document, "title", tmp_path).read_text()
    assert "data mIoU after 10<" in written
    assert "of supervised after 20<" in written
    (table,) = results.tables(document)
    headers = [str(column.header).replace("\n", " ") for column in table.columns]
    assert {"data mIoU after 20", "of supervised after 10"} <= set(headers)
    alone = [made for made in document["rows"] if made["method"] == "alc"]
    assert figures.points(alone) == [(0, 0.0), (10, 0.1), (20, 0.2)]


def test_what_reaches_95_percent_at_once_needs_no_click():
    rows = figures.relative(
        [row("ALC", "alc", 0, [0.49, 0.5]), row("supervised", "supervised", 0, [0.5])]
    )
    assert figures.clicks_to_goal(rows[:1]) == "0 (0)"


def test_without_a_supervised_network_nothing_is_compared_with_it(document):
    document["rows"] = [
        row("ALC", "alc", 0, [0.4, 0.5]), row("other", "alc", 0, [0.4, 0.6])
    ]  # fmt: skip
    (table,) = results.tables(document)
    assert not [column for column in table.columns if "supervised" in str(column.header)]
    assert set(lines_of(plots.curves(document["rows"], "model_miou"))) == {"ALC", "other"}
    assert plots.curves(document["rows"], "model_share") is None


@pytest.fixture
def corrected(document):
    """Two networks, trained on masks as they were given and as they were corrected."""
    rows = [row("given masks", "given", seed, [0.5]) for seed in (0, 1)]
    rows.append(row("corrected masks", "supervised", 0, [0.52]))
    for made, iou in zip(rows, ([0.9, 0.1, None], [0.9, 0.3, None], [0.8, 0.6, 0.2]), strict=True):
        made["rounds"][-1] |= {"model_class_iou": iou, "data_miou": 0.99}
        made["confusion_before"] = made["confusion_after"] = np.eye(3, 4).tolist()
    return {**document, "settings": {"shows": "figure 7"}, "rows": figures.relative(rows)}


def test_what_networks_gain_by_corrected_masks_class_by_class(corrected, tmp_path):
    written = page.write(corrected, "title", tmp_path).read_text()
    with (tmp_path / "networks_gained.csv").open() as file:
        _, *lines = csv.reader(file)
    assert [name for name, _ in lines] == ["cat", "background"]  # dogs were not measured twice
    assert [float(gain) for _, gain in lines] == pytest.approx([0.4, -0.1])
    assert "743 were corrected" in written
    assert "Most corrected classes" not in written
    (table,) = results.tables(corrected)
    columns = {
        str(column.header).replace("\n", " "): list(column.cells) for column in table.columns
    }
    assert columns["data mIoU"] == ["99.0 ±0.0", "99.0"]
    assert columns["of supervised"] == ["96.2 ±0.0", "100.0"]


def test_without_validation_images_no_network_gains(corrected):
    for made in corrected["rows"]:
        made["rounds"][-1]["model_class_iou"] = None
    assert class_plots.networks_gained(corrected["rows"], ["background", "cat", "dog"]) is None


def test_networks_are_trained_on_the_masks_as_they_are_and_as_they_were_corrected(tmp_path):
    data, _ = write_world(tmp_path)
    rows = plans.shown("table 5", Experiment(TRAINING, (5,)), ["object"], [0])
    found = Runner(data, data, tmp_path, jobs=1).run([row.experiment for row in rows], print)
    given, supervised = (result["rounds"] for result in found)
    assert [len(given), len(supervised)] == [1, 1]
    assert given[0]["data_miou"] < 1
    assert supervised[0]["data_miou"] == 1
    for point in (given[0], supervised[0]):
        assert point["answers"] == 0
        assert point["model_miou"] is not None
