"""The figures of a user study: time, accuracy, their differences, and what a question costs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import mean, stdev

from alc_backend.common.types import Json
from alc_backend.core import cost
from alc_backend.core.questions import PUBLISHED
from alc_backend.study.answers import Given, Person, Taken
from alc_backend.study.record import CLASSIFICATION, CORRECTION, PAGE, Study

CONFIDENCE = 0.95
"""Of the interval of a difference."""

ALIKE = 1e-9
"""Spreads below this share of the mean are none: there is nothing to test with."""


@dataclass(frozen=True)
class Spread:
    """A mean over people, with the sample standard deviation; None for one person."""

    mean: float
    spread: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """That of at least one value."""
        return cls(mean(values), stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Measured:
    """A design: its ``people``, their seconds in all and for each question, and their accuracy."""

    design: str
    people: int
    total: Spread
    per_question: Spread
    accuracy: Spread
    interruptions: int


@dataclass(frozen=True)
class Difference:
    """What tells two designs apart, ``first`` and ``second``.

    ``ratio`` is that of their seconds; ``time_p`` and ``accuracy_p`` are the p values of Welch's
    t-test over people, two-sided; ``low`` and ``high`` bound the difference in seconds for each
    question (``first`` less ``second``) with CONFIDENCE. They are None where it cannot be tested:
    with fewer than two people in either, or none that differ.
    """

    first: str
    second: str
    ratio: float
    time_p: float | None
    low: float | None
    high: float | None
    accuracy_p: float | None


@dataclass(frozen=True)
class Findings:
    """All figures of a study.

    ``seconds`` are the times that were measured, by the fields of
    :class:`~alc_backend.core.questions.Pace`; ``theorem`` is C_cor/C_cls of Theorem 3.1 at the
    study's number of classes and share of right labels.
    """

    designs: list[Measured]
    differences: list[Difference]
    theorem: float
    seconds: dict[str, float]
    left_out: list[str]

    def as_json(self) -> Json:
        """The values as JSON types."""
        return asdict(self)


def measure(study: Study, taken: Taken) -> Findings:
    """The figures of a study; designs that nobody has finished are left out."""
    by_design = {
        group.design: [person for person in taken.people if person.design == group.design]
        for group in study.groups
    }
    present = {design: people for design, people in by_design.items() if people}
    number = len(study.questions)
    return Findings(
        designs=[_measured(design, people, number) for design, people in present.items()],
        differences=[
            _difference(present[first], present[second], number)
            for first, second in combinations(present, 2)
        ],
        theorem=1.0 - cost.saving(len(study.classes), study.share_right),
        seconds=_seconds(taken.people),
        left_out=taken.left_out,
    )


def _measured(design: str, people: Sequence[Person], questions: int) -> Measured:
    return Measured(
        design=design,
        people=len(people),
        total=Spread.of([person.total for person in people]),
        per_question=Spread.of([person.total / questions for person in people]),
        accuracy=Spread.of([person.accuracy for person in people]),
        interruptions=sum(person.interruptions for person in people),
    )


def _difference(first: Sequence[Person], second: Sequence[Person], questions: int) -> Difference:
    seconds = [[person.total / questions for person in people] for people in (first, second)]
    accuracy = [[person.accuracy for person in people] for people in (first, second)]
    time_p, low, high = welch(*seconds)
    return Difference(
        first=first[0].design,
        second=second[0].design,
        ratio=mean(seconds[0]) / mean(seconds[1]),
        time_p=time_p,
        low=low,
        high=high,
        accuracy_p=welch(*accuracy)[0],
    )


def welch(
    first: Sequence[float], second: Sequence[float]
) -> tuple[float | None, float | None, float | None]:
    """Welch's t-test of two groups: the p value, and the interval of the difference.

    All None where it cannot be tested.
    """
    from scipy import stats

    if min(len(first), len(second)) < 2:
        return None, None, None
    usual = max(abs(mean(first)), abs(mean(second)), ALIKE)
    if max(stdev(first), stdev(second)) < ALIKE * usual:
        return None, None, None
    with warnings.catch_warnings():
        # of one group in which nobody differs, which is no fault: the other one does
        warnings.simplefilter("ignore", RuntimeWarning)
        found = stats.ttest_ind(first, second, equal_var=False)
        interval = found.confidence_interval(CONFIDENCE)
    return float(found.pvalue), float(interval.low), float(interval.high)


def _seconds(people: Iterable[Person]) -> dict[str, float]:
    """How long each kind of answer took: the mean over all answers of its kind."""
    kinds: dict[str, list[float]] = {"accept": [], "correct": [], "classify": [], "tile": []}
    for person in people:
        for given, seconds in zip(person.answers, person.seconds, strict=True):
            kind, value = _kind(person.design, given, seconds)
            kinds[kind].append(value)
    return {kind: mean(values) for kind, values in kinds.items() if values and mean(values) > 0}


def _kind(design: str, given: Given, seconds: float) -> tuple[str, float]:
    """What an answer's time is one of; of a page, the time of a tile, beside the page's own."""
    if design == PAGE:
        return "tile", (seconds - PUBLISHED.page) / len(given.questions)
    if design == CLASSIFICATION:
        return "classify", seconds
    assert design == CORRECTION
    return "accept" if given.accepts else "correct", seconds
