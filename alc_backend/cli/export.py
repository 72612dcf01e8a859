"""``alc export``: writes the repaired dataset, or checks one that was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from alc_backend.cli.common import ProjectOption, open_store, project_id_of, telling
from alc_backend.errors import NotFoundError, PlatformError, SettingsError

if TYPE_CHECKING:
    from alc_backend.store.database import Store

console = Console()


def export(
    folder: Annotated[Path, typer.Argument(help="Where to write; an earlier export is replaced.")],
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            help="dataset (images/, labels/, objects/), voc, coco-panoptic, coco-instances, "
            "cityscapes, huggingface, cvat, segmentation-mask, mmseg, torchvision, nnunet, "
            "yolo-seg, or one of Datumaro's, such as label_me.",
        ),
    ] = "dataset",
    images: Annotated[bool, typer.Option(help="Copy the images too.")] = True,
    label_ids: Annotated[
        Path | None,
        typer.Option(
            "--cityscapes-ids", help='JSON file of label ids by class name: {"road": 7, …}.'
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Write nothing: compare an earlier export with the project."),
    ] = False,
    project: ProjectOption = None,
) -> None:
    """Write the repaired dataset, with what was changed, a data card and a manifest.

    Answers that webhooks lost are collected first when Label Studio, or CVAT, can be asked; CVAT is
    also given the corrected masks.
    """
    from alc_backend.datasets import cityscapes, layouts
    from alc_backend.loop.exports.export import export_project

    layouts.writer_of(format_name)
    if label_ids is not None and format_name != layouts.CITYSCAPES:
        raise SettingsError(f"--cityscapes-ids goes with --format {layouts.CITYSCAPES} only")
    ids = None if label_ids is None else cityscapes.read_mapping(label_ids)
    if verify:
        _verify(folder, project)
        return
    store = open_store()
    project_id = project_id_of(store, project)
    _collect_answers(store, project_id)
    with console.status("exporting") as status:
        tell = telling(status)
        count = export_project(
            store,
            project_id,
            folder,
            format_name=format_name,
            with_images=images,
            label_ids=ids,
            progress=lambda done, total, key: tell(f"exporting: {done}/{total} ({key})"),
        )
    console.print(f"{count} label maps written to {folder}", markup=False)


def _collect_answers(store: Store, project_id: int) -> None:
    """Collect lost answers, and show the corrected masks where annotators work."""
    from alc_backend.loop.rounds.platforms import platform_of

    platform = platform_of(store, project_id)
    try:
        platform.collect(project_id)
        warnings = platform.write_masks(project_id)
    except (SettingsError, PlatformError, NotFoundError) as error:
        warnings = [f"{platform.name} was not asked for lost answers: {error}"]
    for warning in warnings:
        Console(stderr=True).print(warning, style="yellow", markup=False, highlight=False)


def _verify(folder: Path, project: str | None) -> None:
    from alc_backend.loop.annotations import webhooks
    from alc_backend.loop.exports import manifest, snapshot

    exported = manifest.read(folder)
    store = open_store()
    taken = snapshot.take(store, project_id_of(store, project or exported["project"]))
    with console.status("checking") as status:
        found = manifest.differences(folder, exported, taken, telling(status))
    waiting = webhooks.waiting(store, taken.project.id)
    if waiting:
        found.append(f"{waiting} answers came that are not read in yet; run `alc reconcile`")
    for difference in found:
        console.print(difference, markup=False, highlight=False)
    if found:
        console.print(f"{len(found)} differences", highlight=False)
        raise typer.Exit(1)
    console.print(
        f"{folder} is as it was exported, and nothing has been answered since", markup=False
    )
