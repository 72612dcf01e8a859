"""status."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.loop.leases import at_work
from alc_backend.store.database import Store
from alc_backend.store.models import Round, utc_now
from alc_backend.store.round_states import RUNNING


def workers(store: Store, round_: Round) -> int:
    """How many workers are at a round."""
    with store.reading() as session:
        return at_work(session, round_, store.settings)


def latest_round(store: Store, project_id: int) -> Round | None:
    """The round with the highest number, or None."""
    with store.reading() as session:
        return newest_round(session, project_id)


def newest_round(session: Session, project_id: int, *, lock: bool = False) -> Round | None:
    """The round with the highest number (``lock``: its row locked), or None."""
    latest = (
        select(Round).where(Round.project_id == project_id).order_by(Round.number.desc()).limit(1)
    )
    return session.scalars(latest.with_for_update(of=Round) if lock else latest).first()


def summary(round_: Round) -> dict[str, Any]:
    """A round as the command line, the service and reports show it."""
    return {
        "project": round_.project_id,
        "round": round_.number,
        "state": round_.state,
        "done": round_.done,
        "total": round_.total,
        "message": round_.message,
        "eta_s": _eta(round_),
        "error": round_.error,
        "warning": round_.warning,
        "answers": round_.answers,
        "data_miou": round_.data_miou,
        "model_miou": round_.model_miou,
        "class_iou": _by_class(round_),
        "estimated_accuracy": round_.estimate,
        "estimated_from_answers": round_.estimate_answers,
    }


def _by_class(round_: Round) -> dict[str, float | None] | None:
    if round_.class_iou is None:
        return None
    return dict(zip(round_.project.classes, round_.class_iou, strict=True))


def _eta(round_: Round) -> int | None:
    """Seconds until the present step ends, judged by its pace so far."""
    if round_.state not in RUNNING or not round_.done or round_.step_began_at is None:
        return None
    spent = (utc_now() - round_.step_began_at).total_seconds()
    return round(spent / round_.done * (round_.total - round_.done))
