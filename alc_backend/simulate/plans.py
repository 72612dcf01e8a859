"""The rows of a simulation: chosen one by one, or as a table of the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.errors import SettingsError
from alc_backend.simulate.experiment import Experiment

MODEL_MEASURED = ("default", "sim", "size", "lcil", "random")
"""The acquisitions of Table 2 whose networks are measured, too, for one seed and one oracle: each
needs a training, which takes longer than everything else."""

EPSILONS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Planned:
    """A row to run; rows with the same ``label`` differ only in their seed."""

    label: str
    experiment: Experiment


def ask(
    base: Experiment,
    acquisitions: Iterable[str],
    oracles: Iterable[str],
    seeds: Iterable[int],
) -> list[Planned]:
    """The rows for every acquisition, oracle and seed; everything else as in ``base``."""
    return [
        _planned(base, seed, acquisition, acquisition=acquisition, oracle=oracle)
        for oracle in oracles
        for acquisition in acquisitions
        for seed in seeds
    ]


def ask_by_hours(
    base: Experiment,
    kinds: Iterable[str],
    acquisitions: Sequence[str],
    oracles: Iterable[str],
    seeds: Sequence[int],
) -> list[Planned]:
    """The rows for every kind of questions, oracle and seed; everything else as in ``base``.

    Only single questions come in the order of an acquisition: there is a row for each.
    """
    return [
        _planned(base, seed, label, oracle=oracle, questions=kind, acquisition=acquisition)
        for oracle in oracles
        for kind in kinds
        for label, acquisition in (
            [(f"single, {name}", name) for name in acquisitions]
            if kind == "single"
            else [(kind, "sim")]
        )
        for seed in seeds
    ]


def hours(text: str) -> tuple[float, ...]:
    """The hours in a text such as ``0.2,0.5,1``, ascending; SettingsError for an invalid text."""
    try:
        found = tuple(sorted({float(part) for part in names(text)}))
    except ValueError:
        found = ()
    if not found:
        raise SettingsError(f"--hours {text!r} must be numbers such as 0.2,0.5,1")
    return found


def table(
    number: str, base: Experiment, oracles: Sequence[str], seeds: Sequence[int]
) -> list[Planned]:
    """The rows of a table of the paper (6: of Figure 6); everything else as in ``base``.

    Raises SettingsError for a number that is not in TABLES.
    """
    if number not in TABLES:
        raise SettingsError(f"--table must be one of {', '.join(TABLES)}, not {number!r}")
    variants = TABLES[number]()
    planned = [
        _planned(base, seed, label, oracle=oracle, **changes)
        for oracle in oracles
        for label, changes in variants
        for seed in seeds
    ]
    if number != "2":
        return planned
    return [
        replace(row, experiment=replace(row.experiment, model_at="none"))
        if not (
            row.experiment.acquisition in MODEL_MEASURED
            and row.experiment.oracle == oracles[0]
            and row.experiment.seed == seeds[0]
        )
        else row
        for row in planned
    ]


def _planned(base: Experiment, seed: int, label: str, **changes: Any) -> Planned:
    training = replace(base.training, seed=seed)
    return Planned(label, replace(base, training=training, **changes))


Variants = list[tuple[str, dict[str, Any]]]


def _acquisitions() -> Variants:
    return [(name, {"acquisition": name}) for name in ACQUISITIONS]


def _components() -> Variants:
    """Table 3; without diversity every pixel is ranked by itself."""
    alone = {"pool": "pixel"}
    return [
        ("nothing", {**alone, "acquisition": "cil", "expansion": False}),
        ("look-ahead + expansion", {**alone, "acquisition": "sim"}),
        ("diversity + expansion", {"acquisition": "lcil"}),
        ("diversity + look-ahead", {"acquisition": "sim", "expansion": False}),
        ("all three", {"acquisition": "sim"}),
    ]


def _sources() -> Variants:
    """Figure 6: R, first labels by a network trained on random answers; G, those of the dataset."""
    return [
        (
            f"{letter}-{'SLIC' if superpixels == 'slic' else 'objects'}",
            {"acquisition": "sim", "labels": labels, "superpixels": superpixels},
        )
        for letter, labels in (("R", "random"), ("G", "given"))
        for superpixels in ("slic", "objects")
    ]


TABLES: dict[str, Callable[[], Variants]] = {
    "2": _acquisitions,
    "3": _components,
    "6": _sources,
    "8": lambda: [
        (f"ε = {epsilon}", {"acquisition": "sim", "epsilon": epsilon}) for epsilon in EPSILONS
    ],
    "9": lambda: [
        ("PixelPick", {"acquisition": "sim", "pool": "pixelpick"}),
        ("superpixels", {"acquisition": "sim"}),
    ],
    "10": lambda: [
        (name, {"acquisition": name}) for name in ("entropy", "bvsb", "classbal", "sim")
    ],
}
"""The rows of the paper's tables by number (6: Figure 6), each a label and changed options."""


def budgets(text: str, superpixels: int) -> tuple[int, ...]:
    """The numbers of answers in a text such as ``5%,10%,350``, ascending.

    Shares are of ``superpixels``, the number of superpixels, which is also the most that can be
    asked about. Raises SettingsError for an invalid text.
    """
    found = set()
    for part in text.split(","):
        try:
            value = part.strip()
            share = value.endswith("%")
            number = float(value.rstrip("%")) / 100 * superpixels if share else int(value)
            count = round(number)
        except (ValueError, OverflowError):
            raise SettingsError(
                f"--budgets {text!r}: {part.strip()!r} is neither a number of answers nor a share "
                "such as 5%"
            ) from None
        if count < 1:
            raise SettingsError(
                f"--budgets {text!r}: {part.strip()} of {superpixels} superpixels is less than one "
                "answer; ask for more"
            )
        found.add(min(count, superpixels))
    return tuple(sorted(found))


def names(text: str) -> list[str]:
    """The parts of a comma-separated list, without blanks and duplicates."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def seeds(text: str) -> list[int]:
    """The seeds in a text such as ``0,1,2``; SettingsError unless all are whole numbers from 0."""
    found = names(text)
    if not found or not all(part.isdecimal() for part in found):
        raise SettingsError(f"--seeds {text!r} must be whole numbers such as 0,1,2")
    return list(dict.fromkeys(int(part) for part in found))
