"""How images get their first superpixels and label maps, as `alc init` and `alc rebuild` ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alc_backend.errors import SettingsError

if TYPE_CHECKING:
    from alc_backend.datasets.dataset import Dataset
    from alc_backend.foundation.warm_start import WarmStart
    from alc_backend.settings import Settings

OBJECTS, SLIC, SEEDS = "objects", "slic", "seeds"


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
    has_masks: bool,
) -> WarmStart:
    """How images begin; SettingsError for superpixels that do not go with their source.

    ``method`` is what ``--superpixels`` names, ``count`` the superpixels of an image,
    ``threshold`` the score of an object in 0..1 (None: ALC_BOX_THRESHOLD); ``has_masks``: the
    images come with masks, of a dataset folder or CVAT.
    """
    from alc_backend.foundation import warm_start as methods

    if not has_masks and method == OBJECTS:
        raise SettingsError("--superpixels objects goes with a dataset folder")
    return methods.WarmStart.chosen(
        settings,
        methods.SLIC if method == OBJECTS else method,
        count=count,
        fill=fill,
        threshold=threshold,
    )


def open_with(
    root: Path,
    method: str,
    start: WarmStart,
    settings: Settings,
    *,
    images: Path | None = None,
    classes: Path | None = None,
    format_name: str | None = None,
) -> Dataset:
    """The dataset with masks in ``root``, its superpixels made by ``method`` as ``start`` says.

    ``root`` may be an export of Label Studio, which needs the folder ``images`` of the images and
    may have a list of ``classes``; the images of an export of CVAT may lie there, too.
    ``format_name`` is a format of Datumaro's, where the dataset has one. Raises
    SettingsError where they do not belong.
    """
    if format_name is not None:
        from alc_backend.datasets.through_datumaro import open_datumaro

        opened: Dataset = open_datumaro(root, format_name, start.count)
    else:
        opened = _opened(root, start.count, images, classes)
    choose_superpixels(opened, method, start, settings)
    return opened


def choose_superpixels(opened: Dataset, method: str, start: WarmStart, settings: Settings) -> None:
    """Let the superpixels of a dataset with masks be made by ``method``, as ``start`` says.

    With Grounded-SAM they are what it finds in the images, whatever the masks say there: so it can
    be asked about what they overlook.
    """
    from alc_backend.foundation.warm_start import GROUNDED_SAM, Warmer

    warmer = Warmer(start, opened.classes, settings)
    if method in (SLIC, SEEDS):
        opened.segment = lambda image, labels, objects: warmer.from_masks(image, labels)
    elif method == GROUNDED_SAM:
        opened.segment = lambda image, labels, objects: warmer.from_image(image).superpixels
    elif method != OBJECTS or start.fill:
        opened.segment = warmer.from_masks


def _opened(root: Path, count: int, images: Path | None, classes: Path | None) -> Dataset:
    from alc_backend.datasets import cvat
    from alc_backend.datasets.layouts import open_dataset
    from alc_backend.labelstudio import exported

    if exported.is_export(root):
        if images is None:
            raise SettingsError(
                f"{root} is an export of Label Studio, which has no images: say with --images "
                "where they are"
            )
        return exported.open_export(root, images, classes)
    if classes is not None:
        raise SettingsError("--classes goes with --images alone, or with an export of Label Studio")
    if images is None:
        return open_dataset(root, count)
    if not (root / cvat.INDEX).is_file():
        raise SettingsError(
            f"--images goes with an export of Label Studio or CVAT; {root} is neither"
        )
    return cvat.open_cvat(root, count, images=images)
