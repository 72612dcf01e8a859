"""``alc init`` and ``alc pseudo``: projects, and their images' first label maps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alc_backend.cli.common import ProjectOption, open_store, project_id_of, telling
from alc_backend.errors import FoundationError, SettingsError

if TYPE_CHECKING:
    from alc_backend.datasets.dataset import Dataset
    from alc_backend.foundation.warm_start import WarmStart
    from alc_backend.loop.projects.image_queue import Waiting
    from alc_backend.settings import Settings
    from alc_backend.store.database import Store

console = Console()

OBJECTS, SLIC = "objects", "slic"

POLL_S = 1.0


def init(
    dataset: Annotated[
        Path | None,
        typer.Argument(
            help="Folder with images/, pseudo_labels/, objects/ and classes.txt, or in the layout "
            "of VOC, COCO, Cityscapes or Hugging Face."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="A folder of plain images instead; with --classes.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Text file for --images: one class name per line.")
    ] = None,
    label_studio_project: Annotated[
        int | None,
        typer.Option("--from-project", help="Id of an existing Label Studio dataset project."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the project; default: the folder's name.")
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Folder with images/ and ground_truth/, for the model mIoU.")
    ] = None,
    superpixels: Annotated[
        str | None,
        typer.Option(
            help="Where superpixels come from: objects (those of the dataset), slic (colours "
            "alone), sam (the boxes around masks), grounded-sam (images without masks: "
            "Grounded-SAM makes both). Default: grounded-sam for --images, objects or else slic "
            "for a dataset, slic for --from-project."
        ),
    ] = None,
    superpixel_count: Annotated[int, typer.Option(help="SLIC superpixels per image.", min=1)] = 100,
    fill: Annotated[
        str | None,
        typer.Option(help="slic: cover what no object covers with SLIC superpixels."),
    ] = None,
    box_threshold: Annotated[
        float | None,
        typer.Option(help="Score of an object, default ALC_BOX_THRESHOLD.", min=0, max=1),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Import nothing when anything is wrong.")] = False,
    keys: Annotated[
        bool,
        typer.Option(
            "--set-keys", help="Let Enter submit and Space skip in Label Studio, for your user."
        ),
    ] = False,
) -> None:
    """Make the projects from a dataset, from plain images, or from an existing dataset project.

    Repeating it adds what is new and keeps the rest.
    """
    from alc_backend.datasets.plain_images import open_images
    from alc_backend.foundation import warm_start as ways
    from alc_backend.labelstudio.client import Client
    from alc_backend.labelstudio.projects import set_keys
    from alc_backend.loop.projects import image_queue
    from alc_backend.loop.projects.connection import (
        connect_project,
        take_up_project,
        upload_images,
    )
    from alc_backend.store.importing import project_named

    sources = (dataset is not None) + (images is not None) + (label_studio_project is not None)
    if sources != 1:
        raise SettingsError("give one of: a dataset folder, --images, or --from-project")
    if (images is None) != (classes is None):
        raise SettingsError("--images and --classes go together")
    if dataset is None and (val is not None or strict):
        raise SettingsError("--val and --strict go with a dataset folder")
    filled = is_filled(fill)
    store = open_store()
    method = superpixels or (
        OBJECTS if dataset is not None else ways.GROUNDED_SAM if images is not None else SLIC
    )
    start = warm_start(store.settings, method, superpixel_count, filled, box_threshold, dataset)
    given = any(value is not None for value in (superpixels, fill, box_threshold))
    if given or dataset is None:
        ways.check_files(start, store.settings)  # before anything is made
    with Client.from_settings(store.settings) as client, console.status("importing") as status:
        tell = telling(status)
        if dataset is not None:
            project_id = _import(store, dataset, name, val, method, start, strict, tell)
        elif images is not None:
            assert classes is not None
            plain = open_images(images, classes, blank=start.superpixels != ways.GROUNDED_SAM)
            project_id = project_named(
                store, name or images.absolute().name, plain.classes, start.as_dict()
            )
        else:
            assert label_studio_project is not None
            project_id = take_up_project(
                store,
                client,
                label_studio_project,
                name=name,
                warm_start=start.as_dict() if given else None,
            )
        project = connect_project(store, client, project_id, tell)
        if keys:
            set_keys(client)
        if images is not None:
            for problem in plain.problems:
                console.print(f"left out: {problem}", markup=False, highlight=False)
            upload_images(store, client, project_id, plain.image_paths(), tell)
        if dataset is None:
            noted, present = image_queue.note(store, client, project_id)
            console.print(f"{noted} new images, {present} already there")
    if dataset is None:
        _label(store, project_id, here=not _needs_models(store, project_id))
    url = store.settings.label_studio_links
    console.print(f"dataset project: {url}/projects/{project.dataset_project}/data")
    console.print(f"query project:   {url}/projects/{project.query_project}/data (Label All Tasks)")
    if not keys:
        console.print(
            "In Label Studio, Ctrl+Enter submits and Ctrl+Space skips. `alc init … --set-keys` "
            "makes it Enter and Space for the token's user; others set Submit and Skip themselves "
            "under Account & Settings → Hotkeys."
        )
    console.print("Start the first round with `alc round start` or Label Studio's Start Training.")


def pseudo(
    project: ProjectOption = None,
    here: Annotated[
        bool, typer.Option(help="Label them in this process; no worker is needed.")
    ] = False,
    retry: Annotated[
        bool, typer.Option(help="Try the images again that could not be done.")
    ] = False,
    cancel: Annotated[bool, typer.Option(help="Leave the images that still wait.")] = False,
    wait: Annotated[bool, typer.Option(help="Stay until all are done.")] = True,
    box_threshold: Annotated[
        float | None,
        typer.Option(help="From now on another score that objects must exceed.", min=0, max=1),
    ] = None,
) -> None:
    """Give new images of the dataset project their first label maps, and watch.

    Ctrl-C stops watching; workers go on.
    """
    from alc_backend.foundation.warm_start import WarmStart
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.projects import image_queue
    from alc_backend.store.models import Project

    store = open_store()
    project_id = project_id_of(store, project)
    if cancel:
        console.print(f"{image_queue.cancel(store, project_id)} waiting images were left")
        return
    if box_threshold is not None:
        with store.session() as session:
            row = session.get_one(Project, project_id)
            kept = WarmStart.of(row.warm_start).as_dict()
            row.warm_start = {**kept, "threshold": box_threshold}
    with Client.from_settings(store.settings) as client:
        noted, present = image_queue.note(store, client, project_id, retry=retry)
    console.print(f"{noted} new images, {present} already there")
    _label(store, project_id, here=here, wait=wait)


def is_filled(fill: str | None) -> bool:
    """Whether ``--fill`` asks for SLIC; SettingsError when it asks for anything else."""
    if fill not in (None, SLIC):
        raise SettingsError(f"--fill must be slic, not {fill!r}")
    return fill is not None


def warm_start(
    settings: Settings,
    method: str,
    count: int,
    fill: bool,
    threshold: float | None,
    dataset: Path | None,
) -> WarmStart:
    """How images begin; SettingsError for superpixels that do not go with their source."""
    from alc_backend.foundation import warm_start as ways

    if dataset is not None and method == ways.GROUNDED_SAM:
        raise SettingsError(
            "the dataset has masks already; use --superpixels sam for superpixels around them, or "
            "--images for images without masks"
        )
    if dataset is None and method == OBJECTS:
        raise SettingsError("--superpixels objects goes with a dataset folder")
    return ways.WarmStart(
        superpixels=ways.SLIC if method == OBJECTS else method,
        count=count,
        fill=fill,
        threshold=settings.box_threshold if threshold is None else threshold,
        detector=settings.detector,
        segmenter=settings.segmenter,
    )


def _import(
    store: Store,
    root: Path,
    name: str | None,
    val: Path | None,
    method: str,
    start: WarmStart,
    strict: bool,
    tell: Callable[[str], None],
) -> int:
    """Import a dataset with masks; the id of its project."""
    from alc_backend.datasets.layouts import open_dataset
    from alc_backend.store.importing import import_dataset

    opened = open_with(root, method, start, store.settings)
    held_out = None if val is None else open_dataset(val, validation=True)
    summary = import_dataset(
        store,
        opened,
        name or root.absolute().name,
        held_out,
        warm_start=start.as_dict(),
        strict=strict,
        progress=lambda done, key: tell(f"importing: {done} ({key})"),
    )
    summary.show(console)
    return summary.project_id


def open_with(root: Path, method: str, start: WarmStart, settings: Settings) -> Dataset:
    """Open a dataset with masks, its superpixels made by ``method`` as ``start`` says."""
    from alc_backend.datasets.layouts import open_dataset
    from alc_backend.foundation.warm_start import Warmer

    opened = open_dataset(root, start.count)
    warmer = Warmer(start, opened.classes, settings)
    if method == SLIC:
        opened.segment = lambda image, labels, objects: warmer.from_masks(image, labels)
    elif method != OBJECTS or start.fill:
        opened.segment = warmer.from_masks
    return opened


def _needs_models(store: Store, project_id: int) -> bool:
    from alc_backend.foundation.warm_start import SLIC as PLAIN
    from alc_backend.foundation.warm_start import WarmStart
    from alc_backend.store.models import Project

    with store.reading() as session:
        kept = session.get_one(Project, project_id).warm_start
    return WarmStart.of(kept).superpixels != PLAIN


def _label(store: Store, project_id: int, *, here: bool, wait: bool = True) -> None:
    """Label what waits, in this process or by the workers, and show how it goes."""
    from alc_backend.labelstudio.client import Client
    from alc_backend.loop.projects import image_queue, initial_labels
    from alc_backend.service.jobs.queues import Jobs, connect, is_up

    total = image_queue.waiting(store, project_id).left
    if total and here:
        with Client.from_settings(store.settings) as client, _Bar(store, project_id, total) as bar:
            initial_labels.work(
                store, client, project_id, limit=None, progress=lambda count, name: bar.show(name)
            )
    elif total:
        connection = connect(store.settings)
        Jobs(store.settings, connection).enqueue_images(project_id, image_queue.shards(total))
        if not is_up(connection):
            console.print(
                "no Redis answers, so no worker is at it yet: start `alc serve`, or use `alc "
                "pseudo --here`",
                style="yellow",
            )
            return
        if not wait:
            console.print(f"{total} images wait for a worker; `alc pseudo` shows how it goes")
            return
    if total:  # workers may have some of them, or all
        _watch(store, project_id, total)
        count = image_queue.count(store, project_id)
        console.print(
            f"{count.images} images with {count.superpixels} superpixels are there; "
            f"{count.hidden} detections were hidden by smaller ones, {count.empty} had no mask"
        )
    for problem in image_queue.problems(store, project_id):
        console.print(f"left out: {problem}", markup=False, highlight=False)
    error = image_queue.waiting(store, project_id).error
    if error is not None:
        raise FoundationError(f"{error}; then run `alc pseudo --retry`")


def _watch(store: Store, project_id: int, total: int) -> None:
    """Show how the workers get on until nothing waits, or something keeps everything waiting."""
    try:
        with _Bar(store, project_id, total) as bar:
            while (state := bar.show("labelling")).left and state.error is None:
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        console.print("The workers go on; `alc pseudo` shows how it goes, --cancel stops it.")


class _Bar:
    """A progress bar of the images that waited when it began."""

    def __init__(self, store: Store, project_id: int, total: int) -> None:
        self._store, self._project_id, self._total = store, project_id, total
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("labelling", total=total)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, name: str) -> Waiting:
        """Show what is done by now, whoever did it."""
        from alc_backend.loop.projects import image_queue

        state = image_queue.waiting(self._store, self._project_id)
        done = max(0, self._total - state.left)
        self._bar.update(self._task, completed=done, description=escape(name))
        return state
