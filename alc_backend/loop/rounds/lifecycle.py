"""The loop: a round's states and transitions.

created → training → scoring → publishing → open → closed; failed and cancelled from each of the
first four. The database holds the state; :mod:`alc_backend.parts` is how workers move it on.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from alc_backend import parts
from alc_backend.claims import at_work
from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.errors import NotFoundError, RoundError, SettingsError
from alc_backend.segmentation.config import TrainingConfig, configured
from alc_backend.settings import Settings
from alc_backend.states import CANCELLED, CREATED, FAILED, PUBLISHING, RUNNING, SCORING
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import Answer, Part, Project, Query, Round, utc_now

log = logging.getLogger(__name__)

BATCH = ("size", "per_image", "min_area")
"""How a round's batch is chosen: what may still change when it goes on with its network trained."""


def start(
    store: Store,
    enqueue: parts.Enqueue,
    project_id: int,
    *,
    size: int | None = None,
    per_image: int | None = None,
    min_area: int | None = None,
    folds: int | None = None,
) -> tuple[Round, bool]:
    """Start a round, or return the running one; the second value says whether it was started.

    ``size``, ``per_image`` and ``min_area`` say how its batch is chosen, where not as in the
    settings; ``folds`` how many networks cross-fit. A round that goes on keeps what it was given.
    A failed or cancelled round goes on where it stopped; a training that was stopped goes on from
    its checkpoint unless answers or settings have changed. Raises SettingsError when the settings
    do not make a training, NotFoundError for an unknown project.
    """
    asked = {"size": size, "per_image": per_image, "min_area": min_area, "folds": folds}
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        with store.session() as session:
            round_, started = _start(store, session, project_id, given)
    except IntegrityError:  # somebody else was a moment faster
        with store.reading() as session:
            running = _latest(session, project_id)
        assert running is not None
        round_, started = running, False
    for part in parts.waiting(store, round_.id):
        enqueue(part)
    return round_, started


def _start(
    store: Store, session: Session, project_id: int, given: dict[str, int]
) -> tuple[Round, bool]:
    if session.get(Project, project_id) is None:
        raise NotFoundError(f"there is no project {project_id}; `alc round status` lists them")
    latest = _latest(session, project_id, lock=True)
    if latest is not None and latest.state in RUNNING:
        return latest, False
    if latest is not None and latest.state in (FAILED, CANCELLED):
        config = config_of(store.settings, {**latest.config["given"], **given})
        files, folds = store.files(project_id), latest.config["folds"]
        trained = given.get("folds", folds) == folds and all(
            files.has_network(latest.number, fold)
            for fold in (None, *(range(folds) if folds > 1 else ()))
        )
        _resume(session, latest, config, trained)
        return latest, True
    number = latest.number + 1 if latest else 1
    config = config_of(store.settings, given)
    round_ = Round(project_id=project_id, number=number, state=CREATED, config=config)
    session.add(round_)
    session.flush()
    parts.enter(session, round_, CREATED, [{}])
    return round_, True


def _resume(session: Session, round_: Round, config: dict[str, Any], trained: bool) -> None:
    """Let a stopped round go on: before its network is trained with new answers and settings."""
    if trained and round_.failed_in in (SCORING, PUBLISHING):
        round_.state = round_.failed_in
        round_.config = {**round_.config, **{name: config[name] for name in (*BATCH, "given")}}
        session.execute(
            update(Part)
            .where(Part.round_id == round_.id)
            .values(claimed_by=None, retry_at=None, retries=0)
        )
        known = session.scalar(
            select(func.count()).where(Part.round_id == round_.id, Part.step == round_.state)
        )
        if not known:  # it was stopped by an upgrade
            from alc_backend import steps

            parts.enter(session, round_, round_.state, steps.parts(session, round_, round_.state))
    else:
        round_.config = config
        parts.enter(session, round_, CREATED, [{}])
    round_.error, round_.failed_in = None, None
    round_.cancel_requested = False


def start_due(store: Store, enqueue: parts.Enqueue) -> list[Round]:
    """Start the next round of every project whose open round's batch is answered."""
    due: list[int] = []
    with store.reading() as session:
        for round_ in parts.open_rounds(session):
            if _latest(session, round_.project_id) is not round_:
                continue  # the next one is on its way, or was stopped
            given = session.scalar(
                select(func.count())
                .select_from(Answer)
                .where(
                    Answer.project_id == round_.project_id,
                    Answer.recorded_at >= round_.created_at,
                    Answer.kind.in_((ledger.ACCEPT, ledger.CORRECT)),
                )
            )
            asked = session.scalar(
                select(func.count()).select_from(Query).where(Query.round_id == round_.id)
            )
            wanted = min(round_.config["size"], asked or 0)
            if not wanted or (given or 0) < wanted:
                continue
            settled = ledger.judgement(session, round_.project_id).resolved
            if len(settled) - (round_.answers or 0) >= wanted:
                due.append(round_.project_id)
    return [start(store, enqueue, project_id)[0] for project_id in due]


def cancel(store: Store, project_id: int) -> Round:
    """Ask the running round to stop; RoundError when none is running."""
    with store.session() as session:
        latest = _latest(session, project_id, lock=True)
        if latest is None or latest.state not in RUNNING:
            raise RoundError(f"no round of project {project_id} is running")
        latest.cancel_requested = True
        if not at_work(session, latest, store.settings):
            parts.stop(session, latest, CANCELLED, None)
        return latest


def workers(store: Store, round_: Round) -> int:
    """How many workers are at a round."""
    with store.reading() as session:
        return at_work(session, round_, store.settings)


def latest_round(store: Store, project_id: int) -> Round | None:
    """The round with the highest number, or None."""
    with store.reading() as session:
        return _latest(session, project_id)


def model_version(number: int) -> str:
    """The version that Label Studio knows the predictions of round ``number`` by."""
    return f"alc-round-{number}"


def config_of(settings: Settings, given: dict[str, int]) -> dict[str, Any]:
    """The settings of a round, fixed at its start; ``given`` replaces those of the batch."""
    if settings.acquisition not in ACQUISITIONS:
        raise SettingsError(
            f"ALC_ACQUISITION {settings.acquisition!r} is unknown; choose one of "
            f"{', '.join(sorted(ACQUISITIONS))}"
        )
    return {
        "size": settings.round_size,
        "per_image": settings.per_image,
        "min_area": settings.min_area,
        "folds": settings.folds,
        **given,
        "given": given,
        "acquisition": settings.acquisition,
        "epsilon": settings.epsilon,
        "share_iterations": settings.share_iterations,
        "flip": settings.flip,
        "holdout": settings.holdout,
        "training": configured(settings).as_dict(),
    }


def training_of(round_: Round) -> TrainingConfig:
    """The hyper-parameters that the round was started with."""
    return TrainingConfig(**round_.config["training"])


def _latest(session: Session, project_id: int, *, lock: bool = False) -> Round | None:
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
