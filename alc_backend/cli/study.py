"""``alc study``: a user study of one's own, which tells how long questions take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from alc_backend.cli.common import DatasetWithTruth, print_problems, print_table, telling
from alc_backend.cli.options import command_of
from alc_backend.common.files import write_json
from alc_backend.errors import SettingsError
from alc_backend.settings import Settings, settings

if TYPE_CHECKING:
    from alc_backend.simulate.scenes import Scenes
    from alc_backend.study.record import Asked, Study

app = typer.Typer(
    no_args_is_help=True, help="Measure how long questions take, in a user study of your own."
)
console = Console()


@dataclass(frozen=True)
class CreateOptions:
    """The options of `alc study create`."""

    dataset: DatasetWithTruth = None
    name: Annotated[
        str | None, typer.Option(help="Name of the study; default: the folder's name.")
    ] = None
    questions: Annotated[
        int, typer.Option(help="Questions that each person answers.", min=2, max=10_000)
    ] = 20
    share_wrong: Annotated[
        float, typer.Option(help="Share of the questions whose label is wrong.", min=0, max=1)
    ] = 0.5
    designs: Annotated[
        str,
        typer.Option(
            help="How questions are put, separated by commas, a group of people for each: "
            "correction, classification, page."
        ),
    ] = "correction,classification,page"
    people: Annotated[int, typer.Option(help="The most people of a group.", min=1, max=1000)] = 10
    tiles: Annotated[int, typer.Option(help="The most tiles on a page.", min=2, max=24)] = 5

    def groups(self) -> list[str]:
        """The designs that are compared; SettingsError for unknown ones."""
        from alc_backend.study.record import DESIGNS

        found = list(dict.fromkeys(part.strip() for part in self.designs.split(",")))
        unknown = [design for design in found if design not in DESIGNS]
        if unknown:
            raise SettingsError(
                f"--designs must be of {', '.join(DESIGNS)}, not {', '.join(map(repr, unknown))}"
            )
        return found


def create(options: CreateOptions) -> None:
    """Make a project for each group of annotators: the same images, put in different ways.

    Each person answers in one project only. What is true is known from the dataset's ground truth
    and kept in the data folder.
    """
    from alc_backend.labelstudio.client import Client
    from alc_backend.labelstudio.texts import texts
    from alc_backend.simulate.scenes import Scenes
    from alc_backend.study import asking, record

    designs, chosen = options.groups(), settings()
    root = options.dataset or _sample(chosen)
    name = options.name or root.absolute().name
    path = record.path_of(chosen.data_dir, name)
    if path.exists():
        raise SettingsError(f"there is a study {name!r} already; give another --name")
    with Client.from_settings(chosen) as client, console.status("reading the dataset") as status:
        scenes = Scenes(root)
        print_problems(console, scenes.problems, scenes.notes)
        study = asking.create(
            client,
            scenes,
            name,
            _questions(scenes, options, chosen.seed),
            designs,
            people=options.people,
            tiles=options.tiles,
            wording=texts(chosen.language),
            tell=telling(status),
        )
        record.save(study, path)
    _say_what_is_next(study, chosen.label_studio_links)


def _questions(scenes: Scenes, options: CreateOptions, seed: int) -> list[Asked]:
    """What is asked about."""
    from alc_backend.study import drawing, record

    found = [
        asked
        for key in scenes.keys
        for asked in drawing.candidates(
            key, scenes.labels(key), scenes.superpixels(key), scenes.truth(key)
        )
    ]
    group = options.tiles if record.PAGE in options.groups() else None
    return drawing.drawn(found, options.questions, options.share_wrong, seed, group=group)


def _say_what_is_next(study: Study, url: str) -> None:
    for group in study.groups:
        link = f"{url}/projects/{group.project}/data (Label All Tasks)"
        console.print(f"{group.design:15} {link}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"Give each link to a group of its own, up to {study.people} people; nobody answers in two "
        f"projects. Then: alc study report {study.name}",
        markup=False,
        soft_wrap=True,
    )


def _sample(chosen: Settings) -> Path:
    """The built-in sample, in the data folder."""
    from alc_backend.simulate.sample import write_sample

    return write_sample(chosen.data_dir / "sample", chosen.seed)[0]


def report(
    name: Annotated[
        str | None, typer.Argument(help="Name of the study; needed with several.")
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            help="Set the measured times in this file, as ALC_ENV_FILE names one: questions are "
            "priced by them from then on.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything to this file.")
    ] = None,
) -> None:
    """Say how long each way of asking takes, how often it is answered rightly, and what differs.

    A lead time above 20 s and above five times the person's median was interrupted: the median
    takes its place. Those who have not answered everything do not count yet.
    """
    from alc_backend.labelstudio.client import Client
    from alc_backend.study import answers, measures, record, tables
    from alc_backend.study import settings_file as settings_lines

    chosen = settings()
    study = record.load(chosen.data_dir, name)
    with Client.from_settings(chosen) as client:
        found = measures.measure(study, answers.read(client, study))
    for table in tables.tables(study, found):
        print_table(console, table)
    for reason in found.left_out:
        console.print(f"left out: {reason}", markup=False, highlight=False, soft_wrap=True)
    if json_file is not None:
        write_json(json_file, found.as_json())
    if settings_file is not None:
        settings_lines.write(settings_file, found.seconds)
        console.print(f"written to {settings_file}", markup=False, soft_wrap=True)
    elif found.seconds:
        console.print("measured, as settings (--settings FILE writes them):")
        for line in settings_lines.lines_of(found.seconds):
            console.print(line, markup=False, highlight=False)


app.command("create")(command_of(create, CreateOptions))
app.command("report")(report)
