"""The loop: a round's states and transitions.

created → training → scoring → publishing → open → closed; failed and cancelled from each of the
first four. The database holds the state. A step has one part or several; a part is claimed by one
worker at a time and may be repeated after a crash at any moment. The transaction that finishes
the last part moves the round on and makes the parts of the next step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from alc_backend.claims import Heartbeat, Reporter, at_work, is_dead, is_ours, locked, take
from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.errors import (
    AlcError,
    CancelledError,
    LabelStudioAwayError,
    NotFoundError,
    RoundError,
    SettingsError,
)
from alc_backend.segmentation.config import TrainingConfig, training_config
from alc_backend.settings import Settings
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import Part, Project, Query, Round, utc_now

log = logging.getLogger(__name__)

CREATED, TRAINING, SCORING, PUBLISHING = "created", "training", "scoring", "publishing"
OPEN, CLOSED, FAILED, CANCELLED = "open", "closed", "failed", "cancelled"
RUNNING = (CREATED, TRAINING, SCORING, PUBLISHING)
NEXT = {CREATED: TRAINING, TRAINING: SCORING, SCORING: PUBLISHING, PUBLISHING: OPEN}

Enqueue = Callable[[Part], object]
"""Puts a part of a round's present step on its queue; does nothing when it is there already."""

RETRY_S = (5, 10, 20, 40, 80, 160, 300)
"""Pauses before a part is tried again that Label Studio's absence stopped; the last one repeats."""

BATCH = ("size", "per_image", "min_area")
"""How a round's batch is chosen: what may still change when it goes on with its network trained."""


def start(
    store: Store,
    enqueue: Enqueue,
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
    for part in _waiting_parts(store, round_.id):
        enqueue(part)
    return round_, started


def _start(
    store: Store, session: Session, project_id: int, given: dict[str, int]
) -> tuple[Round, bool]:
    if session.get(Project, project_id) is None:
        raise NotFoundError(f"there is no project {project_id}; `alc round status` lists them")
    latest = _latest(session, project_id)
    if latest is not None and latest.state in RUNNING:
        return latest, False
    if latest is not None and latest.state in (FAILED, CANCELLED):
        config = _config(store.settings, {**latest.config["given"], **given})
        files, folds = store.files(project_id), latest.config["folds"]
        trained = given.get("folds", folds) == folds and all(
            files.has_network(latest.number, fold)
            for fold in (None, *(range(folds) if folds > 1 else ()))
        )
        _resume(session, latest, config, trained)
        return latest, True
    number = latest.number + 1 if latest else 1
    config = _config(store.settings, given)
    round_ = Round(project_id=project_id, number=number, state=CREATED, config=config)
    session.add(round_)
    session.flush()
    _enter(session, round_, CREATED, [{}])
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
        if not known:
            _enter(session, round_, round_.state, [{}])
    else:
        round_.config = config
        _enter(session, round_, CREATED, [{}])
    round_.error, round_.failed_in = None, None
    round_.cancel_requested = False


def _enter(session: Session, round_: Round, state: str, works: list[dict[str, Any]]) -> None:
    """Let a round begin a step, in parts; ``works`` says what each is to do.

    ``total`` in a part's work is how much that is, where it is known beforehand.
    """
    round_.state, round_.step_began_at, round_.message = state, None, ""
    round_.done, round_.total = 0, sum(work.get("total", 0) for work in works)
    gone = delete(Part).where(Part.round_id == round_.id)
    session.execute(gone if state == CREATED else gone.where(Part.step == state))
    session.add_all(
        Part(round_id=round_.id, step=state, number=number, work=work, total=work.get("total", 0))
        for number, work in enumerate(works)
    )


def _waiting_parts(store: Store, round_id: int | None = None) -> list[Part]:
    """The parts of running rounds' present steps that no living worker has and that may begin."""
    wanted = (
        select(Part)
        .join(Round, Round.id == Part.round_id)
        .where(Round.state.in_(RUNNING), Part.step == Round.state, Part.finished_at.is_(None))
        .order_by(Part.id)
    )
    if round_id is not None:
        wanted = wanted.where(Round.id == round_id)
    with store.reading() as session:
        parts = session.scalars(wanted).all()
    now = utc_now()
    return [
        part
        for part in parts
        if (part.claimed_by is None or is_dead(part, store.settings))
        and (part.retry_at is None or part.retry_at <= now)
    ]


def start_due(store: Store, enqueue: Enqueue) -> list[Round]:
    """Start the next round of every project whose open round's batch is answered."""
    due: list[int] = []
    with store.reading() as session:
        for round_ in _open_rounds(session):
            if _latest(session, round_.project_id) is not round_:
                continue  # the next one is on its way, or was stopped
            asked = session.scalar(
                select(func.count()).select_from(Query).where(Query.round_id == round_.id)
            )
            wanted = min(round_.config["size"], asked or 0)
            settled = ledger.judgement(session, round_.project_id).resolved
            if wanted and len(settled) - (round_.answers or 0) >= wanted:
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
            _stop(session, latest, CANCELLED, None)
        return latest


def run_part(store: Store, enqueue: Enqueue, part_id: int) -> None:
    """Do a part of a round's present step; after the last part, queue those of the next step.

    Returns without doing anything when another worker has the part or nothing is to be done.
    While Label Studio is away the part waits, and is tried again later.
    """
    part = _claim(store, part_id)
    if part is None:
        return
    from alc_backend import steps  # the network's libraries load here, in the worker

    round_ = part.round
    log.info(
        "project %s round %s: %s, part %s", round_.project_id, round_.number, part.step, part.number
    )
    following: list[Part] = []
    try:
        with Heartbeat(store, part):
            steps.STEPS[part.step](store, part, Reporter(store, part))
        following = _finish(store, part)
    except CancelledError:
        _end(store, part, CANCELLED, None)
    except LabelStudioAwayError as error:
        log.warning("round %s waits: %s", round_.number, error)
        _postpone(store, part, str(error))
    except AlcError as error:
        log.error("round %s failed: %s", round_.number, error)
        _end(store, part, FAILED, str(error))
    except Exception as error:
        _end(store, part, FAILED, f"{type(error).__name__}: {error}; see the worker's log")
        raise
    for waiting in following:
        enqueue(waiting)


def recover(store: Store, enqueue: Enqueue) -> int:
    """Queue again the parts whose worker has died or that never reached a queue; how many."""
    parts = _waiting_parts(store)
    for part in parts:
        enqueue(part)
    return len(parts)


def disputing(store: Store) -> list[int]:
    """The projects whose open round lacks questions about what annotators disagree about."""
    with store.reading() as session:
        return [round_.project_id for round_ in _open_rounds(session) if round_.disputes]


def _open_rounds(session: Session) -> list[Round]:
    return list(
        session.scalars(
            select(Round)
            .join(Project, Project.id == Round.project_id)
            .where(Round.state == OPEN, Project.query_project.is_not(None))
        )
    )


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


def _config(settings: Settings, given: dict[str, int]) -> dict[str, Any]:
    """The settings of a round, fixed at its start; ``given`` replaces those of the batch."""
    if settings.acquisition not in ACQUISITIONS:
        raise SettingsError(
            f"ALC_ACQUISITION {settings.acquisition!r} is unknown; choose one of "
            f"{', '.join(sorted(ACQUISITIONS))}"
        )
    weights = settings.encoder_weights
    if weights not in (None, "imagenet", "none") and not Path(str(weights)).is_file():
        raise SettingsError(
            f"ALC_ENCODER_WEIGHTS {weights!r} is no file; name one, or imagenet or none"
        )
    training = training_config(
        settings.preset,
        seed=settings.seed,
        encoder=settings.encoder,
        input_size=settings.input_size,
        iterations=settings.iterations,
        batch_size=settings.batch_size,
        base_rate=settings.base_rate,
        encoder_weights=settings.encoder_weights,
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
        "training": training.as_dict(),
    }


def training_of(round_: Round) -> TrainingConfig:
    """The hyper-parameters that the round was started with."""
    return TrainingConfig(**round_.config["training"])


def _latest(session: Session, project_id: int, *, lock: bool = False) -> Round | None:
    latest = (
        select(Round).where(Round.project_id == project_id).order_by(Round.number.desc()).limit(1)
    )
    return session.scalars(latest.with_for_update(of=Round) if lock else latest).first()


def _claim(store: Store, part_id: int) -> Part | None:
    with store.session() as session:
        found = locked(session, part_id)
        if found is None:
            return None
        part, round_ = found
        if round_.state != part.step or part.finished_at is not None:
            return None
        if part.claimed_by is not None and not is_dead(part, store.settings):
            return None
        if round_.cancel_requested:
            part.claimed_by = None
            if not at_work(session, round_, store.settings):
                _stop(session, round_, CANCELLED, None)
            return None
        take(part)
        if round_.step_began_at is None:
            round_.step_began_at = utc_now()
        return part


def _finish(store: Store, claimed: Part) -> list[Part]:
    """End a part; the last one of a step ends the step. Returns the parts that can begin."""
    from alc_backend import steps

    with store.session() as session:
        found = locked(session, claimed.id)
        if found is None or not is_ours(found, claimed):
            return []  # taken over by another worker after a long silence
        part, round_ = found
        if round_.cancel_requested:
            raise CancelledError("cancelled")
        part.claimed_by, part.finished_at = None, utc_now()
        part.done = part.total
        session.flush()
        left = session.scalar(
            select(func.count()).where(
                Part.round_id == round_.id, Part.step == part.step, Part.finished_at.is_(None)
            )
        )
        if left:
            return []
        following = NEXT[part.step]
        if following != OPEN:
            _enter(session, round_, following, steps.parts(session, round_, following))
        else:
            _open(session, round_)
    return _waiting_parts(store, claimed.round_id)


def _open(session: Session, round_: Round) -> None:
    round_.state, round_.opened_at, round_.message = OPEN, utc_now(), ""
    session.execute(
        update(Round)
        .where(
            Round.project_id == round_.project_id,
            Round.number < round_.number,
            Round.state == OPEN,
        )
        .values(state=CLOSED)
    )


def _end(store: Store, claimed: Part, state: str, error: str | None) -> None:
    """Give a part back after it was cancelled or has failed; its round ends with it.

    A cancelled round ends with the last worker that lets go of it.
    """
    with store.session() as session:
        found = locked(session, claimed.id)
        if found is None or not is_ours(found, claimed):
            return
        part, round_ = found
        part.claimed_by = None
        session.flush()
        if state == FAILED or not at_work(session, round_, store.settings):
            _stop(session, round_, state, error)


def _postpone(store: Store, claimed: Part, reason: str) -> None:
    with store.session() as session:
        found = locked(session, claimed.id)
        if found is None or not is_ours(found, claimed):
            return
        part, round_ = found
        pause = RETRY_S[min(part.retries, len(RETRY_S) - 1)]
        part.claimed_by, part.retries = None, part.retries + 1
        part.retry_at = utc_now() + timedelta(seconds=pause)
        round_.message = f"trying again in {pause} s: {reason}"


def _stop(session: Session, round_: Round, state: str, error: str | None) -> None:
    round_.failed_in, round_.state, round_.error = round_.state, state, error
    round_.cancel_requested = False
    session.execute(update(Part).where(Part.round_id == round_.id).values(claimed_by=None))


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
