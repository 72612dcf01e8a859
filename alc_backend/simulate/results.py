"""The results of a simulation: the document that is saved, and the tables in the terminal."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from itertools import chain

from rich.table import Table

from alc_backend.common.types import Json
from alc_backend.common.version import __version__
from alc_backend.simulate import figures, published
from alc_backend.simulate.figures import Column
from alc_backend.simulate.plans import Planned
from alc_backend.simulate.scenes import Scenes

LIBRARIES = ("torch", "segmentation-models-pytorch", "timm", "numpy", "scikit-image")

TITLES = {"data_miou": "data mIoU", "recall": "recall", "model_miou": "model mIoU",
          "model_share": "of supervised"}  # fmt: skip

GOAL_TITLE = f"{100 * figures.GOAL:.0f} % of supervised\nafter clicks (normalised)"


def document(
    scenes: Scenes, settings: Json, planned: Sequence[Planned], rows: Sequence[Json]
) -> Json:
    """Everything about a simulation as JSON types; ``rows`` in the order of ``planned``."""
    shown = rows[0]["examples"] if rows else []
    return {
        "kind": "simulation",
        "settings": settings,
        "versions": {
            "alc-backend": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES},
        },
        "dataset": {
            "digest": scenes.digest,
            "images": len(scenes.keys),
            "validation_images": len(scenes.held_out),
            "superpixels": scenes.superpixel_count,
            "classes": scenes.classes,
            "left_out": scenes.problems,
        },
        "rows": figures.relative(
            {"label": plan.label, **{name: row[name] for name in row if name != "examples"}}
            for plan, row in zip(planned, rows, strict=True)
        ),
        "examples": [{**example, "label": planned[0].label} for example in shown],
    }


def tables(found: Json) -> list[Table]:
    """A table for each oracle: mean ± standard deviation over the seeds, in percent."""
    by_oracle = figures.by_oracle(found["rows"])
    if figures.is_by_hours(found["rows"]):
        return [_hours_table(oracle, rows) for oracle, rows in by_oracle.items()]
    paper = published.columns(found)
    return [_table(oracle, rows, paper) for oracle, rows in by_oracle.items()]


def _table(
    oracle: str, rows: Mapping[str, Sequence[Json]], paper: Mapping[str, Mapping[str, str]]
) -> Table:
    """The table of one oracle, from its rows by label, beside the columns of the ``paper``."""
    every = [*chain.from_iterable(rows.values())]
    columns = [
        *figures.quality_columns(every),
        Column("recall"),
        Column("model_miou"),
        *figures.share_columns(every),
    ]
    goal = [GOAL_TITLE] if figures.is_relative(every) else []
    table = _empty(oracle, rows, ["row", *map(_header, columns), *goal, "hours", *paper])
    for label, members in rows.items():
        cells = [column.of(members) for column in columns]
        shown = ["–" if cell is None else str(cell) for cell in cells]
        theirs = [column.get(label, "–") for column in paper.values()]
        clicks = [figures.clicks_to_goal(members)] if goal else []
        table.add_row(label, *shown, *clicks, figures.hours(members), *theirs)
    return table


def _hours_table(oracle: str, rows: Mapping[str, Sequence[Json]]) -> Table:
    """The table of one oracle: a line for each of the hours, a column for each label.

    Below the data mIoU stands what was asked until the last hour.
    """
    table = _empty(oracle, rows, ["data mIoU after", *rows])
    for name, line in figures.lines_by_hours(rows.values()):
        table.add_row(name, *("–" if value is None else str(value) for value in line))
    table.add_section()
    for name, *found in zip(figures.COUNTS, *map(figures.counts, rows.values()), strict=True):
        table.add_row(name, *found)
    return table


def _empty(oracle: str, rows: Mapping[str, Sequence[Json]], headers: Sequence[str]) -> Table:
    """A table without lines; where it is too wide for a terminal, its cells are folded, not cut."""
    seeds = len(next(iter(rows.values())))
    table = Table(title=f"oracle {oracle}, {seeds} seed{'s' if seeds > 1 else ''}")
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if index else "left", overflow="fold")
    return table


def _header(column: Column) -> str:
    title = TITLES[column.name]
    if column.answers is None:
        return title
    if column.share is None:
        return f"{title}\nafter {column.answers}"
    return f"{title}\n{100 * column.share:.0f} % ({column.answers})"
