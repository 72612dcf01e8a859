"""What is shown of a simulation by hours of work: in the terminal, and on the page of a report."""

from __future__ import annotations

import csv

import pytest

from alc_backend.simulate import results
from alc_backend.simulate.report import documents, page, plots
from alc_backend.simulate.report.tables import tables

QUALITIES = {"mixed": (0.5, 0.7), "single, default": (0.4, 0.6)}


def row(label, oracle, seed):
    points = [
        {"hours": hours, "data_miou": quality + seed / 10, "answers": 10 * hours, "pages": 3,
         "tiles": 30, "confirmed": 40 + seed}
        for hours, quality in zip((0.5, 1), QUALITIES[label], strict=True)
    ]  # fmt: skip
    rounds = [
        {"answers": answers, "share": 0.0, "data_miou": 0.3, "recall": 0.1, "model_miou": None,
         "hours": 1.0, "precision": None, "accept_rate": None, "class_iou": [0.2, None]}
        for answers in (0, 40 + seed)
    ]  # fmt: skip
    confusion = [[4, 1, 0], [0, 3, 0]]
    return {
        "label": label, "oracle": oracle, "seed": seed, "by_hours": points, "rounds": rounds,
        "confusion_before": confusion, "confusion_after": confusion,
    }  # fmt: skip


@pytest.fixture
def document():
    rows = [
        row(label, oracle, seed)
        for label in QUALITIES for oracle in ("object", "pixel") for seed in (0, 1)
    ]  # fmt: skip
    dataset = {
        "images": 2, "superpixels": 50, "validation_images": 0, "classes": ["a", "b"],
        "left_out": [],
    }  # fmt: skip
    return {
        "kind": "simulation", "settings": {}, "versions": {}, "dataset": dataset,
        "rows": rows, "examples": [],
    }  # fmt: skip


SHOWN = {
    "0.5 h": ["55.0 ±7.1", "45.0 ±7.1"],
    "1 h": ["75.0 ±7.1", "65.0 ±7.1"],
    "answers": ["10", "10"],
    "pages": ["3", "3"],
    "tiles": ["30", "30"],
    "confirmed": ["40", "40"],
}


def test_the_terminal_shows_a_line_for_each_of_the_hours(document):
    shown = results.tables(document)
    assert [table.title for table in shown] == ["oracle object, 2 seeds", "oracle pixel, 2 seeds"]
    for table in shown:
        headers = [column.header for column in table.columns]
        assert headers == ["data mIoU after", "mixed", "single, default"]
        lines = zip(*(column.cells for column in table.columns), strict=True)
        assert {name: cells for name, *cells in lines} == SHOWN


def test_the_page_shows_a_line_for_each_of_the_hours(document):
    shown = tables(document)
    assert len(shown) == 2
    for table in shown:
        assert table.header == ["data mIoU after", "mixed", "single, default"]
        assert {line[0].text: [cell.text for cell in line[1:]] for line in table.rows} == SHOWN
        assert [[cell.best for cell in line] for line in table.rows[:2]] == [
            [False, True, False]
        ] * 2


def test_the_page_draws_the_hours(document, tmp_path):
    page.write(document, "hours", tmp_path)
    with (tmp_path / "data_miou.csv").open() as file:
        header, *lines = csv.reader(file)
    assert header == ["oracle", "label", "hours", "mean", "std", "seeds"]
    assert [line[:3] for line in lines[:2]] == [
        ["object", "mixed", "0.5"],
        ["object", "mixed", "1"],
    ]
    assert [float(line[3]) for line in lines[:2]] == pytest.approx([0.55, 0.75])
    assert len(lines) == 8
    assert (tmp_path / "data_miou.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "recall.png").exists()  # known before and after, not by hours


def test_the_axis_says_that_it_is_hours(document):
    drawn = plots.curves_by_hours(document["rows"])
    assert {axes.get_xlabel() for axes in drawn.figure.axes} == {"hours"}


def test_results_at_other_hours_stand_in_lines_of_their_own(document):
    other = {**document, "rows": [row("mixed", "object", seed) for seed in (0, 1)]}
    for of_seed in other["rows"]:
        of_seed["by_hours"][0]["hours"] = 0.25
    found = documents.together([("quick", document), ("slow", other)])
    (first, _) = tables(found)
    assert first.header == ["data mIoU after", "mixed (quick)", "single, default", "mixed (slow)"]
    cells = {line[0].text: [cell.text for cell in line[1:]] for line in first.rows}
    assert cells["0.25 h"] == ["–", "–", "55.0 ±7.1"]
    assert cells["0.5 h"] == ["55.0 ±7.1", "45.0 ±7.1", "–"]
    assert cells["1 h"] == ["75.0 ±7.1", "65.0 ±7.1", "75.0 ±7.1"]
    (terminal, _) = results.tables(found)
    assert list(terminal.columns[3].cells)[:3] == ["55.0 ±7.1", "–", "75.0 ±7.1"]
