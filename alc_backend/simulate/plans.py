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


def shown(
    shows: str, base: Experiment, oracles: Sequence[str], seeds: Sequence[int]
) -> list[Planned]:
    """The rows of a table or figure of the paper, ``table 4``; everything else as in ``base``.

    Raises SettingsError for one that is not in SHOWN.
    """
    if shows not in SHOWN:
        kind, _, number = shows.partition(" ")
        known = ", ".join(name.partition(" ")[2] for name in SHOWN if name.startswith(kind))
        raise SettingsError(f"--{kind} must be one of {known}, not {number!r}")
    variants = SHOWN[shows](base)
    planned = [
        _planned(base, seed, label, oracle=oracle, **changes)
        for oracle in oracles
        for label, changes in variants
        for seed in seeds
    ]
    if shows != "table 2":
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


PAPERS = ("lcil", "softmin", "aiou", "sim")
"""The acquisitions that the paper compares in most places."""

FINER = 4
"""MerSpx begins with so many times as many superpixels, since it merges them."""


def _by_acquisition(*names: str, **changes: Any) -> Callable[[Experiment], Variants]:
    """A row for each acquisition."""
    return lambda base: [(name, {"acquisition": name, **changes}) for name in names]


def _components(base: Experiment) -> Variants:
    """Table 3; without diversity every pixel is ranked by itself."""
    alone = {"pool": "pixel"}
    return [
        ("nothing", {**alone, "acquisition": "cil", "expansion": False}),
        ("look-ahead + expansion", {**alone, "acquisition": "sim"}),
        ("diversity + expansion", {"acquisition": "lcil"}),
        ("diversity + look-ahead", {"acquisition": "sim", "expansion": False}),
        ("all three", {"acquisition": "sim"}),
    ]


def _sources(base: Experiment) -> Variants:
    """Figure 6: R, first labels by a network trained on random answers; G, those of the dataset."""
    titles = {"seeds": "SEEDS", "slic": "SLIC", "objects": "objects"}
    return [
        (
            f"{letter}-{titles[superpixels]}",
            {"acquisition": "sim", "labels": labels, "superpixels": superpixels},
        )
        for letter, labels in (("R", "random"), ("G", "given"))
        for superpixels in ("seeds", "slic", "objects")
    ]


def _spx(base: Experiment) -> Variants:
    """Table 4: what a warm start and better superpixels bring to Spx."""
    spx = {"method": "spx", "rounds": max(base.rounds, 2)}  # the first of a cold start is random
    return [
        ("Spx, cold, SEEDS", {**spx, "start": "cold", "superpixels": "seeds"}),
        ("Spx, warm, SEEDS", {**spx, "superpixels": "seeds"}),
        ("Spx, warm, objects", spx),
        ("ALC, warm, objects", {"acquisition": "sim"}),
    ]


def _against_active_learning(base: Experiment) -> Variants:
    """Figures 3 and 8: correction against active learning from a cold start, at every budget."""
    often = {"rounds": max(base.rounds, len(base.budgets), 2), "model_at": "all"}
    cold = {**often, "start": "cold", "superpixels": "seeds"}
    return [
        ("ALC", {**often, "acquisition": "sim"}),
        ("Spx", {**cold, "method": "spx"}),
        (
            "MerSpx",
            {**cold, "method": "merspx", "superpixel_count": FINER * base.superpixel_count},
        ),
        ("MulSpx", {**cold, "method": "mulspx"}),
        ("supervised", {"method": "supervised"}),
    ]


def _repaired(base: Experiment) -> Variants:
    """Table 5 and Figure 7: what a network gains when a dataset has been corrected."""
    return [
        ("given masks", {"method": "given"}),
        ("corrected masks", {"method": "supervised"}),
    ]


SHOWN: dict[str, Callable[[Experiment], Variants]] = {
    "table 2": _by_acquisition(*ACQUISITIONS),
    "table 3": _components,
    "table 4": _spx,
    "table 5": _repaired,
    "table 6": _by_acquisition(*PAPERS),
    "table 8": lambda base: [
        (f"ε = {epsilon}", {"acquisition": "sim", "epsilon": epsilon}) for epsilon in EPSILONS
    ],
    "table 9": lambda base: [
        ("PixelPick", {"acquisition": "sim", "pool": "pixelpick"}),
        ("superpixels", {"acquisition": "sim"}),
    ],
    "table 10": _by_acquisition("entropy", "bvsb", "classbal", "sim"),
    "figure 3": _against_active_learning,
    "figure 4": _by_acquisition(*PAPERS, model_at="none"),
    "figure 5": lambda base: [
        *_by_acquisition(*PAPERS, model_at="all")(base),
        ("supervised", {"method": "supervised"}),
    ],
    "figure 6": _sources,
    "figure 7": _repaired,
    "figure 8": _against_active_learning,
}
"""The rows of the paper's tables and figures, each a label and changed options."""


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
