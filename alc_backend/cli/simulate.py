"""``alc simulate`` and ``alc report``: what correction brings, before and while people label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from alc_backend.cli.common import ProjectOption, open_store, project_id_of, telling
from alc_backend.errors import SettingsError
from alc_backend.settings import settings

console = Console()


def simulate(
    dataset: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with images/, pseudo_labels/, objects/, ground_truth/ and classes.txt; "
            "without one, the built-in sample."
        ),
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Folder with images/ and ground_truth/, for the model mIoU.")
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="Rows of the paper: table 2, 3, 8, 9 or 10, or figure 6.")
    ] = None,
    acquisition: Annotated[
        str | None, typer.Option(help="Acquisitions to compare, separated by commas.")
    ] = None,
    pool: Annotated[
        str, typer.Option(help="What can be asked about: superpixel, pixelpick or pixel.")
    ] = "superpixel",
    labels: Annotated[
        str,
        typer.Option(
            help="First label maps: given, or random (of a network trained on random answers)."
        ),
    ] = "given",
    superpixels: Annotated[
        str, typer.Option(help="Superpixels: objects of the dataset, or slic.")
    ] = "objects",
    slic_count: Annotated[int, typer.Option(help="SLIC superpixels per image.", min=1)] = 100,
    expansion: Annotated[
        str, typer.Option(help="on: an answer spreads over its superpixel; off: one pixel.")
    ] = "on",
    epsilon: Annotated[
        float | None, typer.Option(help="Similarity an expansion requires; default ALC_EPSILON.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Networks for cross-fitting; default ALC_FOLDS.", min=1)
    ] = None,
    oracle: Annotated[
        str, typer.Option(help="Oracle annotators, separated by commas: object, pixel.")
    ] = "object",
    noise: Annotated[float, typer.Option(help="Share of answers that name a wrong class.")] = 0.0,
    budgets: Annotated[
        str | None,
        typer.Option(help="Where to measure: shares of the superpixels, or numbers of answers."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Answers in all, measured after every round.", min=1)
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="Rounds that the answers are given in; each trains anew.", min=1)
    ] = 1,
    preset: Annotated[
        str | None, typer.Option(help="Training preset; default ALC_PRESET (sample: sample).")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Training iterations instead of the preset's.", min=1)
    ] = None,
    train: Annotated[
        bool, typer.Option(help="Train anew before every round, or keep the first network.")
    ] = True,
    probabilities: Annotated[
        Path | None,
        typer.Option(help="Folder of KEY.npy, (C, H, W), instead of a network; with --no-train."),
    ] = None,
    model_at: Annotated[
        str | None,
        typer.Option(
            help="Budgets at which a network is trained and measured: last, all or none; default "
            "last, with --no-train none."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    jobs: Annotated[
        int | None,
        typer.Option(help="Rows side by side; default: one per GPU, else per four cores.", min=1),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where finished rows and networks are kept; default: the data folder."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything to this file.")
    ] = None,
) -> None:
    """Run the loop with an oracle annotator on data whose truth is known.

    Rows that were finished before are not run again; an interrupted one goes on.
    """
    from alc_backend.segmentation.config import configured
    from alc_backend.simulate import plans, results
    from alc_backend.simulate.experiment import Experiment
    from alc_backend.simulate.runner import Runner

    chosen = settings()
    cache = cache or chosen.data_dir / "simulations"
    if expansion not in ("on", "off"):
        raise SettingsError(f"--expansion must be on or off, not {expansion!r}")
    if budgets is not None and budget is not None:
        raise SettingsError("give either --budgets or --budget")
    if json_file is not None and (json_file.is_dir() or json_file.parent.is_file()):
        raise SettingsError(f"--json {json_file} is no file that can be written; choose another")
    if table is not None and acquisition is not None:
        raise SettingsError("--table says which acquisitions are compared; leave --acquisition out")
    if dataset is None:
        from alc_backend.simulate.sample import write_sample

        dataset, held_out = write_sample(cache / "sample")
        val, preset = val or held_out, preset or "sample"
    runner = Runner(
        dataset.absolute(), val.absolute() if val else None, cache.absolute(), jobs=jobs
    )
    with console.status("reading the dataset"):
        scenes = runner.scenes(superpixels, slic_count)
    for problem in scenes.problems:
        console.print(f"left out: {problem}", markup=False, highlight=False)
    if budget is not None:
        measured = {min(budget * part // rounds, scenes.superpixel_count)
                    for part in range(1, rounds + 1)}  # fmt: skip
        points = tuple(sorted(measured - {0}))
    else:
        points = plans.budgets(budgets or "5%,10%,20%", scenes.superpixel_count)
    base = Experiment(
        configured(chosen, preset=preset, iterations=iterations),
        points,
        pool=pool,
        expansion=expansion == "on",
        epsilon=chosen.epsilon if epsilon is None else epsilon,
        labels=labels,
        superpixels=superpixels,
        superpixel_count=slic_count,
        folds=folds or chosen.folds,
        share_iterations=chosen.share_iterations,
        flip=chosen.flip,
        noise=noise,
        rounds=rounds,
        per_image=chosen.per_image,
        min_area=chosen.min_area,
        train=train,
        model_at=model_at or ("last" if train else "none"),
        probabilities=str(probabilities.absolute()) if probabilities else None,
    )
    oracles, numbers = plans.names(oracle), plans.seeds(seeds)
    if not oracles or (acquisition is not None and not plans.names(acquisition)):
        raise SettingsError("--oracle and --acquisition must name at least one each")
    if table is not None:
        planned = plans.table(table, base, oracles, numbers)
    else:
        asked = plans.names(acquisition or chosen.acquisition)
        planned = plans.ask(base, asked, oracles, numbers)
    with _progress() as progress:
        bar = progress.add_task("", total=None)
        rows = runner.run(
            [plan.experiment for plan in planned],
            lambda done, total, message: progress.update(
                bar, completed=done, total=total, description=message
            ),
        )
    found = results.document(
        scenes,
        {
            "table": table, "budgets": list(points), "rounds": rounds, "oracles": oracles,
            "seeds": numbers, "training": base.training.as_dict(), "train": train,
        },
        planned,
        rows,
    )  # fmt: skip
    for shown in results.tables(found):
        console.print(shown)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        console.print(
            f"written to {json_file}; `alc report {json_file}` makes a page of it", markup=False
        )


def report(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Results that `alc simulate --json` wrote.")
    ] = None,
    project: ProjectOption = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html and the plots.")] = Path(
        "report"
    ),
) -> None:
    """Make a page of simulations' results or, without any, of a live project.

    Each plot is written beside it, as PNG and as CSV.
    """
    from alc_backend.loop.exports import report as live_report
    from alc_backend.simulate.report import page

    if files and project is not None:
        raise SettingsError("give either results of simulations or --project")
    if files:
        stems = [path.stem for path in files]
        names = stems if len(set(stems)) == len(stems) else [str(path) for path in files]
        documents = [(name, page.read(path)) for name, path in zip(names, files, strict=True)]
        document, title = page.together(documents), "Active Label Correction, simulated"
    else:
        store = open_store()
        project_id = project_id_of(store, project)
        with console.status("") as status:
            document = live_report.document(
                store, project_id, lambda done, total, message: telling(status)(message)
            )
        title = f"Active Label Correction of {document['rows'][0]['label']}"
    path = page.write(document, title, out)
    console.print(f"written to {path}", markup=False)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
