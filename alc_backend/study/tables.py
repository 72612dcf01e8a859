"""The figures of a user study as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from alc_backend.study.measures import Difference, Findings, Spread
from alc_backend.study.record import CLASSIFICATION, CORRECTION, Study

PAPER = {
    CLASSIFICATION: "126.1 ±19.8 s, 6.31 ±0.99 s, 95.0 ±3.3 %",
    CORRECTION: "95.1 ±9.0 s, 4.76 ±0.45 s, 95.0 ±4.0 %",
}
"""What the paper found (Table 1): 20 questions, ten people each, half of the labels wrong."""


def tables(study: Study, found: Findings) -> list[Table]:
    """The designs, and what tells them apart."""
    designs = Table(title=f"{study.name}: {len(study.questions)} questions, mean ± spread")
    for name in ("design", "people", "in all", "a question", "accuracy", "interruptions", "paper"):
        designs.add_column(name, justify="left" if name in ("design", "paper") else "right")
    for row in found.designs:
        designs.add_row(
            row.design,
            str(row.people),
            _shown(row.total, "s", 1),
            _shown(row.per_question, "s", 2),
            _shown(row.accuracy, "%", 1, 100),
            str(row.interruptions),
            PAPER.get(row.design, "–"),
        )
    apart = Table(title="differences (Welch's t-test over people)")
    for name in ("designs", "time ratio", "Theorem 3.1", "p (time)", "95 % interval", "p (acc.)"):
        apart.add_column(name, justify="left" if name == "designs" else "right")
    for line in found.differences:
        apart.add_row(
            f"{line.first} : {line.second}",
            f"{line.ratio:.2f}",
            _theorem(line, found.theorem),
            _p(line.time_p),
            _interval(line),
            _p(line.accuracy_p),
        )
    return [designs, apart] if found.differences else [designs]


def _theorem(line: Difference, ratio: float) -> str:
    """What the theorem says about two designs: nothing about pages."""
    if (line.first, line.second) == (CORRECTION, CLASSIFICATION):
        return f"{ratio:.2f}"
    if (line.first, line.second) == (CLASSIFICATION, CORRECTION):
        return f"{1 / ratio:.2f}"
    return "–"


def _shown(value: Spread, unit: str, digits: int, times: float = 1) -> str:
    spread = "" if value.spread is None else f" ±{value.spread * times:.{digits}f}"
    return f"{value.mean * times:.{digits}f}{spread} {unit}"


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _interval(line: Difference) -> str:
    if line.low is None or line.high is None:
        return "–"
    return f"{line.low:+.2f} to {line.high:+.2f} s"
