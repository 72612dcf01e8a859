"""The plots of a report, each with the table of its numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from alc_backend.common.files import write_csv
from alc_backend.common.types import Json
from alc_backend.simulate import figures
from alc_backend.simulate.oracle import ORACLES

matplotlib.rcdefaults()  # it reads settings from the folder that it runs in: a dataset's, perhaps
matplotlib.rcParams["text.parse_math"] = False  # a $ in a name is a $


QUALITIES = {
    "data_miou": ("Label maps", "data mIoU", "how good the label maps are after so many answers"),
    "model_miou": ("Network", "model mIoU", "how good a network trained on them is"),
    "model_share": (
        "Share of the supervised network",
        "model mIoU / supervised model mIoU",
        "how near a network trained on them comes to one trained on the ground truth",
    ),
    "recall": ("Found mistakes", "recall", "share of the wrong pixels that were asked about"),
    "precision": ("Precision", "precision", "share of the asked pixels that were wrong"),
}
"""The qualities that are plotted over the answers: title, label of the axis, explanation."""

DPI = 110


@dataclass(frozen=True)
class Plot:
    """A figure with the name of its files, a title, an explanation, and its numbers.

    The first row of ``numbers`` is the header.
    """

    name: str
    title: str
    note: str
    figure: Figure
    numbers: list[list[Any]]

    def png(self) -> bytes:
        """The bytes of the figure as a PNG; equal numbers give equal bytes."""
        content = io.BytesIO()
        FigureCanvasAgg(self.figure).print_figure(
            content, dpi=DPI, format="png", metadata={"Software": None}, bbox_inches="tight"
        )
        return content.getvalue()

    def data_url(self) -> str:
        """The PNG as a URL that contains it."""
        return "data:image/png;base64," + base64.b64encode(self.png()).decode()

    def write(self, folder: Path) -> None:
        """Write ``NAME.png`` and ``NAME.csv``."""
        (folder / f"{self.name}.png").write_bytes(self.png())
        write_csv(folder / f"{self.name}.csv", self.numbers)


def curves(rows: Sequence[Json], quality: str) -> Plot | None:
    """A quality over the answers: a line for each label, its spread over the seeds as a band.

    There is a panel for each oracle, with bars instead of lines where the quality is known at one
    number of answers only. The supervised network is a level line, beside GOAL of it. Where label
    correction stands beside active learning, another line has its clicks normalised by Theorem
    3.1. None when no row has the quality.
    """
    measured = _measured(rows, quality)
    if quality not in MODEL:
        return _drawn(quality, *QUALITIES[quality], measured, "answers")
    supervised = {
        (row["oracle"], row["label"]) for row in rows if row.get("method") == figures.SUPERVISED
    }
    lines = {group: known for group, known in measured.items() if group not in supervised}
    if not all(map(figures.is_corrected, _by_group(rows).values())):
        lines |= _normalised(rows, quality)
    levels = {group: known for group, known in measured.items() if group in supervised}
    return _drawn(quality, *QUALITIES[quality], lines, "answers", levels)


def curves_by_hours(rows: Sequence[Json]) -> Plot | None:
    """The data mIoU over the hours of work, drawn as :func:`curves` draws it over the answers.

    Every row was measured by hours.
    """
    measured = {
        (oracle, label): [
            (hours, value)
            for hours, value in figures.by_hours(members).items()
            if value is not None
        ]
        for oracle, labels in figures.by_oracle(rows).items()
        for label, members in labels.items()
    }
    note = "how good the label maps are after so many hours of work"
    return _drawn("data_miou", "Label maps", "data mIoU", note, measured, "hours")


MODEL = ("model_miou", "model_share")
"""The qualities of networks, which a supervised network is the measure of."""

Measured = Mapping[tuple[str, str], Sequence[tuple[float, figures.Figure]]]
"""A quality by oracle and label: its values after how many answers or hours, at least one."""


def _drawn(
    name: str,
    title: str,
    axis: str,
    note: str,
    measured: Measured,
    over: str,
    levels: Measured | None = None,
) -> Plot | None:
    """The plot of a quality over the answers or the hours; None when nothing was measured.

    ``levels`` are the supervised networks', which depend on neither.
    """
    every = {**measured, **(levels or {})}
    if not every:
        return None
    if all(len(known) == 1 for known in measured.values()):
        figure = _mean_bars(every, axis)
    else:
        figure = _mean_lines(measured, axis, over, levels or {})
    numbers: list[list[Any]] = [["oracle", "label", over, "mean", "std", "seeds"]]
    numbers += [
        [oracle, label, after, value.mean, value.spread, value.count]
        for (oracle, label), known in every.items()
        for after, value in known
    ]
    return Plot(name, title, note, figure, numbers)


def _measured(rows: Sequence[Json], quality: str) -> Measured:
    values = {
        (oracle, label): [
            (answers, value)
            for answers, _ in figures.points(members)
            if (value := figures.at(members, answers, quality)) is not None
        ]
        for oracle, labels in figures.by_oracle(rows).items()
        for label, members in labels.items()
    }
    return {group: known for group, known in values.items() if known}


def _by_group(rows: Sequence[Json]) -> dict[tuple[str, str], list[Json]]:
    """The rows in which anything is asked, by oracle and label."""
    asked = [row for row in rows if row.get("method") != figures.SUPERVISED]
    return {
        (oracle, label): members
        for oracle, labels in figures.by_oracle(asked).items()
        for label, members in labels.items()
    }


def _normalised(rows: Sequence[Json], quality: str) -> Measured:
    """The quality of corrected label maps over what their answers cost in classifications.

    It is of those that are measured at several numbers of answers.
    """
    found = {
        (oracle, f"{label} (normalised)"): [
            (figures.normalised(members, answers), value)
            for answers, _ in figures.points(members)
            if (value := figures.at(members, answers, quality)) is not None
        ]
        for (oracle, label), members in _by_group(rows).items()
        if figures.is_corrected(members)
    }
    return {group: known for group, known in found.items() if len(known) > 1}


def _panels(measured: Measured) -> tuple[Figure, dict[str, Any]]:
    """A figure with a panel for each oracle, and the panels by oracle."""
    oracles = list(dict.fromkeys(oracle for oracle, _ in measured))
    figure = Figure(figsize=(6.4 * len(oracles), 4.4), layout="constrained")
    row = figure.subplots(1, len(oracles), sharey=True, squeeze=False)[0]
    panels = dict(zip(oracles, row, strict=True))
    for oracle, panel in panels.items():
        panel.set_title(f"oracle {oracle}" if oracle in ORACLES else oracle, fontsize=10)
        panel.grid(alpha=0.3)
    return figure, panels


def _mean_bars(measured: Measured, axis: str) -> Figure:
    figure, panels = _panels(measured)
    for (oracle, label), ((_, value),) in measured.items():
        panels[oracle].barh(label, value.mean, xerr=value.spread or None, color="tab:blue")
    for panel in panels.values():
        panel.set_xlabel(axis)
    next(iter(panels.values())).invert_yaxis()
    return figure


def _mean_lines(measured: Measured, axis: str, over: str, levels: Measured) -> Figure:
    figure, panels = _panels({**measured, **levels})
    for (oracle, label), known in measured.items():
        panel = panels[oracle]
        after = [count for count, _ in known]
        mean = np.array([value.mean for _, value in known])
        spread = np.array([value.spread or 0.0 for _, value in known])
        style = ("-", "--", ":")[len(panel.lines) // 10 % 3]
        (line,) = panel.plot(after, mean, marker="o", markersize=3, label=label, linestyle=style)
        colour = line.get_color()
        panel.fill_between(after, mean - spread, mean + spread, color=colour, alpha=0.15)
    for panel in panels.values():
        panel.set_xlabel(over)
        panel.set_ylabel(axis)
    first = next(iter(panels.values()))
    for (oracle, label), ((_, value), *_) in levels.items():
        goal = f"{100 * figures.GOAL:.0f} % of {label}"
        panels[oracle].axhline(value.mean, color="gray", linewidth=1, label=label)
        panels[oracle].axhline(
            figures.GOAL * value.mean, color="gray", linestyle="--", linewidth=1, label=goal
        )
    figure.legend(*first.get_legend_handles_labels(), fontsize=8, loc="outside right center")
    return figure
