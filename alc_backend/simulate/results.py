"""The results of a simulation: the document that is kept, and the table that is shown."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from statistics import mean, stdev

from rich.table import Table

from alc_backend.common.types import Json
from alc_backend.common.version import __version__
from alc_backend.simulate.plans import Planned
from alc_backend.simulate.scenes import Scenes

LIBRARIES = ("torch", "segmentation-models-pytorch", "timm", "numpy", "scikit-image")


@dataclass(frozen=True)
class Figure:
    """A value over the seeds; ``spread`` is the sample standard deviation, None for one seed."""

    mean: float
    spread: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Figure | None:
        """The figure of the values that are known; None without any."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(mean(known), stdev(known) if len(known) > 1 else None, len(known))

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ±{100 * self.spread:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


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


def grouped(rows: Sequence[Json]) -> dict[tuple[str, str], list[Json]]:
    """Rows by oracle and label, that is: the seeds of each row of the table."""
    found: dict[tuple[str, str], list[Json]] = {}
    for row in rows:
        found.setdefault((row["oracle"], row["label"]), []).append(row)
    return found


def points(rows: Sequence[Json]) -> list[tuple[int, float | None]]:
    """After how many answers, and what share of the superpixels, any of the rows was measured."""
    found = {point["answers"]: point.get("share") for row in rows for point in row["rounds"]}
    return sorted(found.items())


def at(rows: Sequence[Json], answers: int, name: str) -> Figure | None:
    """The figure ``name`` after so many answers, of the rows that were measured then."""
    return Figure.of(
        [{point["answers"]: point[name] for point in row["rounds"]}.get(answers) for row in rows]
    )


def last(rows: Sequence[Json], name: str) -> Figure | None:
    """The figure ``name`` at the end of each row."""
    return Figure.of([row["rounds"][-1][name] for row in rows])


def tables(found: Json) -> list[Table]:
    """A table for each oracle: mean ± standard deviation over the seeds, in percent."""
    shown: dict[str, Table] = {}
    columns = {
        oracle: [
            point
            for point in points([row for row in found["rows"] if row["oracle"] == oracle])
            if point[0] > 0
        ]
        for oracle in {row["oracle"] for row in found["rows"]}
    }
    for (oracle, label), rows in grouped(found["rows"]).items():
        if oracle not in shown:
            title = f"oracle {oracle}, {len(rows)} seed{'s' if len(rows) > 1 else ''}"
            shown[oracle] = Table(title=title)
            shown[oracle].add_column("")
            for answers, share in columns[oracle]:
                shown[oracle].add_column(
                    f"data mIoU\n{100 * (share or 0):.0f} % ({answers})", justify="right"
                )
            for name in ("recall", "model mIoU", "hours"):
                shown[oracle].add_column(name, justify="right")
        hours = last(rows, "hours")
        cells = [at(rows, answers, "data_miou") for answers, _ in columns[oracle]]
        cells += [last(rows, name) for name in ("recall", "model_miou")]
        shown[oracle].add_row(
            label,
            *("–" if cell is None else str(cell) for cell in cells),
            "–" if hours is None else f"{hours.mean:.2f}",
        )
    return list(shown.values())
