"""What a live project has reached, in the form that a report page is made from.

Load the rounds and the ledger, compare the label maps image by image, pick the images that changed
most, and render them. Reads the database, the label maps and the images; changes nothing. Called by
``alc report``.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from alc_backend.common.types import Json, Progress
from alc_backend.common.version import __version__
from alc_backend.core import metrics
from alc_backend.datasets.images import image_jpeg, label_png, read_image
from alc_backend.loop.annotations.confirmations import said_singly, share_accepted
from alc_backend.loop.exports import snapshot
from alc_backend.loop.exports.changes import Changes
from alc_backend.loop.exports.class_statistics import ClassCensus
from alc_backend.loop.exports.snapshot import Snapshot
from alc_backend.simulate.examples import SHOWN
from alc_backend.simulate.figures import Point
from alc_backend.store import ground_truth
from alc_backend.store.database import Store
from alc_backend.store.derived import RESOLVED, Counted
from alc_backend.store.models import VAL, Image, Round
from alc_backend.store.tallies import Key


@dataclass(frozen=True)
class LiveProject:
    """What a report is made from: a project as it stands, and all its rounds."""

    taken: Snapshot
    rounds: Sequence[Round]
    validation_images: int


@dataclass(frozen=True)
class Comparison:
    """The first label maps of a project beside those of now.

    ``moves``, ``before`` and ``after`` are confusion matrices int64 (C, C + 1) as
    :func:`alc_backend.core.metrics.confusion_matrix` makes them: of the first maps with those of
    now, and of the ground truth with each; ``known`` is the number of images that have ground
    truth. ``classes`` counts what changed in each class. ``most_changed`` are the images that
    changed most, with the number of pixels, the most changed first.
    """

    moves: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    known: int
    classes: ClassCensus
    most_changed: list[tuple[Image, int]]


def document(
    store: Store, project_id: int, progress: Progress = lambda done, total, message: None
) -> Json:
    """The rounds of a project, what answers changed so far, and the images changed most.

    The form is that of :func:`alc_backend.simulate.results.document`.
    """
    live = _load(store, project_id)
    compared = _compare(live, progress)
    name, classes = live.taken.project.name, live.taken.project.classes
    return {
        "kind": "project",
        "settings": live.rounds[-1].config.as_json() if live.rounds else {},
        "versions": {"alc-backend": __version__},
        "dataset": {
            "images": len(live.taken.images),
            "validation_images": live.validation_images,
            "superpixels": live.taken.counts[Key(Counted.ASKABLE)],
            "classes": classes,
            "left_out": [],
        },
        "rows": [
            {
                "label": name,
                "oracle": "annotators",
                "rounds": [point.as_json() for point in _points(live, compared)],
                "confusion_before": compared.before.tolist() if compared.known else [],
                "confusion_after": compared.after.tolist() if compared.known else [],
            }
        ],
        "moved": compared.moves.tolist(),
        "class_statistics": compared.classes.as_json(),
        "examples": [_example(live, *changed) for changed in compared.most_changed],
        "examples_note": "The images of which most pixels were changed.",
    }


def _load(store: Store, project_id: int) -> LiveProject:
    with store.reading() as session:
        rounds = session.scalars(
            select(Round).where(Round.project_id == project_id).order_by(Round.number)
        ).all()
    taken = snapshot.take(store, project_id)
    return LiveProject(taken, rounds, len(store.images(project_id, VAL)))


def _compare(live: LiveProject, progress: Progress) -> Comparison:
    """Compare the label maps, one image at a time."""
    taken, told = live.taken, Changes(live.taken)
    images, files = taken.images, taken.files
    classes = len(taken.project.classes)
    before, after, moves = np.zeros((3, classes, classes + 1), dtype=np.int64)
    by_class = ClassCensus(taken.project.classes)
    known = 0
    changed: list[tuple[int, str, int]] = []
    for index, image in enumerate(images):
        progress(index, len(images), f"comparing {image.key}")
        maps = snapshot.read_maps(taken, image)
        by_class.add(maps, told.of(image, maps))
        first, now = maps.initial, maps.labels
        moves += metrics.confusion_matrix(first, now, classes)
        if pixels := int((first != now).sum()):
            heapq.heappush(changed, (pixels, image.key, index))
            if len(changed) > SHOWN:
                heapq.heappop(changed)
        truth = ground_truth.read(files, image)
        if truth is not None:
            known += 1
            before += metrics.confusion_matrix(truth, first, classes)
            after += metrics.confusion_matrix(truth, now, classes)
    most = [(images[index], pixels) for pixels, _, index in sorted(changed, reverse=True)]
    return Comparison(moves, before, after, known, by_class, most)


def _points(live: LiveProject, compared: Comparison) -> list[Point]:
    """The rounds that were measured, and the present moment."""
    counts = live.taken.counts
    measured = [round_ for round_ in live.rounds if round_.answers is not None]
    points = [
        Point(
            round_.number - 1,
            round_.answers or 0,
            data_miou=round_.data_miou,
            model_miou=round_.model_miou,
        )
        for round_ in measured
    ]
    points.append(
        Point(
            round=points[-1].round + 1 if points else 0,
            answers=counts[Key(Counted.SUPERPIXELS, about=RESOLVED)],
            data_miou=metrics.known(metrics.mean_iou(compared.after)) if compared.known else None,
            accept_rate=share_accepted(said_singly(counts)),
            hours=_seconds(counts) / 3600,
        )
    )
    if compared.known:
        points[0] = replace(points[0], class_iou=_class_iou(compared.before))
        points[-1] = replace(points[-1], class_iou=_class_iou(compared.after))
    return points


def _seconds(counts: Counter[Key]) -> float:
    """How long annotators were at the questions, pages and images that count."""
    took = (key.number * many for key, many in counts.items() if key.what == Counted.SCREENS)
    return sum(took) / 1000


def _class_iou(confusion: NDArray[np.int64]) -> list[float | None]:
    return [metrics.known(value) for value in metrics.class_iou(confusion).tolist()]


def _example(live: LiveProject, image: Image, pixels: int) -> Json:
    """An image with its label maps, as base64 text."""
    files = live.taken.files
    known = ground_truth.read(files, image)
    truth = None if known is None else label_png(known)
    return {
        "key": image.key,
        "label": live.taken.project.name,
        "caption": f"{pixels} pixels changed",
        "image": image_jpeg(read_image(files.image(image.id, image.suffix))),
        "before": label_png(files.read_label_map("initial", image.id)),
        "after": label_png(live.taken.maps.read(image.id)),
        "truth": truth,
    }
