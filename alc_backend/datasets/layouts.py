"""The layouts of datasets: recognising and opening them, and the writer of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from alc_backend.datasets import (
    cityscapes,
    coco,
    cvat,
    folder,
    huggingface,
    instances,
    mmseg,
    nnunet,
    panoptic,
    segmentation_mask,
    through_datumaro,
    torchvision_voc,
    voc,
    yolo,
)
from alc_backend.datasets.dataset import TRAIN, VAL, Dataset, OutputImage
from alc_backend.datasets.names import inside
from alc_backend.errors import DatasetError

Writer = Callable[[Path, list[str], Iterable[OutputImage]], None]

DATASET, CITYSCAPES, HUGGINGFACE = "dataset", "cityscapes", "huggingface"

WRITERS: dict[str, Writer] = {
    DATASET: folder.write,
    "voc": voc.write,
    "coco-panoptic": panoptic.write,
    "coco-instances": instances.write,
    CITYSCAPES: cityscapes.write,
    HUGGINGFACE: huggingface.write,
    "cvat": cvat.write,
    "segmentation-mask": segmentation_mask.write,
    "mmseg": mmseg.write,
    "torchvision": torchvision_voc.write,
    "nnunet": nnunet.write,
    "yolo-seg": yolo.write,
}
"""The writer of each format, by the name that users give it."""

FOR_TRAINING_ONLY = ("nnunet", "yolo-seg")
"""The formats that are written, but not read: they do not hold the dataset as it is."""


def open_dataset(root: Path, superpixel_count: int = 100, validation: bool = False) -> Dataset:
    """A reader of the dataset in ``root``, whichever layout that has.

    ``superpixel_count`` is the approximate number of SLIC superpixels of an image where the dataset
    has none of its own. With ``validation`` the split ``val`` is read, and the caller says by
    :meth:`Dataset.use_classes` which classes the training dataset has. Raises DatasetError for a
    folder that cannot be used at all.
    """
    split = VAL if validation else TRAIN
    if (root / cvat.INDEX).is_file():
        return cvat.open_cvat(root, superpixel_count, validation)
    if (root / torchvision_voc.BASE).is_dir():
        base = inside(root, root / torchvision_voc.BASE)
        return voc.open_voc(base, superpixel_count, validation)
    if (root / mmseg.MASKS).is_dir():
        return mmseg.open_mmseg(root, superpixel_count, validation)
    if (root / voc.MASKS).is_dir():
        return voc.open_voc(root, superpixel_count, validation)
    if (root / cityscapes.MASKS).is_dir():
        return cityscapes.open_cityscapes(root, superpixel_count, validation)
    if huggingface.find_split(root, split) is not None:
        return huggingface.open_huggingface(root, superpixel_count, validation)
    path = coco.find_index(root, split)
    if path is None:
        return folder.open_folder(root, superpixel_count, validation)
    index = coco.read_index(inside(root, path))
    classes = [] if validation else coco.classes_of(root, index)
    kind = panoptic.Panoptic if index.panoptic else instances.Instances
    return kind(root, classes, superpixel_count, split, index=index)


def writer_of(name: str) -> Writer:
    """What writes a format, of ours or of Datumaro's; DatasetError for an unknown one."""
    if name in WRITERS:
        return WRITERS[name]
    try:
        return through_datumaro.writer(name)
    except DatasetError as error:
        raise DatasetError(f"{error}; ours are {', '.join(WRITERS)}") from error
