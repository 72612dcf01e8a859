"""The loop: a round's states and transitions.

created → training → scoring → publishing → open → closed; failed and cancelled from each of the
first four. The database holds the state; a step is claimed by one worker at a time, may be
repeated after a crash at any moment, and ends in one transaction that moves the round on.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.errors import AlcError, CancelledError, NotFoundError, RoundError, SettingsError
from alc_backend.segmentation.config import TrainingConfig, training_config
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.models import Project, Round, utc_now

log = logging.getLogger(__name__)

CREATED, TRAINING, SCORING, PUBLISHING = "created", "training", "scoring", "publishing"
OPEN, CLOSED, FAILED, CANCELLED = "open", "closed", "failed", "cancelled"
RUNNING = (CREATED, TRAINING, SCORING, PUBLISHING)
NEXT = {CREATED: TRAINING, TRAINING: SCORING, SCORING: PUBLISHING, PUBLISHING: OPEN}

Enqueue = Callable[[Round], None]
"""Puts the round's present step on its queue; does nothing when it is there already."""

REPORT_EVERY_S = 0.5

BATCH = ("size", "per_image", "min_area")
"""How a round's batch is chosen: what may still change when it goes on with its network trained."""

_LOCK = {"of": Round}
"""Lock only the round's row where the database has row locks (SQLite locks the whole file)."""


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
    enqueue(round_)
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
            files.network(latest.number, fold).is_file()
            for fold in (None, *(range(folds) if folds > 1 else ()))
        )
        _resume(latest, config, trained)
        return latest, True
    number = latest.number + 1 if latest else 1
    config = _config(store.settings, given)
    round_ = Round(project_id=project_id, number=number, state=CREATED, config=config)
    session.add(round_)
    session.flush()
    return round_, True


def _resume(round_: Round, config: dict[str, Any], trained: bool) -> None:
    """Let a stopped round go on: before its network is trained with new answers and settings."""
    if trained and round_.failed_in in (SCORING, PUBLISHING):
        round_.state = round_.failed_in
        round_.config = {**round_.config, **{name: config[name] for name in (*BATCH, "given")}}
    else:
        round_.state, round_.config = CREATED, config
    round_.error, round_.failed_in = None, None
    round_.cancel_requested, round_.claimed_by = False, None


def cancel(store: Store, project_id: int) -> Round:
    """Ask the running round to stop; RoundError when none is running."""
    with store.session() as session:
        latest = _latest(session, project_id)
        if latest is None or latest.state not in RUNNING:
            raise RoundError(f"no round of project {project_id} is running")
        latest.cancel_requested = True
        if latest.claimed_by is None or _is_dead(latest, store.settings):
            _stop(latest, CANCELLED, None)
        return latest


def run_step(store: Store, enqueue: Enqueue, round_id: int) -> None:
    """Do the present step of a round and put the next one on its queue.

    Returns without doing anything when another worker has the step or nothing is to be done.
    """
    round_ = _claim(store, round_id)
    if round_ is None:
        return
    from alc_backend import steps  # the network's libraries load here, in the worker

    log.info("project %s round %s: %s", round_.project_id, round_.number, round_.state)
    try:
        with _Heartbeat(store, round_):
            steps.STEPS[round_.state](store, round_, Reporter(store, round_))
        following = _move_on(store, round_)
    except CancelledError:
        _end(store, round_, CANCELLED, None)
    except AlcError as error:
        log.error("round %s failed: %s", round_.number, error)
        _end(store, round_, FAILED, str(error))
    except Exception as error:
        _end(store, round_, FAILED, f"{type(error).__name__}: {error}; see the worker's log")
        raise
    else:
        if following is not None:
            enqueue(following)


def recover(store: Store, enqueue: Enqueue) -> int:
    """Queue again the steps whose worker has died or that never reached a queue; how many."""
    with store.reading() as session:
        running = list(session.scalars(select(Round).where(Round.state.in_(RUNNING))))
    orphans = [r for r in running if r.claimed_by is None or _is_dead(r, store.settings)]
    for round_ in orphans:
        enqueue(round_)
    return len(orphans)


def latest_round(store: Store, project_id: int) -> Round | None:
    """The round with the highest number, or None."""
    with store.reading() as session:
        return _latest(session, project_id)


def model_version(number: int) -> str:
    """The version that Label Studio knows the predictions of round ``number`` by."""
    return f"alc-round-{number}"


class Reporter:
    """A step's progress in the round's row; raises CancelledError once cancelling is asked for."""

    def __init__(self, store: Store, round_: Round) -> None:
        self._store, self._round_id, self._claim = store, round_.id, round_.claimed_by
        self._last = float("-inf")

    def __call__(self, done: int, total: int, message: str) -> None:
        """Report ``done`` of ``total`` and a sentence; written a few times a second at most."""
        now = time.monotonic()
        if now - self._last < REPORT_EVERY_S and done < total:
            with self._store.reading() as session:
                round_ = session.get_one(Round, self._round_id)
        else:
            self._last = now
            with self._store.session() as session:
                round_ = session.get_one(Round, self._round_id)
                round_.done, round_.total, round_.message = done, total, message
        if round_.cancel_requested or round_.claimed_by != self._claim:
            raise CancelledError("cancelled, or taken over by another worker")


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


def _latest(session: Session, project_id: int) -> Round | None:
    return session.scalars(
        select(Round).where(Round.project_id == project_id).order_by(Round.number.desc()).limit(1)
    ).first()


def _claim(store: Store, round_id: int) -> Round | None:
    with store.session() as session:
        round_ = session.get(Round, round_id, with_for_update=_LOCK)
        if round_ is None or round_.state not in RUNNING:
            return None
        if round_.claimed_by is not None and not _is_dead(round_, store.settings):
            return None
        if round_.cancel_requested:
            _stop(round_, CANCELLED, None)
            return None
        round_.claimed_by = f"{socket.gethostname()}|{os.getpid()}|{secrets.token_hex(4)}"
        round_.heartbeat_at = utc_now()
        round_.step_began_at, round_.done, round_.total, round_.message = utc_now(), 0, 0, ""
        return round_


def _move_on(store: Store, claimed: Round) -> Round | None:
    """End a step; returns the round when it has a next step."""
    with store.session() as session:
        round_ = session.get_one(Round, claimed.id, with_for_update=_LOCK)
        if round_.claimed_by != claimed.claimed_by:
            return None  # taken over by another worker after a long silence
        if round_.cancel_requested:
            raise CancelledError("cancelled")
        round_.state, round_.claimed_by = NEXT[round_.state], None
        if round_.state != OPEN:
            return round_
        round_.opened_at, round_.message = utc_now(), ""
        session.execute(
            update(Round)
            .where(
                Round.project_id == round_.project_id,
                Round.number < round_.number,
                Round.state == OPEN,
            )
            .values(state=CLOSED)
        )
        return None


def _end(store: Store, claimed: Round, state: str, error: str | None) -> None:
    with store.session() as session:
        round_ = session.get_one(Round, claimed.id, with_for_update=_LOCK)
        if round_.claimed_by == claimed.claimed_by:
            _stop(round_, state, error)


class _Heartbeat:
    """Says every few seconds, while a step works, that its worker is alive."""

    def __init__(self, store: Store, claimed: Round) -> None:
        self._store, self._claimed = store, claimed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._store.settings.stale_after_s / 5):
            try:
                with self._store.session() as session:
                    session.execute(
                        update(Round)
                        .where(
                            Round.id == self._claimed.id,
                            Round.claimed_by == self._claimed.claimed_by,
                        )
                        .values(heartbeat_at=utc_now())
                    )
            except SQLAlchemyError as error:
                log.warning("the heartbeat could not be written, trying again: %s", error)


def _stop(round_: Round, state: str, error: str | None) -> None:
    round_.failed_in, round_.state, round_.error = round_.state, state, error
    round_.claimed_by, round_.cancel_requested = None, False


def _is_dead(round_: Round, settings: Settings) -> bool:
    """Whether the worker that claimed the round is gone."""
    host, process, _ = (round_.claimed_by or "").split("|")
    if host == socket.gethostname() and not psutil.pid_exists(int(process)):
        return True
    limit = utc_now() - timedelta(seconds=settings.stale_after_s)
    return round_.heartbeat_at is None or round_.heartbeat_at < limit


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
