"""``alc init``: a project from a dataset, plain images, a Label Studio project, or CVAT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from unicodedata import category

import typer
from rich.console import Console

from alc_backend.cli.common import open_store, print_problems, telling
from alc_backend.cli.labelling import label_waiting
from alc_backend.cli.warm_start import OBJECTS, SLIC, is_filled, open_with, warm_start
from alc_backend.errors import SettingsError
from alc_backend.settings import MOST_SUPERPIXELS

if TYPE_CHECKING:
    from alc_backend.foundation.warm_start import WarmStart
    from alc_backend.labelstudio.client import Client
    from alc_backend.store.database import Store
    from alc_backend.store.models import Project

console = Console()

Tell = Callable[[str], None]
"""Shows a sentence about what is being done."""


@dataclass(frozen=True)
class InitOptions:
    """The options of `alc init`."""

    dataset: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with images/, pseudo_labels/, objects/ and classes.txt, or in the layout "
            "of VOC, COCO, Cityscapes, Hugging Face, CVAT or MMSegmentation; or an export of Label "
            "Studio (a JSON file, or a folder of its masks), with --images."
        ),
    ] = None
    images: Annotated[
        Path | None,
        typer.Option(
            help="A folder of plain images instead, with --classes; beside an export of Label "
            "Studio or CVAT, the folder of its images."
        ),
    ] = None
    format_name: Annotated[
        str | None,
        typer.Option("--format", help="Format of Datumaro's that the dataset has: label_me, …"),
    ] = None
    classes: Annotated[
        Path | None,
        typer.Option(help="Text file for --images: one class name per line, in the ids' order."),
    ] = None
    label_studio_project: Annotated[
        int | None,
        typer.Option("--from-project", help="Id of an existing Label Studio dataset project."),
    ] = None
    cvat_task: Annotated[
        int | None, typer.Option(help="Id of a CVAT task of images with masks.", min=1)
    ] = None
    cvat_project: Annotated[
        int | None, typer.Option(help="Id of a CVAT project of such tasks.", min=1)
    ] = None
    name: Annotated[
        str | None, typer.Option(help="Name of the project; default: the folder's name.")
    ] = None
    val: Annotated[
        Path | None, typer.Option(help="Folder with images/ and ground_truth/, for the model mIoU.")
    ] = None
    superpixels: Annotated[
        str | None,
        typer.Option(
            help="Where superpixels come from: objects (those of the dataset), slic or seeds "
            "(colours alone), sam (the boxes around masks), grounded-sam (what Grounded-SAM finds; "
            "where there are no masks, it makes these too). Default: grounded-sam for --images, "
            "objects or else slic for a dataset or CVAT, slic for --from-project."
        ),
    ] = None
    superpixel_count: Annotated[
        int,
        typer.Option(help="Superpixels per image, of slic and seeds.", min=1, max=MOST_SUPERPIXELS),
    ] = 100
    fill: Annotated[
        str | None,
        typer.Option(help="slic: cover what no object covers with SLIC superpixels."),
    ] = None
    box_threshold: Annotated[
        float | None,
        typer.Option(help="Score of an object, default ALC_BOX_THRESHOLD.", min=0, max=1),
    ] = None
    strict: Annotated[bool, typer.Option(help="Import nothing when anything is wrong.")] = False
    keys: Annotated[
        bool,
        typer.Option(
            "--set-keys", help="Let Enter submit and Space skip in Label Studio, for your user."
        ),
    ] = False

    def check(self) -> None:
        """Raise SettingsError for options that do not go together."""
        sources = (
            self.dataset, self.plain_images, self.label_studio_project, self.cvat_task,
            self.cvat_project,
        )  # fmt: skip
        if sum(source is not None for source in sources) != 1:
            raise SettingsError(
                "give one of: a dataset folder, --images, --from-project, --cvat-task, or "
                "--cvat-project"
            )
        if self.keys and self.cvat_source is not None:
            raise SettingsError("--set-keys is about Label Studio; leave it out")
        if (self.plain_images is None) != (self.dataset is not None or self.classes is None):
            raise SettingsError("--images and --classes go together")
        if self.dataset is None and (self.val is not None or self.strict):
            raise SettingsError("--val and --strict go with a dataset folder")
        if self.format_name is not None and (self.dataset is None or self.images or self.classes):
            raise SettingsError("--format goes with a dataset folder, without --images, --classes")
        name = self.project_name
        if name is not None and (not name.strip() or {"Cc", "Cs"} & set(map(category, name))):
            raise SettingsError(
                f"the project's name {name!r} is empty or cannot be shown; give one with --name"
            )

    @property
    def plain_images(self) -> Path | None:
        """The folder of images that have no masks; None where there is a dataset with masks."""
        return self.images if self.dataset is None else None

    @property
    def has_masks(self) -> bool:
        """Whether the images come with masks."""
        return self.dataset is not None or self.cvat_source is not None

    @property
    def cvat_source(self) -> tuple[str, int] | None:
        """What of CVAT to take, "task" or "project" and its id; None for anything else."""
        if self.cvat_task is not None:
            return "task", self.cvat_task
        return None if self.cvat_project is None else ("project", self.cvat_project)

    @property
    def project_name(self) -> str | None:
        """The project's name: as given, or that of the folder; None for Label Studio's own."""
        folder = self.dataset or self.images
        if self.name is not None or folder is None:
            return self.name
        path = folder.absolute()
        return path.stem if path.is_file() else path.name

    @property
    def method(self) -> str:
        """Where superpixels come from: as asked, or what suits the source of the images."""
        from alc_backend.foundation.warm_start import GROUNDED_SAM

        if self.superpixels:
            return self.superpixels
        if self.has_masks:
            return OBJECTS
        return GROUNDED_SAM if self.plain_images is not None else SLIC

    @property
    def asks_for_a_start(self) -> bool:
        """Whether any option says how images begin."""
        given = (self.superpixels, self.fill, self.box_threshold)
        return any(value is not None for value in given)


def init(options: InitOptions) -> None:
    """Make the projects from a dataset, plain images, a dataset project, or a server of CVAT.

    Repeating it adds what is new and keeps the rest.
    """
    from alc_backend.foundation.warm_start import check_files
    from alc_backend.labelstudio.client import Client

    options.check()
    filled = is_filled(options.fill)
    store = open_store()
    start = warm_start(
        store.settings,
        options.method,
        options.superpixel_count,
        filled,
        options.box_threshold,
        options.has_masks,
    )
    if options.asks_for_a_start or not options.has_masks:
        check_files(start, store.settings)  # before anything is made
    if options.cvat_source is not None:
        from alc_backend.cli.init_cvat import init_from_cvat

        init_from_cvat(store, *options.cvat_source, options.name, options.method, start)
        return
    with Client.from_settings(store.settings) as client, console.status("importing") as status:
        project = _make(store, client, options, start, telling(status))
    if options.dataset is None:
        label_waiting(store, project.id, here=not _needs_models(store, project.id))
    _say_what_is_next(store, project, options)


def _make(
    store: Store, client: Client, options: InitOptions, start: WarmStart, tell: Tell
) -> Project:
    """Make the project, or add to it what is new, and connect it to Label Studio."""
    from alc_backend.labelstudio.projects import set_keys
    from alc_backend.loop.projects import image_queue
    from alc_backend.loop.projects.connection import connect_project

    if options.plain_images is not None:
        project = _from_images(store, client, options, start, tell)
    else:
        if options.dataset is not None:
            project_id = _from_dataset(store, options.dataset, options, start, tell)
        else:
            project_id = _from_label_studio(store, client, options, start)
        project = connect_project(store, client, project_id, tell)
    if options.keys:
        set_keys(client)
    if options.dataset is None:
        noted, present = image_queue.note(store, client, project.id)
        console.print(f"{noted} new images, {present} already there")
    return project


def _from_dataset(
    store: Store, root: Path, options: InitOptions, start: WarmStart, tell: Tell
) -> int:
    """Import a dataset with masks; the id of its project."""
    from alc_backend.datasets.layouts import open_dataset
    from alc_backend.loop.projects.connection import refuse_in_cvat
    from alc_backend.store.importing import import_dataset

    refuse_in_cvat(store, str(options.project_name))
    opened = open_with(
        root,
        options.method,
        start,
        store.settings,
        images=options.images,
        classes=options.classes,
        format_name=options.format_name,
    )
    held_out = None if options.val is None else open_dataset(options.val, validation=True)
    summary = import_dataset(
        store,
        opened,
        str(options.project_name),
        held_out,
        warm_start=start.as_dict(),
        strict=options.strict,
        progress=lambda done, key: tell(f"importing: {done} ({key})"),
    )
    summary.show(console)
    return summary.project_id


def _from_images(
    store: Store, client: Client, options: InitOptions, start: WarmStart, tell: Tell
) -> Project:
    """Make a project of plain images, connected, and upload them to Label Studio."""
    from alc_backend.datasets.plain_images import open_images
    from alc_backend.foundation.warm_start import GROUNDED_SAM
    from alc_backend.loop.projects.connection import connect_project, upload_images
    from alc_backend.store.importing import project_named

    assert options.images is not None
    assert options.classes is not None
    plain = open_images(options.images, options.classes, blank=start.superpixels != GROUNDED_SAM)
    name = str(options.project_name)
    project_id = project_named(store, name, plain.classes, start.as_dict())
    project = connect_project(store, client, project_id, tell)
    print_problems(console, plain.problems)
    upload_images(store, client, project_id, plain.image_paths(), tell)
    return project


def _from_label_studio(store: Store, client: Client, options: InitOptions, start: WarmStart) -> int:
    """Make a project of one in Label Studio; its id here."""
    from alc_backend.loop.projects.connection import take_up_project

    assert options.label_studio_project is not None
    return take_up_project(
        store,
        client,
        options.label_studio_project,
        name=options.project_name,
        warm_start=start.as_dict() if options.asks_for_a_start else None,
    )


def _needs_models(store: Store, project_id: int) -> bool:
    """Whether a project's images need the foundation models for their first label maps."""
    from alc_backend.foundation.warm_start import GROUNDED_SAM, SAM, WarmStart
    from alc_backend.store.models import Project

    with store.reading() as session:
        kept = session.get_one(Project, project_id).warm_start
    return WarmStart.of(kept).superpixels in (SAM, GROUNDED_SAM)


def _say_what_is_next(store: Store, project: Project, options: InitOptions) -> None:
    url = store.settings.label_studio_links
    console.print(f"dataset project: {url}/projects/{project.dataset_project}/data")
    console.print(f"query project:   {url}/projects/{project.query_project}/data (Label All Tasks)")
    if not options.keys:
        console.print(
            "In Label Studio, Ctrl+Enter submits and Ctrl+Space skips. `alc init … --set-keys` "
            "makes it Enter and Space for the token's user; others set Submit and Skip themselves "
            "under Account & Settings → Hotkeys."
        )
    console.print("Start the first round with `alc round start` or Label Studio's Start Training.")
