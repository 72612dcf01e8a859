"""The options of ``alc simulate``, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from alc_backend.cli.common import DatasetWithTruth
from alc_backend.core.questions import TILES
from alc_backend.errors import SettingsError
from alc_backend.settings import MOST_FOLDS, MOST_QUERIES, MOST_SUPERPIXELS

SAMPLES = (SCENES, POLYPS) = ("scenes", "polyps")
"""The built-in datasets."""


@dataclass(frozen=True)
class SimulateOptions:
    """The options of `alc simulate`."""

    dataset: DatasetWithTruth = None
    val: Annotated[
        Path | None, typer.Option(help="Folder with images/ and ground_truth/, for the model mIoU.")
    ] = None
    sample: Annotated[
        str | None,
        typer.Option(
            help="Without a dataset: the built-in scenes, or polyps, which have two classes. "
            "Default: polyps for --figure 5, else scenes."
        ),
    ] = None
    table: Annotated[
        str | None, typer.Option(help="Rows of a table of the paper: 2 to 6 or 8 to 10.")
    ] = None
    figure: Annotated[str | None, typer.Option(help="Rows of a figure of the paper: 3 to 8.")] = (
        None
    )
    method: Annotated[
        str,
        typer.Option(
            help="alc; active learning that it is compared with: spx, merspx or mulspx; or "
            "what is trained on the label maps as they are, given, or on the ground truth, "
            "supervised."
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

    @property
    def built_in(self) -> str:
        """The name of the sample that is used where no dataset is given."""
        return self.sample or (POLYPS if self.figure == "5" else SCENES)

    def check(self) -> None:
        """Raise SettingsError for options that do not go together, before anything is read."""
        from alc_backend.simulate import plans

        if self.expansion not in ("on", "off"):
            raise SettingsError(f"--expansion must be on or off, not {self.expansion!r}")
        if self.budgets is not None and self.budget is not None:
            raise SettingsError("give either --budgets or --budget")
        if self.table is not None and self.figure is not None:
            raise SettingsError("give either --table or --figure")
        if self.sample is not None and self.dataset is not None:
            raise SettingsError("--sample goes without a dataset")
        if self.sample not in (None, *SAMPLES):
            raise SettingsError(f"--sample must be {' or '.join(SAMPLES)}, not {self.sample!r}")
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
