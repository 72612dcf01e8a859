"""The first step of a round: collecting answers, and fixing what the round knows.

Reads Label Studio and the label maps; writes the ledger (by ``annotations``) and the round's row.
Called by ``executor``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete

from alc_backend.core import metrics
from alc_backend.errors import LabelStudioError, RoundError
from alc_backend.labelstudio.client import Client
from alc_backend.loop.annotations import webhooks
from alc_backend.loop.annotations.confirmations import labeler_seconds
from alc_backend.loop.annotations.reconciliation import reconcile
from alc_backend.loop.questions.outcome import came_of
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store import ledger, tallies
from alc_backend.store.database import Store
from alc_backend.store.derived import RESOLVED, Counted
from alc_backend.store.label_map_reader import LabelMapReader
from alc_backend.store.models import TRAIN, Project, Round, Score

log = logging.getLogger(__name__)


def prepare(store: Store, round_: Round, report: Reporter) -> None:
    """Collect lost answers, note up to which ledger entry the round knows, and measure D_t.

    A Label Studio that cannot be asked is noted as the round's warning. Scores of an earlier
    attempt are removed. Raises RoundError for a project without images.
    """
    project_id = round_.project_id
    warning = None
    if round_.project.query_project is not None and store.settings.label_studio_api_key:
        report(0, 1, "collecting answers from Label Studio")
        try:
            with Client.from_settings(store.settings) as client:
                client.before_change = report.check
                webhooks.drain(store, lambda: client)
                reconcile(store, client, project_id, progress=report)
        except LabelStudioError as error:
            warning = f"started without looking for lost answers: {error}"
            log.warning("round %s %s", round_.number, warning)
    with store.reading() as session:
        upto = ledger.position(session, project_id)
        answers = tallies.count(session, project_id, Counted.SUPERPIXELS, RESOLVED)
        took = labeler_seconds(tallies.read(session, project_id, Counted.SCREENS))
        gain = came_of(session, project_id, upto)
    images = [image.id for image in store.images(project_id, TRAIN)]
    if not images:
        raise RoundError(f"project {project_id} has no images; import a dataset with `alc init`")
    maps = LabelMapReader(store, project_id, upto, order=images)
    miou = data_miou(store, project_id, maps, report)
    with report.session() as session:
        row = session.get_one(Round, round_.id)
        row.ledger_position, row.answers, row.data_miou = upto, answers, miou
        row.labeler_s = took
        row.expected_pixels, row.corrected_pixels = gain or (None, None)
        row.config = replace(row.config, overlap=row.project.overlap)
        row.warning = warning
        row.model_miou = row.class_iou = row.estimate = row.estimate_answers = None
        session.execute(delete(Score).where(Score.round_id == round_.id))  # of another network


def data_miou(
    store: Store,
    project_id: int,
    maps: LabelMapReader,
    report: Callable[[int, int, str], None] = lambda done, total, message: None,
) -> float | None:
    """The mIoU, in [0, 1], of the label maps against the ground truth of all training images.

    None where no image has ground truth, or no class occurs in it.
    """
    files = store.files(project_id)
    images = store.images(project_id, TRAIN)
    confusion: NDArray[np.int64] | None = None
    with store.reading() as session:
        classes = len(session.get_one(Project, project_id).classes)
    for done, image in enumerate(images):
        if files.has_label_map("ground_truth", image.id):
            report(done, len(images), "measuring the label maps")
            truth = files.read_label_map("ground_truth", image.id)
            part = metrics.confusion_matrix(truth, maps.read(image.id), classes)
            confusion = part if confusion is None else confusion + part
    return None if confusion is None else metrics.known(metrics.mean_iou(confusion))
