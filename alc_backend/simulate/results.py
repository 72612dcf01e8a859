"""The results of a simulation: the document that is saved, and the tables in the terminal."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from itertools import chain

from rich.table import Table

from alc_backend.common.types import Json
from alc_backend.common.version import __version__
from alc_backend.simulate import figures
from alc_backend.simulate.figures import Column, Figure
from alc_backend.simulate.plans import Planned
from alc_backend.simulate.scenes import Scenes

LIBRARIES = ("torch", "segmentation-models-pytorch", "timm", "numpy", "scikit-image")

TITLES = {"data_miou": "data mIoU", "recall": "recall", "model_miou": "model mIoU"}


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
        "rows": [
            {"label": plan.label, **{name: row[name] for name in row if name != "examples"}}
            for plan, row in zip(planned, rows, strict=True)
        ],
        "examples": [{**example, "label": planned[0].label} for example in shown],
    }


def tables(found: Json) -> list[Table]:
    """A table for each oracle: mean ± standard deviation over the seeds, in percent."""
    shown = _hours_table if found.get("settings", {}).get("hours") else _table
    return [shown(oracle, rows) for oracle, rows in figures.by_oracle(found["rows"]).items()]


def _table(oracle: str, rows: Mapping[str, Sequence[Json]]) -> Table:
    """The table of one oracle, from its rows by label."""
    columns = [
        *figures.quality_columns(chain.from_iterable(rows.values())),
        Column("recall"),
        Column("model_miou"),
    ]
    table = Table("", title=_title(oracle, len(next(iter(rows.values())))))
    for column in columns:
        table.add_column(_header(column), justify="right")
    table.add_column("hours", justify="right")
    for label, members in rows.items():
        cells = [column.of(members) for column in columns]
        shown = ["–" if cell is None else str(cell) for cell in cells]
        table.add_row(label, *shown, figures.hours(members))
    return table


def _hours_table(oracle: str, rows: Mapping[str, Sequence[Json]]) -> Table:
    """The table of one oracle by hours of work, from its rows by label."""
    first = next(iter(rows.values()))
    table = Table("data mIoU after", title=_title(oracle, len(first)))
    for point in first[0]["by_hours"]:
        table.add_column(f"{point['hours']:g} h", justify="right")
    for name in ("answers", "pages", "tiles", "confirmed"):
        table.add_column(name, justify="right")
    for label, members in rows.items():
        points = list(zip(*(member["by_hours"] for member in members), strict=True))
        qualities = [Figure.of(point["data_miou"] for point in those) for those in points]
        counts = [
            Figure.of(float(point[name]) for point in points[-1])
            for name in ("answers", "pages", "tiles", "confirmed")
        ]
        table.add_row(
            label,
            *map(str, qualities),
            *(f"{count.mean:.0f}" if count else "–" for count in counts),
        )
    return table


def _title(oracle: str, seeds: int) -> str:
    return f"oracle {oracle}, {seeds} seed{'s' if seeds > 1 else ''}"


def _header(column: Column) -> str:
    title = TITLES[column.name]
    if column.answers is None:
        return title
    return f"{title}\n{100 * (column.share or 0):.0f} % ({column.answers})"
