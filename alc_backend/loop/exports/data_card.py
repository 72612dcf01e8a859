"""The data card of an export: what is in it, who corrected it, and how.

Computes on a snapshot; writes the ``README.md`` of an export. Called by ``export``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from alc_backend.common.version import __version__
from alc_backend.datasets.layouts import HUGGINGFACE
from alc_backend.foundation.warm_start import GROUNDED_SAM
from alc_backend.loop.annotations import confirmations
from alc_backend.loop.exports import class_statistics
from alc_backend.loop.exports.changes import Change
from alc_backend.loop.exports.class_statistics import ClassCensus
from alc_backend.loop.exports.snapshot import Maps, Snapshot
from alc_backend.store.derived import (
    DISPUTED,
    ON_MACHINE,
    RESOLVED,
    STATES,
    WAITING,
    Counted,
    Way,
)
from alc_backend.store.kinds import ANSWERS, EntryKind
from alc_backend.store.models import Round
from alc_backend.store.tallies import Key

NAME = "README.md"

_FRONT_MATTER = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: train/**
---

"""
"""Tells Hugging Face ``datasets`` which of the files are the dataset."""

_LAYOUTS = {
    "dataset": "`images/`, `labels/` (palette PNGs of class ids, 255 = void), `classes.txt` (class "
    "names, by id).",
    "voc": "PASCAL VOC: `JPEGImages/` (images keep their own format), `SegmentationClass/` "
    "(palette PNGs of class ids, 255 = void), `ImageSets/Segmentation/train.txt`, `labels.txt` "
    "(class names, by id).",
    "coco-panoptic": "COCO panoptic: `images/`, `annotations/panoptic_train.json`, PNGs with "
    "segment id = R + 256·G + 65536·B, 0 = void. Every segment is the part of one superpixel that "
    "has one class; its field `superpixel` is the superpixel's id, 0 outside of all.",
    "coco-instances": "COCO instances: `images/`, `annotations/instances_train.json` with "
    "compressed run lengths. Every instance is the part of one superpixel that has one class; its "
    "field `superpixel` is the superpixel's id, 0 outside of all. The class named background is "
    "what no instance covers; void pixels are in the field `void` of their image, as run lengths.",
    "cityscapes": "Cityscapes: `leftImg8bit/train/`, `gtFine/train/` (label ids, 0 = unlabeled = "
    "void), `labelIds.json` (the label id of each class, by class id). Images that lie in no "
    "folder are in the city `_`; images keep their own format.",
    "huggingface": '`load_dataset("FOLDER")` of Hugging Face `datasets` gives `image`, `label` '
    "(class ids, 255 = void), `objects` (superpixels) and `image_id`. `id2label.json` names the "
    "classes.",
    "cvat": "CVAT for images 1.1: `annotations.xml`, `images/`, `classes.txt` (class names, by "
    "id). Every mask is the part of one superpixel that has one class; parts of one superpixel "
    "have its number as their group. The class named background is what no mask covers; where "
    "there is one, void pixels have the label `ignore`, else no mask.",
    "segmentation-mask": "Segmentation mask 1.1 of CVAT: `JPEGImages/` (images keep their own "
    "format), `SegmentationClass/` (PNGs in the colours of `labelmap.txt`, which names the classes "
    "by id; (224, 224, 192) = void), `SegmentationObject/` (a colour for each part of a superpixel "
    "that has one class other than background).",
    "mmseg": "MMSegmentation: `img_dir/train/`, `ann_dir/train/` (palette PNGs of class ids, 255 = "
    "void), `classes.txt` (class names, by id). Images are called `.jpg` whatever their format; "
    "those with an EXIF orientation were turned upright.",
    "torchvision": '`torchvision.datasets.VOCSegmentation("FOLDER", image_set="train")` reads it: '
    "`VOCdevkit/VOC2012/` with `JPEGImages/`, `SegmentationClass/` (palette PNGs of class ids, 255 "
    "= void), `ImageSets/Segmentation/train.txt`, `labels.txt`. Images are called `.jpg` whatever "
    "their format; those with an EXIF orientation were turned upright.",
    "nnunet": "nnU-Net, version 2: `imagesTr/` (PNGs with three channels, upright), `labelsTr/` (0 "
    "= background), `dataset.json` (the label of each class; void is `ignore`), `cases.csv` (the "
    "image of each case).",
    "yolo-seg": "Ultralytics: `images/train/`, `labels/train/` (an outline for each connected part "
    "of a superpixel that has one class other than background), `data.yaml`. The outlines, painted "
    "as Ultralytics does, give the masks exactly, but void has become background.",
}


_OF_DATUMARO = (
    "`dataset/`, in Datumaro's format {}. Void pixels have the label `ignore`; every label map was "
    "read back and compared."
)


class Census:
    """Counts what an export holds, image after image.

    ``classes`` counts what changed in each class; ``changes`` collects the changes.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.classes = ClassCensus(snapshot.project.classes)
        self.changes: list[Change] = []

    def add(self, maps: Maps, changes: Iterable[Change]) -> None:
        """Take in an image."""
        found = [*changes]
        self.classes.add(maps, found)
        self.changes += found


def write(root: Path, census: Census, format_name: str, with_images: bool, digest: str) -> None:
    """Write ``README.md`` below ``root``; ``digest`` is that of the snapshot."""
    taken = census.snapshot
    said: Counter[str] = Counter()
    people = set()
    for key, count in taken.counts.items():
        if key.what in (Counted.SAID, Counted.SAID_ON_PAGES):
            said[key.about] += count
            people.add(key.who)
    answered = sum(said[kind] for kind in ANSWERS)
    states = {state: taken.counts[Key(Counted.SUPERPIXELS, about=state)] for state in STATES}
    confirmed = {told.way: told.labels for told in confirmations.confirmed(taken.counts)}
    touched = {(change.image, change.superpixel) for change in census.changes if change.superpixel}
    pixels = sum(change.pixels for change in census.changes)
    statistics = census.classes.statistics()
    share = pixels / max(sum(line.after for line in statistics), 1)
    first = census.classes.first_miou
    parts = [
        _FRONT_MATTER if format_name == HUGGINGFACE else "",
        f"# {_plain(taken.project.name)}\n\n",
        "Label maps for semantic segmentation, corrected by annotators with Active Label "
        f"Correction.\nWritten by alc-backend {__version__} in the format `{format_name}`.\n\n",
        "Licence: _to be filled in by whoever publishes this dataset_\n\n",
        "## Contents\n\n",
        _table(
            ("", "count"),
            [
                ("images", len(taken.images)),
                ("classes", len(taken.project.classes)),
                ("answers in force", answered + said[EntryKind.SKIP]),
                ("— accepted", said[EntryKind.ACCEPT]),
                ("— corrected", said[EntryKind.CORRECT]),
                ("— skipped", said[EntryKind.SKIP]),
                ("tiles of pages unticked (a class ruled out)", said[EntryKind.RULED_OUT]),
                ("known wrong tiles that pages repeated", said[EntryKind.REPEATED]),
                ("answers reviewed on pages", said[EntryKind.REVIEWED]),
                ("direct edits in force", said[EntryKind.EDIT]),
                ("superpixels settled by answers", states[RESOLVED]),
                ("superpixels confirmed", sum(confirmed.values())),
                ("— singly", confirmed[Way.SINGLE]),
                ("— on pages of look-alikes", confirmed[Way.PAGE]),
                ("— by hand", confirmed[Way.EDIT]),
                ("superpixels on the machine's own word", states[ON_MACHINE]),
                ("superpixels disputed", states[DISPUTED]),
                ("superpixels waiting for another annotator", states[WAITING]),
                ("annotators", len(people)),
                ("annotators asked each question", taken.project.overlap),
                ("superpixels changed", len(touched)),
                ("pixels changed", f"{pixels} ({100 * share:.2f} %)"),
                (
                    "mean IoU of the initial label maps, measured by the repaired ones",
                    "–" if first is None else f"{first:.4f}",
                ),
                ("rounds", len(taken.rounds)),
            ],
        ),
        "## Files\n\n",
        _LAYOUTS.get(format_name, _OF_DATUMARO.format(_plain(format_name))),
        "" if with_images else " The images were left out; put them where the format expects them.",
        "\n\n`objects/` holds the superpixel maps (16 bit PNGs of superpixel ids, 0 = none; in "
        "colour, with id = R + 256·G + 65536·B, where an id is above 65,535). `changes.csv` and "
        "`changes.json` list what differs from the initial label maps: image, superpixel (0 = "
        "outside of all), from, to, pixels, round, annotators (numbers in Label Studio), their "
        "agreement where several were asked, when, the seconds the answer took, and for an "
        "answer on a page of look-alikes the tile's position (else 0) and the class the page "
        "proposed. What the machine wrote by itself, and nobody has confirmed, is of the kind "
        "`machine`. "
        "`manifest.json` has the SHA-256 of every file. Images with an EXIF orientation are "
        "meant upright, as browsers show them.\n\n",
        "## Classes\n\n",
        _table(class_statistics.COLUMNS, map(class_statistics.cells, statistics)),
        "Superpixels taken and given are those in which pixels were taken from the class, or given "
        "to it; the IoU before is that of the initial label maps, measured by the repaired ones. "
        "`classes.csv` has the same table.\n\n",
        "## Rounds\n\n",
        _table(_ROUND_COLUMNS, [_round(round_) for round_ in taken.rounds]),
        "## Origin\n\n",
        _beginnings(taken),
        f"SHA-256 of the initial label maps and the ledger: `{digest}`\n\n",
        "`alc export FOLDER --verify` compares this folder with the project it came from.\n",
    ]
    (root / NAME).write_text("".join(parts), "utf-8")


def _beginnings(taken: Snapshot) -> str:
    """Sentences about how many first label maps foundation models made, and with which settings."""
    made = Counter(
        (Path(start["detector"]).name, Path(start["segmenter"]).name, start["threshold"])
        for image in taken.images
        if (start := image.warm_start) is not None and start["superpixels"] == GROUNDED_SAM
    )
    return "".join(
        f"Foundation models made the first label maps of {count} images (detector "
        f"{_plain(detector)}, {f'segmenter {_plain(segmenter)}, ' if segmenter else ''}"
        f"box threshold {threshold:g}).\n\n"
        for (detector, segmenter, threshold), count in sorted(made.items())
    )


_ROUND_COLUMNS = (
    "round", "questions", "acquisition", "ε", "folds", "network", "weights", "input",
    "iterations × batch", "rate", "seed", "data mIoU", "model mIoU",
)  # fmt: skip


def _round(round_: Round) -> tuple[Any, ...]:
    config, training = round_.config, round_.config.training
    weights = training.encoder_weights
    return (
        round_.number,
        config.size,
        config.acquisition,
        config.epsilon,
        config.folds,
        training.encoder,
        PurePosixPath(PureWindowsPath(weights).as_posix()).name,  # no path of a machine
        training.input_size,
        f"{training.iterations} × {training.batch_size}",
        training.base_rate,
        training.seed,
        *(
            "–" if value is None else f"{value:.4f}"
            for value in (round_.data_miou, round_.model_miou)
        ),
    )


def _table(columns: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> str:
    heads = [f" {column} " for column in columns]
    lines = ["|".join(["", *heads, ""]), "|" + "---|" * len(heads)]
    lines += ["|".join(["", *(f" {_plain(str(cell))} " for cell in row), ""]) for row in rows]
    return "\n".join(lines) + "\n\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    one_line = " ".join(text.split())
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#|!" else c for c in one_line)
