"""The first step of a round: collecting answers, and fixing what the round knows.

Reads what annotators answered (by ``platforms``) and the label maps; writes the ledger and the
round's row, and shows the corrected masks where annotators work.
Called by ``executor``.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from sqlalchemy import delete, select

from alc_backend.core import metrics
from alc_backend.errors import PlatformError, RoundError
from alc_backend.loop.annotations.confirmations import labeler_seconds
from alc_backend.loop.questions.outcome import came_of
from alc_backend.loop.rounds import platforms
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store import ground_truth, ledger, tallies
from alc_backend.store.database import Store
from alc_backend.store.derived import RESOLVED, Counted
from alc_backend.store.label_map_reader import LabelMapReader
from alc_backend.store.models import TRAIN, Image, Project, Round, Score

log = logging.getLogger(__name__)


def prepare(store: Store, round_: Round, report: Reporter) -> None:
    """Collect lost answers, note up to which ledger entry the round knows, and measure D_t.

    Answers that cannot be collected are noted as the round's warning, and so are masks that cannot
    be shown. Scores of an earlier attempt are removed. Raises RoundError for a project without
    images.
    """
    project_id = round_.project_id
    warning = None
    platform = platforms.platform_of(store, project_id)
    if platform.is_connected(project_id):
        report(0, 1, f"collecting answers from {platform.name}")
        doing = "without looking for lost answers"
        try:
            platform.collect(project_id, before_change=report.check, progress=report)
            doing = "without showing corrected masks to annotators"
            left = platform.write_masks(project_id, before_change=report.check, progress=report)
            warning = _about_masks(left)
        except PlatformError as error:
            warning = f"started {doing}: {error}"
            log.warning("round %s %s", round_.number, warning)
    with store.reading() as session:
        upto = ledger.position(session, project_id)
        answers = tallies.count(session, project_id, Counted.SUPERPIXELS, RESOLVED)
        took = labeler_seconds(tallies.read(session, project_id, Counted.SCREENS))
        gain = came_of(session, project_id, upto)
        member = select(Image.id).where(
            Image.project_id == project_id, Image.split == TRAIN, Image.removed.is_(None)
        )
        if session.scalar(member.limit(1)) is None:
            raise RoundError(
                f"project {project_id} has no images; import a dataset with `alc init`"
            )
    miou = _data_miou(store, project_id, upto, report)
    with report.session() as session:
        row = session.get_one(Round, round_.id)
        row.ledger_position, row.answers, row.data_miou = upto, answers, miou
        row.labeler_s = took
        row.expected_pixels, row.corrected_pixels = gain or (None, None)
        row.config = replace(row.config, overlap=row.project.overlap)
        row.warning = warning
        row.model_miou = row.class_iou = row.estimate = row.estimate_answers = None
        session.execute(delete(Score).where(Score.round_id == round_.id))  # of another network


def _about_masks(left: list[str]) -> str | None:
    """What an admin should know about masks that are not shown, or None."""
    if not left:
        return None
    return f"{len(left)} corrected masks are not shown to annotators (the first: {left[0]})"


def _data_miou(store: Store, project_id: int, upto: int, report: Reporter) -> float | None:
    """The mIoU, in [0, 1], of the label maps as they are after ledger entry ``upto``.

    They are compared with the ground truth of the training images that have one. None where no
    image has, or no class occurs in it.
    """
    images = store.images(project_id, TRAIN, with_truth=True)
    if not images:
        return None
    files = store.files(project_id)
    maps = LabelMapReader(store, project_id, upto, order=[image.id for image in images])
    with store.reading() as session:
        classes = len(session.get_one(Project, project_id).classes)
    confusion = np.zeros((classes, classes + 1), np.int64)
    for done, image in enumerate(images):
        report(done, len(images), "measuring the label maps")
        truth = ground_truth.read(files, image)
        if truth is not None:
            confusion += metrics.confusion_matrix(truth, maps.read(image.id), classes)
    return metrics.known(metrics.mean_iou(confusion))
