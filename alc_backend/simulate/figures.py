"""The figures of a simulation or a live project, and their statistics over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev

from alc_backend.common.types import Json


@dataclass(frozen=True)
class Point:
    """The state of a row after a number of answers; figures that are unknown are None.

    ``round`` counts from 0, which is before the first answer; ``share`` is the number of answers
    divided by that of the superpixels. ``accept_rate``, the mIoUs, ``precision``, ``recall`` and
    the class IoUs (one for each class) lie in [0, 1]. ``normalised_clicks`` is the cost of the
    answers in classification queries (Theorem 3.1), ``hours`` the annotators' time so far, and
    ``hours_classifying`` the time that naming the class of as many superpixels would have taken.
    """

    round: int
    answers: int
    share: float | None = None
    accept_rate: float | None = None
    data_miou: float | None = None
    model_miou: float | None = None
    precision: float | None = None
    recall: float | None = None
    class_iou: list[float | None] | None = None
    model_class_iou: list[float | None] | None = None
    normalised_clicks: float | None = None
    hours: float | None = None
    hours_classifying: float | None = None

    def as_json(self) -> Json:
        """The values as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Figure:
    """A value over the seeds; ``spread`` is the sample standard deviation, None for one seed."""

    mean: float
    spread: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Figure | None:
        """The figure of the known values; None when there are none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(mean(known), stdev(known) if len(known) > 1 else None, len(known))

    def __str__(self) -> str:
        """The mean, with the spread if there is one, in percent."""
        spread = "" if self.spread is None else f" ±{100 * self.spread:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


@dataclass(frozen=True)
class Column:
    """A column of a table: a figure after ``answers`` answers, or at the end where that is None.

    ``name`` is that of a field of :class:`Point`, ``share`` as there.
    """

    name: str
    answers: int | None = None
    share: float | None = None

    def of(self, rows: Sequence[Json]) -> Figure | None:
        """The figure of the rows, which differ by their seed; None when none of them has it."""
        if self.answers is None:
            return Figure.of(row["rounds"][-1].get(self.name) for row in rows)
        return at(rows, self.answers, self.name)


def by_oracle(rows: Iterable[Json]) -> dict[str, dict[str, list[Json]]]:
    """The rows by oracle, then label; those of one label differ by their seed."""
    found: dict[str, dict[str, list[Json]]] = {}
    for row in rows:
        found.setdefault(row["oracle"], {}).setdefault(row["label"], []).append(row)
    return found


def points(rows: Iterable[Json]) -> list[tuple[int, float | None]]:
    """The numbers of answers at which any row was measured, each with its share, ascending.

    The share is None where it differs, as between rows with other superpixels.
    """
    found: dict[int, set[float | None]] = {}
    for row in rows:
        for point in row["rounds"]:
            found.setdefault(point["answers"], set()).add(point.get("share"))
    return [
        (answers, next(iter(shares)) if len(shares) == 1 else None)
        for answers, shares in sorted(found.items())
    ]


def at(rows: Iterable[Json], answers: int, name: str) -> Figure | None:
    """The figure ``name`` after so many answers, of the rows that were measured then."""
    return Figure.of(
        {point["answers"]: point.get(name) for point in row["rounds"]}.get(answers) for row in rows
    )


def quality_columns(rows: Iterable[Json]) -> list[Column]:
    """A column of data mIoU for each number of answers at which any row was measured.

    One column where nothing was asked.
    """
    return [
        Column("data_miou", answers, share) for answers, share in points(rows) if answers > 0
    ] or [Column("data_miou")]


SUPERVISED = "supervised"
"""The method of the rows whose networks are trained on the ground truth."""

GOAL = 0.95
"""The share of the supervised model mIoU at which the paper compares (Figures 3 and 8)."""


def relative(rows: Iterable[Json]) -> list[Json]:
    """The rows, with ``model_share`` in their points where one row is supervised.

    It is the model mIoU divided by that of the networks which were trained on the ground truth.
    """
    found = list(rows)
    supervised = Figure.of(
        point["model_miou"]
        for row in found
        if row.get("method") == SUPERVISED
        for point in row["rounds"]
    )
    if supervised is None or not supervised.mean:
        return found

    def share(point: Json) -> float | None:
        model = point["model_miou"]
        return None if model is None else model / supervised.mean

    return [
        {**row, "rounds": [{**point, "model_share": share(point)} for point in row["rounds"]]}
        for row in found
    ]


def is_relative(rows: Iterable[Json]) -> bool:
    """Whether the rows have been compared with a supervised network."""
    return any("model_share" in point for row in rows for point in row["rounds"])


def share_columns(rows: Iterable[Json]) -> list[Column]:
    """A column of the share of the supervised model mIoU for each number of answers it is known at.

    One column where nothing was asked; none where the rows have not been compared with a
    supervised network.
    """
    found = list(rows)
    if not is_relative(found):
        return []
    return [
        Column("model_share", answers, share)
        for answers, share in points(found)
        if answers > 0 and at(found, answers, "model_share") is not None
    ] or [Column("model_share")]


def normalised(rows: Sequence[Json], answers: int) -> float:
    """What so many answers cost, in classification queries (Theorem 3.1); the mean of the rows.

    The answers of active learning are classifications already.
    """
    found = at(rows, answers, "normalised_clicks")
    return float(answers) if found is None or not is_corrected(rows) else found.mean


def is_corrected(rows: Iterable[Json]) -> bool:
    """Whether the answers of rows are corrections, which cost less than classifications."""
    return all(row.get("method", "alc") == "alc" for row in rows)


def clicks_to_goal(rows: Sequence[Json]) -> str:
    """After how many clicks rows of one label reach GOAL, by straight lines between the points.

    With the normalised clicks in brackets where those are corrections; a dash when they never do.
    """
    if any(row.get("method") == SUPERVISED for row in rows):
        return "–"
    known = [
        (answers, normalised(rows, answers), value.mean)
        for answers, _ in points(rows)
        if (value := at(rows, answers, "model_share")) is not None
    ]
    reached = [index for index, (*_, share) in enumerate(known) if share >= GOAL]
    if not reached:
        return "–"
    index = reached[0]
    clicks, cost, share = known[index]
    if index:
        before, cost_before, share_before = known[index - 1]
        way = (GOAL - share_before) / (share - share_before)
        clicks = round(before + way * (clicks - before))
        cost = cost_before + way * (cost - cost_before)
    return f"{clicks} ({cost:.0f})" if is_corrected(rows) else str(clicks)


COUNTS = ("answers", "pages", "tiles", "confirmed")
"""What is counted by hours of work, in :class:`~alc_backend.simulate.hours.Counts`."""


def is_by_hours(rows: Iterable[Json]) -> bool:
    """Whether all rows were measured after hours of work, and not after numbers of answers."""
    return all(row.get("by_hours") for row in rows)


def by_hours(rows: Sequence[Json]) -> dict[float, Figure | None]:
    """The data mIoU of the rows, which differ by their seed, after each of the hours."""
    return {
        points[0]["hours"]: Figure.of(point["data_miou"] for point in points)
        for points in zip(*(row["by_hours"] for row in rows), strict=True)
    }


def lines_by_hours(rows: Iterable[Sequence[Json]]) -> list[tuple[str, list[Figure | None]]]:
    """The data mIoU of each label's rows after all hours that any was measured at, ascending."""
    known = [by_hours(members) for members in rows]
    every = sorted(set().union(*known))
    return [(f"{after:g} h", [values.get(after) for values in known]) for after in every]


def counts(rows: Sequence[Json]) -> list[str]:
    """The means of COUNTS at the last of the hours, as text."""
    last = [row["by_hours"][-1] for row in rows]
    return [f"{mean(point[name] for point in last):.0f}" for name in COUNTS]


def hours(rows: Sequence[Json]) -> str:
    """The mean hours of annotation of the rows, as text; a dash when they are unknown."""
    found = Column("hours").of(rows)
    return "–" if found is None else f"{found.mean:.2f}"
