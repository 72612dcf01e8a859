"""What a live project has reached, in the form that a report is made from."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from alc_backend.common.types import Json, Progress
from alc_backend.common.version import __version__
from alc_backend.core import metrics
from alc_backend.datasets.images import image_jpeg, label_png, read_image
from alc_backend.simulate.examples import SHOWN
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, VAL, EntryKind, Image, Project, Round, Superpixel


def document(
    store: Store, project_id: int, progress: Progress = lambda done, total, message: None
) -> Json:
    """The rounds of a project, what answers changed so far, and the images changed most."""
    files, images = store.files(project_id), store.images(project_id, TRAIN)
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        rounds = session.scalars(
            select(Round).where(Round.project_id == project_id).order_by(Round.number)
        ).all()
        maps = LabelMaps(session, files, project_id)
        entries = ledger.standing(session, project_id)
        superpixels = session.scalar(
            select(func.count())
            .select_from(Superpixel)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Image.project_id == project_id)
        )
    classes = len(project.classes)
    before, after, moves = np.zeros((3, classes, classes + 1), dtype=np.int64)
    known = 0
    changed: list[tuple[int, str, int]] = []
    for place, image in enumerate(images):
        progress(place, len(images), f"comparing {image.key}")
        first, now = files.read_label_map("initial", image.id), maps.read(image.id)
        moves += metrics.confusion_matrix(first, now, classes)
        if pixels := int((first != now).sum()):
            heapq.heappush(changed, (pixels, image.key, place))
            if len(changed) > SHOWN:
                heapq.heappop(changed)
        if files.has_label_map("ground_truth", image.id):
            known += 1
            truth = files.read_label_map("ground_truth", image.id)
            before += metrics.confusion_matrix(truth, first, classes)
            after += metrics.confusion_matrix(truth, now, classes)
    points = [
        _point(round_.number - 1, round_.answers or 0, round_.data_miou, round_.model_miou)
        for round_ in rounds
        if round_.answers is not None
    ]
    miou = metrics.known(metrics.mean_iou(after)) if known else None
    last = points[-1]["round"] + 1 if points else 0
    points.append(_point(last, maps.answers, miou, None))
    given = [entry for entry in entries if entry.kind in (EntryKind.ACCEPT, EntryKind.CORRECT)]
    if given:
        accepted = sum(entry.kind == EntryKind.ACCEPT for entry in given)
        points[-1]["accept_rate"] = accepted / len(given)
    points[-1]["hours"] = sum(entry.lead_time or 0.0 for entry in entries) / 3600
    if known:
        points[0]["class_iou"], points[-1]["class_iou"] = _iou(before), _iou(after)
    examples = []
    for pixels, key, place in sorted(changed, reverse=True):
        image = images[place]
        truth_png = None
        if files.has_label_map("ground_truth", image.id):
            truth_png = label_png(files.read_label_map("ground_truth", image.id))
        examples.append(
            {
                "key": key,
                "label": project.name,
                "caption": f"{pixels} pixels changed",
                "image": image_jpeg(read_image(files.image(image.id, image.suffix))),
                "before": label_png(files.read_label_map("initial", image.id)),
                "after": label_png(maps.read(image.id)),
                "truth": truth_png,
            }
        )
    return {
        "kind": "project",
        "settings": rounds[-1].config.as_json() if rounds else {},
        "versions": {"alc-backend": __version__},
        "dataset": {
            "images": len(images),
            "validation_images": len(store.images(project_id, VAL)),
            "superpixels": superpixels or 0,
            "classes": project.classes,
            "left_out": [],
        },
        "rows": [
            {
                "label": project.name,
                "oracle": "annotators",
                "rounds": points,
                "confusion_before": before.tolist() if known else [],
                "confusion_after": after.tolist() if known else [],
            }
        ],
        "moved": moves.tolist(),
        "examples": examples,
        "examples_note": "The images of which most pixels were changed.",
    }


def _point(number: int, answers: int, data_miou: float | None, model_miou: float | None) -> Json:
    return {
        "round": number,
        "answers": answers,
        "data_miou": data_miou,
        "model_miou": model_miou,
        "precision": None,
        "recall": None,
        "accept_rate": None,
        "hours": None,
    }


def _iou(confusion: NDArray[np.int64]) -> list[float | None]:
    return [metrics.known(value) for value in metrics.class_iou(confusion).tolist()]
