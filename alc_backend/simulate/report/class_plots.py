"""The plots of a report that show classes: their IoU, what was put right, and confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alc_backend.common.types import Json
from alc_backend.simulate import figures
from alc_backend.simulate.report.plots import Plot

SHOWN_CLASSES = 20


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


def corrections(statistics: Sequence[Json]) -> list[Plot]:
    """The corrections of each class (Figure 7b), and what its IoU gained by them; none without any.

    ``statistics`` tells of each class its ``name``, the superpixels ``taken`` from it and ``given``
    to it, and the ``iou`` of the first label maps, measured by those of now.
    """
    if not any(line["taken"] or line["given"] for line in statistics):
        return []
    shown = sorted(statistics, key=lambda line: -(line["taken"] + line["given"]))
    bars = [(line["name"], line["taken"], line["given"]) for line in shown]
    names = ("taken from the class", "given to the class")
    gains = {line["name"]: 1 - line["iou"] for line in statistics if line["iou"] is not None}
    return [
        Plot(
            "corrections",
            "Corrections of each class",
            "superpixels in which answers changed the label",
            _bars(bars[:SHOWN_CLASSES], names, "superpixels", stacked=False),
            [["class", "taken", "given"], *([*item] for item in bars)],
        ),
        gained(
            "labels_gained",
            gains,
            "IoU that the label maps gained",
            "1 minus the IoU of the first label maps, measured by those of now; the dashed line is "
            "the mean",
        ),
    ]


def networks_gained(rows: Sequence[Json], classes: Sequence[str]) -> Plot | None:
    """What the IoU of each class gains when a network is trained on corrected masks (Figure 7a).

    None without validation images, and where no row is trained on the masks as they were given or
    none on the ground truth.
    """
    given, corrected = (_model_iou(rows, method) for method in ("given", figures.SUPERVISED))
    gains = {
        name: after - before
        for name, before, after in zip(classes, given, corrected, strict=False)
        if before is not None and after is not None
    }
    if not gains:
        return None
    title = "IoU that the network gained"
    note = "IoU when trained on the corrected masks, less that when trained on the given ones; the "
    return gained("networks_gained", gains, title, note + "dashed line is the mean")


def _model_iou(rows: Sequence[Json], method: str) -> list[float | None]:
    """The mean IoU of each class over the rows of a method; empty when it was not measured."""
    measured = [
        iou
        for row in rows
        if row.get("method") == method and (iou := row["rounds"][-1]["model_class_iou"])
    ]
    found = (figures.Figure.of(values) for values in zip(*measured, strict=True))
    return [None if value is None else value.mean for value in found]


def gained(name: str, gains: Mapping[str, float], title: str, note: str) -> Plot:
    """What each class gained, by its name, in 0..1, the most first, with the mean (Figure 7a)."""
    shown = sorted(gains.items(), key=lambda item: -item[1])
    drawn = dict(shown[:SHOWN_CLASSES])
    figure = Figure(figsize=(7.5, 1.0 + 0.28 * max(len(drawn), 3)), layout="constrained")
    panel = figure.subplots()
    panel.barh([*drawn], [*drawn.values()])
    panel.axvline(float(np.mean([*gains.values()])), color="tab:orange", linestyle="--")
    panel.invert_yaxis()
    panel.set_xlabel(title)
    panel.grid(axis="x", alpha=0.3)
    return Plot(name, title, note, figure, [["class", "gained"], *([*item] for item in shown)])


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
