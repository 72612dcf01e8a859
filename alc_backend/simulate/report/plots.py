"""The plots of a report; each knows its own table of numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
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
from alc_backend.simulate.oracle import ORACLES
from alc_backend.simulate.results import at, grouped
from alc_backend.simulate.results import points as measured

matplotlib.rcParams["text.parse_math"] = False  # a $ in a name is a $


QUALITIES = {
    "data_miou": ("Label maps", "data mIoU", "how good the label maps are after so many answers"),
    "model_miou": ("Network", "model mIoU", "how good a network trained on them is"),
    "recall": ("Found mistakes", "recall", "share of the wrong pixels that were asked about"),
    "precision": ("Precision", "precision", "share of the asked pixels that were wrong"),
}
"""What is drawn over the answers: title, axis, explanation."""

SHOWN_CLASSES = 20
DPI = 110


@dataclass(frozen=True)
class Plot:
    """A figure with its name (of the files), title, explanation, and numbers: a header, rows."""

    name: str
    title: str
    note: str
    figure: Figure
    numbers: list[list[Any]]

    def png(self) -> bytes:
        """The figure as an image; equal numbers give equal bytes."""
        content = io.BytesIO()
        FigureCanvasAgg(self.figure).print_figure(
            content, dpi=DPI, format="png", metadata={"Software": None}, bbox_inches="tight"
        )
        return content.getvalue()

    def data_url(self) -> str:
        """The image as part of a page."""
        return "data:image/png;base64," + base64.b64encode(self.png()).decode()

    def write(self, folder: Path) -> None:
        """Write ``NAME.png`` and ``NAME.csv``."""
        (folder / f"{self.name}.png").write_bytes(self.png())
        write_csv(folder / f"{self.name}.csv", self.numbers)


def curves(rows: Sequence[Json], quality: str) -> Plot | None:
    """A quality over the answers: a line for each label, its spread over the seeds as a band.

    One panel for each oracle; bars where it is known at one point only. None when no row knows it.
    """
    title, axis, note = QUALITIES[quality]
    numbers: list[list[Any]] = [["oracle", "label", "answers", "mean", "std", "seeds"]]
    groups = grouped(rows)
    oracles = list(dict.fromkeys(oracle for oracle, _ in groups))
    points = {
        group: [
            (answers, value)
            for answers, _ in measured(members)
            if (value := at(members, answers, quality)) is not None
        ]
        for group, members in groups.items()
    }
    points = {group: known for group, known in points.items() if known}
    if not points:
        return None
    figure = Figure(figsize=(6.4 * len(oracles), 4.4), layout="constrained")
    panels = figure.subplots(1, len(oracles), sharey=True, squeeze=False)[0]
    once = all(len(known) == 1 for known in points.values())
    for (oracle, label), known in points.items():
        panel = panels[oracles.index(oracle)]
        mean = np.array([value.mean for _, value in known])
        spread = np.array([value.spread or 0.0 for _, value in known])
        if once:
            panel.barh(label, mean, xerr=spread if spread.any() else None, color="tab:blue")
        else:
            style = ("-", "--", ":")[len(panel.lines) // 10 % 3]
            x = [answers for answers, _ in known]
            (line,) = panel.plot(x, mean, marker="o", markersize=3, label=label, linestyle=style)
            panel.fill_between(x, mean - spread, mean + spread, color=line.get_color(), alpha=0.15)
        numbers += [
            [oracle, label, answers, value.mean, value.spread, value.count]
            for answers, value in known
        ]
    for panel, oracle in zip(panels, oracles, strict=True):
        panel.set_title(f"oracle {oracle}" if oracle in ORACLES else oracle, fontsize=10)
        panel.grid(alpha=0.3)
        panel.set_xlabel(axis if once else "answers")
        if not once:
            panel.set_ylabel(axis)
    if once:
        panels[0].invert_yaxis()
    else:
        panels[0].figure.legend(
            *panels[0].get_legend_handles_labels(), fontsize=8, loc="outside right center"
        )
    return Plot(quality, title, note, figure, numbers)


def class_iou(row: Json, classes: Sequence[str]) -> Plot | None:
    """IoU of each class before the first and after the last answer; None where unknown."""
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
    """The classes whose wrong pixels were put right most; None without ground truth."""
    before, after = (np.array(row[f"confusion_{when}"]) for when in ("before", "after"))
    if before.size == 0:
        return None
    right = np.diagonal(after) - np.diagonal(before)
    left = after.sum(axis=1) - np.diagonal(after)
    order = np.argsort(-right, kind="stable")
    shown = [(classes[place], int(right[place]), int(left[place])) for place in order]
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
    """What each true class is labelled as, before and after; None without ground truth."""
    matrices = [np.array(row[f"confusion_{when}"], dtype=float) for when in ("before", "after")]
    if matrices[0].size == 0:
        return None
    present = [place for place in range(len(classes)) if matrices[0][place].sum() > 0]
    used = [
        place
        for place in range(len(classes))
        if place in present or any(matrix[:, place].sum() > 0 for matrix in matrices)
    ]
    shares = [_shares(matrix)[np.ix_(present, used)] for matrix in matrices]
    rows, columns = [classes[place] for place in present], [classes[place] for place in used]
    figure = _heat(shares, ("before", "after"), rows, columns, "true class", "labelled as")
    numbers = [["when", "true class", *columns]]
    for when, share in zip(("before", "after"), shares, strict=True):
        numbers += [
            [when, name, *values] for name, values in zip(rows, share.tolist(), strict=True)
        ]
    note = f"{row['label']}: share of each true class's pixels"
    return Plot("confusion", "Confusion before and after", note, figure, numbers)


def moved(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[Plot]:
    """What answers changed where no truth is known: int64 (C, C + 1), first class × class now."""
    changed = matrix[:, : len(classes)].astype(np.int64).copy()
    np.fill_diagonal(changed, 0)
    if not changed.any():
        return []
    left, gained = changed.sum(axis=1), changed.sum(axis=0)
    order = np.argsort(-(left + gained), kind="stable")
    shown = [(classes[place], int(left[place]), int(gained[place])) for place in order]
    bars = _bars(
        [item for item in shown if item[1] or item[2]][:SHOWN_CLASSES],
        ("taken from the class", "given to the class"),
        "pixels",
        stacked=False,
    )
    present = [place for place in range(len(classes)) if left[place] + gained[place] > 0]
    names = [classes[place] for place in present]
    part = changed[np.ix_(present, present)]
    heat = _heat([part / max(int(part.sum()), 1)], ("",), names, names, "first label", "label now")
    return [
        Plot(
            "changed", "Most corrected classes", "pixels that answers changed", bars,
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
    places = np.arange(len(shown))
    first, second = (np.array([item[part] for item in shown]) for part in (1, 2))
    if stacked:
        panel.barh(places, first, label=names[0], color="tab:green")
        panel.barh(places, second, left=first, label=names[1], color="tab:red", alpha=0.6)
    else:
        panel.barh(places - 0.2, first, 0.38, label=names[0], color="tab:gray")
        panel.barh(places + 0.2, second, 0.38, label=names[1], color="tab:green")
    panel.set_yticks(places, [item[0] for item in shown])
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
