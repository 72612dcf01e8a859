"""The rounds of a project as they stand, for people and programs.

Reads the database; changes nothing. Called by commands, the service, ``overview`` and
``lifecycle``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.common.types import Json
from alc_backend.loop.leases import count_workers
from alc_backend.store.database import Store
from alc_backend.store.models import Round, utc_now
from alc_backend.store.round_states import RUNNING, RoundState


@dataclass(frozen=True)
class RoundSummary:
    """A round as the command line, the service, its pages and reports show it.

    ``done`` of ``total`` is the progress of the current step, ``eta_s`` the seconds until it ends
    (None when it does not run, or nothing is done yet), ``answers`` those that were given before
    the round began, ``labeler_s`` the seconds that people took for them, ``expected_pixels`` and
    ``corrected_pixels`` what came of what was expected of them, ``worthwhile`` how many superpixels
    hold most of what is expected now (see :class:`~alc_backend.store.models.Round`). ``data_miou``,
    ``model_miou`` and ``class_iou`` (by class name; None for a class that does not occur) lie in
    [0, 1]; None without ground truth. ``estimated_accuracy``, in [0, 1], comes from so many
    held-out answers, ``estimated_from_answers``.
    """

    project: int
    round: int
    state: RoundState
    done: int
    total: int
    message: str
    eta_s: int | None
    error: str | None
    warning: str | None
    answers: int | None
    labeler_s: float | None
    expected_pixels: float | None
    corrected_pixels: int | None
    worthwhile: int | None
    data_miou: float | None
    model_miou: float | None
    class_iou: dict[str, float | None] | None
    estimated_accuracy: float | None
    estimated_from_answers: int | None
    opened_at: datetime | None

    @classmethod
    def of(cls, round_: Round) -> RoundSummary:
        """The summary of a round."""
        return cls(
            project=round_.project_id,
            round=round_.number,
            state=round_.state,
            done=round_.done,
            total=round_.total,
            message=round_.message,
            eta_s=_eta(round_),
            error=round_.error,
            warning=round_.warning,
            answers=round_.answers,
            labeler_s=round_.labeler_s,
            expected_pixels=round_.expected_pixels,
            corrected_pixels=round_.corrected_pixels,
            worthwhile=round_.worthwhile,
            data_miou=round_.data_miou,
            model_miou=round_.model_miou,
            class_iou=_by_class(round_),
            estimated_accuracy=round_.estimate,
            estimated_from_answers=round_.estimate_answers,
            opened_at=round_.opened_at,
        )

    def as_json(self) -> Json:
        """The round as ``alc round status --json`` and ``GET /rounds`` tell it.

        When it was opened is left out.
        """
        values = asdict(self)
        del values["opened_at"]
        return values


def workers(store: Store, round_: Round) -> int:
    """How many living workers are at a round."""
    with store.reading() as session:
        return count_workers(session, round_, store.settings)


def latest_round(store: Store, project_id: int) -> Round | None:
    """The project's round with the highest number, or None."""
    with store.reading() as session:
        return newest_round(session, project_id)


def newest_round(session: Session, project_id: int, *, lock: bool = False) -> Round | None:
    """The project's round with the highest number, or None; with ``lock`` its row is locked."""
    latest = (
        select(Round).where(Round.project_id == project_id).order_by(Round.number.desc()).limit(1)
    )
    return session.scalars(latest.with_for_update(of=Round) if lock else latest).first()


def _by_class(round_: Round) -> dict[str, float | None] | None:
    if round_.class_iou is None:
        return None
    known = len(round_.class_iou)  # classes that were added later have none
    return dict(zip(round_.project.classes[:known], round_.class_iou, strict=True))


def _eta(round_: Round) -> int | None:
    """Seconds until the current step ends, judged by its pace so far."""
    if round_.state not in RUNNING or not round_.done or round_.step_began_at is None:
        return None
    spent = (utc_now() - round_.step_began_at).total_seconds()
    return round(spent / round_.done * (round_.total - round_.done))
