"""``alc simulate``: what correction brings, measured on data whose truth is known."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from alc_backend.cli.common import (
    DatasetWithTruth,
    MinuteLines,
    print_problems,
    print_table,
    progress_bar,
)
from alc_backend.common.types import Json
from alc_backend.core.questions import TILES, Pace
from alc_backend.errors import SettingsError
from alc_backend.settings import (
    MOST_FOLDS,
    MOST_QUERIES,
    MOST_SUPERPIXELS,
    Settings,
    settings,
)

if TYPE_CHECKING:
    from alc_backend.simulate.experiment import Experiment
    from alc_backend.simulate.plans import Planned
    from alc_backend.simulate.runner import Runner
    from alc_backend.simulate.scenes import Scenes

console = Console()


@dataclass(frozen=True)
class SimulateOptions:
    """The options of `alc simulate`."""

    dataset: DatasetWithTruth = None
    val: Annotated[
        Path | None, typer.Option(help="Folder with images/ and ground_truth/, for the model mIoU.")
    ] = None
    table: Annotated[
        str | None, typer.Option(help="Rows of a table of the paper: 2, 3, 4, 6, 8, 9 or 10.")
    ] = None
    figure: Annotated[
        str | None, typer.Option(help="Rows of a figure of the paper: 3, 4, 5, 6 or 8.")
    ] = None
    method: Annotated[
        str,
        typer.Option(
            help="alc; active learning that it is compared with: spx, merspx or mulspx; or "
            "supervised, trained on the ground truth."
        ),
    ] = "alc"
    start: Annotated[
        str,
        typer.Option(
            help="With active learning: warm, from the first label maps, or cold, from nothing."
        ),
    ] = "warm"
    acquisition: Annotated[
        str | None, typer.Option(help="Acquisitions to compare, separated by commas.")
    ] = None
    pool: Annotated[
        str, typer.Option(help="What can be asked about: superpixel, pixelpick or pixel.")
    ] = "superpixel"
    labels: Annotated[
        str,
        typer.Option(
            help="First label maps: given, or random (of a network trained on random answers)."
        ),
    ] = "given"
    superpixels: Annotated[
        str, typer.Option(help="Superpixels: objects of the dataset, slic, or seeds.")
    ] = "objects"
    superpixel_count: Annotated[
        int,
        typer.Option(help="Superpixels per image, of slic and seeds.", min=1, max=MOST_SUPERPIXELS),
    ] = 100
    expansion: Annotated[
        str, typer.Option(help="on: an answer spreads over its superpixel; off: one pixel.")
    ] = "on"
    epsilon: Annotated[
        float | None, typer.Option(help="Similarity an expansion requires; default ALC_EPSILON.")
    ] = None
    folds: Annotated[
        int | None,
        typer.Option(help="Networks for cross-fitting; default ALC_FOLDS.", min=1, max=MOST_FOLDS),
    ] = None
    oracle: Annotated[
        str, typer.Option(help="Oracle annotators, separated by commas: object, pixel.")
    ] = "object"
    noise: Annotated[float, typer.Option(help="Share of answers that name a wrong class.")] = 0.0
    budgets: Annotated[
        str | None,
        typer.Option(help="Where to measure: shares of the superpixels, or numbers of answers."),
    ] = None
    budget: Annotated[
        int | None,
        typer.Option(help="Answers in all, measured after every round.", min=1, max=MOST_QUERIES),
    ] = None
    hours: Annotated[
        str | None,
        typer.Option(help="Hours of work after which to measure, separated by commas: 0.2,0.5,1."),
    ] = None
    questions: Annotated[
        str,
        typer.Option(
            help="With --hours, what annotators are asked, separated by commas: single, pages of "
            "look-alikes, or mixed."
        ),
    ] = "single"
    seconds_per_tile: Annotated[
        float | None,
        typer.Option(
            help="Seconds that an annotator takes for a tile of a page; default ALC_SECONDS_TILE."
        ),
    ] = None
    tiles: Annotated[int, typer.Option(help="The most tiles on a page.", min=1, max=48)] = TILES
    overlooked: Annotated[
        float, typer.Option(help="Share of wrong tiles that annotators overlook.")
    ] = 0.0
    corrector: Annotated[
        bool,
        typer.Option(
            "--corrector",
            help="With --hours and single questions: a network taught by the answers relabels what "
            "was not asked about, as A²LC does.",
        ),
    ] = False
    rounds: Annotated[
        int,
        typer.Option(
            help="Rounds that the answers are given in; each trains anew.", min=1, max=1000
        ),
    ] = 1
    preset: Annotated[
        str | None, typer.Option(help="Training preset; default ALC_PRESET (sample: sample).")
    ] = None
    iterations: Annotated[
        int | None,
        typer.Option(help="Training iterations instead of the preset's.", min=1, max=10_000_000),
    ] = None
    train: Annotated[
        bool, typer.Option(help="Train anew before every round, or keep the first network.")
    ] = True
    probabilities: Annotated[
        Path | None,
        typer.Option(help="Folder of KEY.npy, (C, H, W), instead of a network; with --no-train."),
    ] = None
    model_at: Annotated[
        str | None,
        typer.Option(
            help="Budgets at which a network is trained and measured: last, all or none; default "
            "last, with --no-train and --hours none."
        ),
    ] = None
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2"
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Rows side by side; default: one per GPU, else per four cores.", min=1, max=256
        ),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(help="Where finished rows and networks are kept; default: the data folder."),
    ] = None
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything to this file.")
    ] = None

    @property
    def shows(self) -> str | None:
        """The table or figure of the paper whose rows are run: ``table 4``; None for others."""
        if self.figure is not None:
            return f"figure {self.figure}"
        return None if self.table is None else f"table {self.table}"

    def check(self) -> None:
        """Raise SettingsError for options that do not go together, before anything is read."""
        from alc_backend.simulate import plans

        if self.expansion not in ("on", "off"):
            raise SettingsError(f"--expansion must be on or off, not {self.expansion!r}")
        if self.budgets is not None and self.budget is not None:
            raise SettingsError("give either --budgets or --budget")
        if self.table is not None and self.figure is not None:
            raise SettingsError("give either --table or --figure")
        if self.hours is not None and (self.budgets, self.budget, self.shows) != (None,) * 3:
            raise SettingsError("--hours goes without --budgets, --budget, --table and --figure")
        target = self.json_file
        if target is not None and (target.is_dir() or target.parent.is_file()):
            raise SettingsError(f"--json {target} cannot be written; choose another file")
        if self.shows is not None and self.acquisition is not None:
            raise SettingsError(
                "--table and --figure say which acquisitions are compared; leave --acquisition out"
            )
        asked = (self.oracle, self.acquisition, self.questions)
        if any(text is not None and not plans.names(text) for text in asked):
            raise SettingsError(
                "--oracle, --acquisition and --questions must name at least one each"
            )


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
    """The options, with the built-in sample where no dataset was given."""
    from alc_backend.simulate.sample import write_sample

    if options.dataset is not None:
        return options
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
    if (note := published.note(found)) is not None:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        console.print(
            f"written to {json_file}; `alc report {json_file}` makes a page of it",
            markup=False,
            soft_wrap=True,
        )
