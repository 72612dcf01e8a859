"""``alc simulate``: what correction brings, measured on data whose truth is known."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from alc_backend.cli.common import MinuteLines, print_problems, print_table, progress_bar
from alc_backend.cli.simulate_options import POLYPS, SimulateOptions
from alc_backend.common.types import Json
from alc_backend.core.questions import Pace
from alc_backend.settings import Settings, settings

if TYPE_CHECKING:
    from alc_backend.simulate.experiment import Experiment
    from alc_backend.simulate.plans import Planned
    from alc_backend.simulate.runner import Runner
    from alc_backend.simulate.scenes import Scenes

console = Console()


@dataclass(frozen=True)
class Plan:
    """What is run: the rows, and the options that they have in common."""

    rows: list[Planned]
    base: Experiment
    oracles: list[str]
    seeds: list[int]


def simulate(options: SimulateOptions) -> None:
    """Run the loop with an oracle annotator on data whose truth is known.

    Rows that were finished before are not run again; an interrupted one goes on.
    """
    options.check()
    chosen = settings()
    cache = options.cache or chosen.data_dir / "simulations"
    options = _with_sample(options, cache)
    runner = _runner(options, cache)
    scenes = _read(runner, options)
    plan = _plan(options, chosen, scenes)
    found = _run(runner, scenes, plan, options.shows)
    _print(found, options.json_file)


def _with_sample(options: SimulateOptions, cache: Path) -> SimulateOptions:
    """The options, with a built-in sample where no dataset was given."""
    from alc_backend.simulate.polyps import write_polyps
    from alc_backend.simulate.sample import write_sample

    if options.dataset is not None:
        return options
    if options.built_in == POLYPS:
        dataset, held_out = write_polyps(cache / "polyps")
    else:
        dataset, held_out = write_sample(cache / "sample")
    return replace(
        options,
        dataset=dataset,
        val=options.val or held_out,
        preset=options.preset or "sample",
    )


def _runner(options: SimulateOptions, cache: Path) -> Runner:
    from alc_backend.simulate.runner import Runner

    assert options.dataset is not None
    validation = options.val.absolute() if options.val else None
    return Runner(options.dataset.absolute(), validation, cache.absolute(), jobs=options.jobs)


def _read(runner: Runner, options: SimulateOptions) -> Scenes:
    """Read the dataset, and say what was left out or assumed."""
    with console.status("reading the dataset"):
        scenes = runner.scenes(options.superpixels, options.superpixel_count)
    print_problems(console, scenes.problems, scenes.notes)
    return scenes


def _plan(options: SimulateOptions, chosen: Settings, scenes: Scenes) -> Plan:
    """The rows that the options ask for; SettingsError for values that do not go together."""
    from alc_backend.simulate import plans

    base = _base(options, chosen, _budgets(options, scenes.superpixel_count))
    oracles, seeds = plans.names(options.oracle), plans.seeds(options.seeds)
    if options.shows is not None:
        rows = plans.shown(options.shows, base, oracles, seeds)
        return Plan(rows, base, oracles, seeds)
    acquisitions = plans.names(options.acquisition or chosen.acquisition)
    if options.hours is not None:
        kinds = plans.names(options.questions)
        rows = plans.ask_by_hours(base, kinds, acquisitions, oracles, seeds)
    else:
        rows = plans.ask(base, acquisitions, oracles, seeds)
    return Plan(rows, base, oracles, seeds)


def _budgets(options: SimulateOptions, superpixels: int) -> tuple[int, ...]:
    """The numbers of answers at which is measured, ascending."""
    from alc_backend.simulate import plans

    if options.hours is not None:
        return (superpixels,)
    if options.budget is None:
        return plans.budgets(options.budgets or "5%,10%,20%", superpixels)
    measured = {
        min(options.budget * part // options.rounds, superpixels)
        for part in range(1, options.rounds + 1)
    }
    return tuple(sorted(measured - {0}))


def _base(options: SimulateOptions, chosen: Settings, budgets: tuple[int, ...]) -> Experiment:
    """The experiment that all rows are variants of."""
    from alc_backend.segmentation.config import configured
    from alc_backend.simulate import plans
    from alc_backend.simulate.experiment import Experiment

    given = options.probabilities
    measured = "last" if options.train and options.hours is None else "none"
    return Experiment(
        configured(chosen, preset=options.preset, iterations=options.iterations),
        budgets,
        pool=options.pool,
        expansion=options.expansion == "on",
        epsilon=chosen.epsilon if options.epsilon is None else options.epsilon,
        labels=options.labels,
        superpixels=options.superpixels,
        superpixel_count=options.superpixel_count,
        folds=options.folds or chosen.folds,
        share_iterations=chosen.share_iterations,
        flip=chosen.flip,
        noise=options.noise,
        rounds=options.rounds,
        per_image=chosen.per_image,
        min_area=chosen.min_area,
        train=options.train,
        model_at=options.model_at or measured,
        probabilities=str(given.absolute()) if given else None,
        hours=plans.hours(options.hours) if options.hours is not None else (),
        questions=plans.names(options.questions)[0],
        pace=_pace(options, chosen),
        tiles=options.tiles,
        overlooked=options.overlooked,
        corrector=options.corrector,
        method=options.method,
        start=options.start,
    )


def _pace(options: SimulateOptions, chosen: Settings) -> Pace:
    """How long questions take: as given, as measured in a user study, or as published."""
    given = options.seconds_per_tile
    return Pace(**chosen.seconds | ({} if given is None else {"tile": given}))


def _run(runner: Runner, scenes: Scenes, plan: Plan, shows: str | None) -> Json:
    """Run the rows under a progress bar, or with a line a minute; the document of their results."""
    from alc_backend.simulate import results

    with progress_bar() as progress:
        bar = progress.add_task("", total=None)
        lines = MinuteLines(progress.console)

        def tell(done: int, total: int, message: str) -> None:
            progress.update(bar, completed=done, total=total, description=message)
            if message:
                lines(f"{done} of {total} done; {message}")

        rows = runner.run([planned.experiment for planned in plan.rows], tell)
    asked = {
        "shows": shows,
        "budgets": list(plan.base.budgets),
        "hours": list(plan.base.hours),
        "rounds": plan.base.rounds,
        "oracles": plan.oracles,
        "seeds": plan.seeds,
        "training": plan.base.training.as_dict(),
        "train": plan.base.train,
    }
    return results.document(scenes, asked, plan.rows, rows)


def _print(found: Json, json_file: Path | None) -> None:
    """Show the results as tables, and write them where asked."""
    from alc_backend.simulate import published, results

    for shown in results.tables(found):
        print_table(console, shown)
    for note in published.notes(found):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        console.print(
            f"written to {json_file}; `alc report {json_file}` makes a page of it",
            markup=False,
            soft_wrap=True,
        )
