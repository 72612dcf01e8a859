"""The tables of a report: of simulations by oracle, or of the rounds of a live project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from alc_backend.common.types import Json
from alc_backend.simulate import figures, published
from alc_backend.simulate.figures import Column, Figure

TITLES = {
    "data_miou": "data mIoU", "precision": "precision", "recall": "recall",
    "model_miou": "model mIoU", "accept_rate": "accepted", "model_share": "of supervised",
}  # fmt: skip

GOAL_TITLE = f"{100 * figures.GOAL:.0f} % of supervised after clicks (normalised)"

RANKED = ("data_miou", "model_miou", "recall", "model_share")
"""The figures whose best value in a column is marked."""


class Cell(NamedTuple):
    """The text of a cell, and whether it is the best of its column or line."""

    text: str
    best: bool = False


class Table(NamedTuple):
    """A table of the page."""

    caption: str
    header: list[str]
    rows: list[list[Cell]]


def tables(document: Json) -> list[Table]:
    """A table for each oracle of a simulation, or one of the rounds of a live project."""
    if document["kind"] != "simulation":
        return [_rounds(document["rows"][0])]
    by_oracle = figures.by_oracle(document["rows"])
    if figures.is_by_hours(document["rows"]):
        return [_by_hours(oracle, rows) for oracle, rows in by_oracle.items()]
    paper = published.columns(document)
    return [_compared(oracle, rows, paper) for oracle, rows in by_oracle.items()]


def _compared(
    oracle: str, rows: Mapping[str, Sequence[Json]], paper: Mapping[str, Mapping[str, str]]
) -> Table:
    """The table of one oracle, from its rows by label, beside the columns of the ``paper``."""
    every = [*chain.from_iterable(rows.values())]
    columns = [
        *figures.quality_columns(every),
        *(Column(name) for name in ("precision", "recall", "accept_rate", "model_miou")),
        *figures.share_columns(every),
    ]
    goal = [GOAL_TITLE] if figures.is_relative(every) else []
    values = {label: [column.of(members) for column in columns] for label, members in rows.items()}
    best = [
        _best([line[index] for line in values.values()]) if column.name in RANKED else None
        for index, column in enumerate(columns)
    ]
    lines = []
    for label, line in values.items():
        cells = [_cell(value, top) for value, top in zip(line, best, strict=True)]
        theirs = [Cell(column.get(label, "–")) for column in paper.values()]
        clicks = [Cell(figures.clicks_to_goal(rows[label]))] if goal else []
        hours = Cell(figures.hours(rows[label]))
        lines.append([Cell(label), *cells, *clicks, hours, *theirs])
    header = ["row", *(_header(column) for column in columns), *goal, "hours", *paper]
    return Table(_caption(oracle), header, lines)


def _by_hours(oracle: str, rows: Mapping[str, Sequence[Json]]) -> Table:
    """The table of one oracle by hours of work: a line for each, then what was asked in all."""
    lines = [
        [Cell(name), *(_cell(value, _best(values)) for value in values)]
        for name, values in figures.lines_by_hours(rows.values())
    ]
    for name, *found in zip(figures.COUNTS, *map(figures.counts, rows.values()), strict=True):
        lines.append([Cell(name), *map(Cell, found)])
    return Table(_caption(oracle), ["data mIoU after", *rows], lines)


def _caption(oracle: str) -> str:
    return f"Oracle {oracle}: percent, mean ± standard deviation over the seeds"


def _cell(value: Figure | None, top: float | None) -> Cell:
    """The cell of a value, of a column or line whose best one is ``top``."""
    return Cell("–") if value is None else Cell(str(value), value.mean == top)


def _best(values: Sequence[Figure | None]) -> float | None:
    return max((value.mean for value in values if value is not None), default=None)


def _header(column: Column) -> str:
    title = TITLES[column.name]
    if column.answers is None:
        return title
    if column.share is None:
        return f"{title} after {column.answers}"
    return f"{title} at {100 * column.share:.0f} % ({column.answers})"


def _rounds(row: Json) -> Table:
    names = ("data_miou", "model_miou", "accept_rate")
    lines = [
        [
            Cell("before" if point["round"] == 0 else f"round {point['round']}"),
            Cell(str(point["answers"])),
            *(Cell("–" if point[name] is None else f"{100 * point[name]:.1f}") for name in names),
            Cell("–" if point["hours"] is None else f"{point['hours']:.2f}"),
        ]
        for point in row["rounds"]
    ]
    header = ["when", "answers", *(TITLES[name] for name in names), "hours"]
    return Table("The rounds, in percent", header, lines)
