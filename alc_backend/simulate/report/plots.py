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
from numpy.typing import NDArray

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
        "how near a network trained on them comes to one trained on the ground truth; the dashed "
        "line is 95 %",
    ),
    "recall": ("Found mistakes", "recall", "share of the wrong pixels that were asked about"),
    "precision": ("Precision", "precision", "share of the asked pixels that were wrong"),
}
"""The qualities that are plotted over the answers: title, label of the axis, explanation."""

SHOWN_CLASSES = 20
GOAL = 0.95
"""The share of the supervised mIoU at which the paper compares (Figure 3)."""

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
    number of answers only. None when no row has the quality.
    """
    return _drawn(quality, *QUALITIES[quality], _measured(rows, quality), "answers")


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


Measured = Mapping[tuple[str, str], Sequence[tuple[float, figures.Figure]]]
"""A quality by oracle and label: its values after how many answers or hours, at least one."""


def _drawn(
    name: str, title: str, axis: str, note: str, measured: Measured, over: str
) -> Plot | None:
    """The plot of a quality over the answers or the hours; None when nothing was measured."""
    if not measured:
        return None
    if all(len(known) == 1 for known in measured.values()):
        figure = _mean_bars(measured, axis)
    else:
        figure = _mean_lines(measured, axis, over)
    numbers: list[list[Any]] = [["oracle", "label", over, "mean", "std", "seeds"]]
    numbers += [
        [oracle, label, after, value.mean, value.spread, value.count]
        for (oracle, label), known in measured.items()
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


def _mean_lines(measured: Measured, axis: str, over: str) -> Figure:
    figure, panels = _panels(measured)
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
    if axis == QUALITIES["model_share"][1]:
        for panel in panels.values():
            panel.axhline(GOAL, color="gray", linestyle="--", linewidth=1)
    figure.legend(*first.get_legend_handles_labels(), fontsize=8, loc="outside right center")
    return figure


def class_iou(row: Json, classes: Sequence[str]) -> Plot | None:
    """The IoU of each class before the first and after the last answer; None when unknown."""
    first, last = row["rounds"][0].get("class_iou"), row["rounds"][-1].get("class_iou")
    if not first or not last:
        return None
    shown = [
        (name, before or 0.0, after or 0.0)
        for name, before, after in zip(classes, first, last, strict=True)
        if before is not None or after is not None
    ]
    shown.sort(key=lambda item: item[1] - item[2])
    figure = _bars(
        shown[:SHOWN_CLASSES], ("before", "after"), "IoU of the label maps", stacked=False
    )
    return Plot(
        "class_iou",
        "Each class before and after",
        f"{row['label']}: the classes that gained most first",
        figure,
        [["class", "before", "after"], *([*item] for item in shown)],
    )


def repaired(row: Json, classes: Sequence[str]) -> Plot | None:
    """The classes with most pixels put right; None without ground truth."""
    before, after = (np.array(row[f"confusion_{when}"]) for when in ("before", "after"))
    if before.size == 0:
        return None
    right = np.diagonal(after) - np.diagonal(before)
    left = after.sum(axis=1) - np.diagonal(after)
    order = np.argsort(-right, kind="stable")
    shown = [(classes[index], int(right[index]), int(left[index])) for index in order]
    figure = _bars(
        [item for item in shown if item[1] or item[2]][:SHOWN_CLASSES],
        ("put right", "still wrong"),
        "pixels",
        stacked=True,
    )
    return Plot(
        "repaired",
        "Most corrected classes",
        f"{row['label']}: pixels of each true class",
        figure,
        [["class", "put right", "still wrong"], *([*item] for item in shown)],
    )


def confusion(row: Json, classes: Sequence[str]) -> Plot | None:
    """The labels of each true class, before and after; None without ground truth."""
    matrices = [np.array(row[f"confusion_{when}"], dtype=float) for when in ("before", "after")]
    if matrices[0].size == 0:
        return None
    present = [index for index in range(len(classes)) if matrices[0][index].sum() > 0]
    used = [
        index
        for index in range(len(classes))
        if index in present or any(matrix[:, index].sum() > 0 for matrix in matrices)
    ]
    shares = [_shares(matrix)[np.ix_(present, used)] for matrix in matrices]
    rows, columns = [classes[index] for index in present], [classes[index] for index in used]
    figure = _heat(shares, ("before", "after"), rows, columns, "true class", "labelled as")
    numbers = [["when", "true class", *columns]]
    for when, share in zip(("before", "after"), shares, strict=True):
        numbers += [
            [when, name, *values] for name, values in zip(rows, share.tolist(), strict=True)
        ]
    note = f"{row['label']}: share of each true class's pixels"
    return Plot("confusion", "Confusion before and after", note, figure, numbers)


def moved(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[Plot]:
    """The changes that answers made, for which no truth need be known; none without a change.

    ``matrix`` int64 (C, C + 1) counts pixels by first class and present class.
    """
    changed = matrix[:, : len(classes)].astype(np.int64).copy()
    np.fill_diagonal(changed, 0)
    if not changed.any():
        return []
    left, gained = changed.sum(axis=1), changed.sum(axis=0)
    order = np.argsort(-(left + gained), kind="stable")
    shown = [(classes[index], int(left[index]), int(gained[index])) for index in order]
    bars = _bars(
        [item for item in shown if item[1] or item[2]][:SHOWN_CLASSES],
        ("taken from the class", "given to the class"),
        "pixels",
        stacked=False,
    )
    present = [index for index in range(len(classes)) if left[index] + gained[index] > 0]
    names = [classes[index] for index in present]
    part = changed[np.ix_(present, present)]
    heat = _heat([part / max(int(part.sum()), 1)], ("",), names, names, "first label", "label now")
    return [
        Plot(
            "changed", "Most changed classes", "pixels that answers changed", bars,
            [["class", "taken", "given"], *([*item] for item in shown)],
        ),
        Plot(
            "moves", "From which class to which", "share of all changed pixels", heat,
            [["first label", *names], *([name, *values] for name, values in
                                        zip(names, part.tolist(), strict=True))],
        ),
    ]  # fmt: skip


def _shares(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return shares


def _bars(
    shown: Sequence[tuple[str, float, float]],
    names: tuple[str, str],
    axis: str,
    *,
    stacked: bool,
) -> Figure:
    figure = Figure(figsize=(7.5, 1.0 + 0.28 * max(len(shown), 3)), layout="constrained")
    panel = figure.subplots()
    positions = np.arange(len(shown))
    first, second = (np.array([item[part] for item in shown]) for part in (1, 2))
    if stacked:
        panel.barh(positions, first, label=names[0], color="tab:green")
        panel.barh(positions, second, left=first, label=names[1], color="tab:red", alpha=0.6)
    else:
        panel.barh(positions - 0.2, first, 0.38, label=names[0], color="tab:gray")
        panel.barh(positions + 0.2, second, 0.38, label=names[1], color="tab:green")
    panel.set_yticks(positions, [item[0] for item in shown])
    panel.invert_yaxis()
    panel.set_xlabel(axis)
    panel.grid(axis="x", alpha=0.3)
    panel.legend(fontsize=8)
    return figure


def _heat(
    matrices: Sequence[NDArray[Any]],
    titles: Sequence[str],
    rows: Sequence[str],
    columns: Sequence[str],
    row_axis: str,
    column_axis: str,
) -> Figure:
    width = 1.5 + 0.27 * len(columns)
    figure = Figure(
        figsize=(width * len(matrices) + 1.2, 1.6 + 0.25 * len(rows)), layout="constrained"
    )
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    top = max(float(matrix.max()) for matrix in matrices)
    for panel, matrix, title in zip(panels, matrices, titles, strict=True):
        drawn = panel.imshow(matrix, cmap="viridis", vmin=0, vmax=top or 1, aspect="auto")
        panel.set_title(title, fontsize=10)
        panel.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
        panel.set_yticks(range(len(rows)), rows, fontsize=7)
        panel.set_xlabel(column_axis)
        panel.set_ylabel(row_axis)
    figure.colorbar(drawn, ax=list(panels), shrink=0.8)
    return figure
