"""The life of a round: starting one, going on with one that stopped, cancelling.

created → training → scoring → publishing → open → closed; each of the first four may end as failed
or cancelled instead. The database holds the state; workers move it on by
:mod:`alc_backend.loop.rounds.work_items`. Touches the rows of rounds and parts; reads the ledger.
Called by commands and the service, never by workers.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from alc_backend.errors import NotFoundError, RoundError, SettingsError
from alc_backend.loop.config import round_config
from alc_backend.loop.leases import count_workers
from alc_backend.loop.rounds import plan, work_items
from alc_backend.loop.rounds.plan import Work
from alc_backend.loop.rounds.status import newest_round
from alc_backend.segmentation import folds as folds_of
from alc_backend.store import standing
from alc_backend.store.cvat import CvatQuestion, CvatTask
from alc_backend.store.database import Store
from alc_backend.store.kinds import ANSWERS, EntryKind
from alc_backend.store.models import TRAIN, LedgerEntry, Part, Project, Query, Round
from alc_backend.store.pages import Page, Tile
from alc_backend.store.round_config import BATCH_OPTIONS, RoundConfig
from alc_backend.store.round_states import RUNNING, STOPPED, RoundState

log = logging.getLogger(__name__)


def start(
    store: Store,
    enqueue: work_items.Enqueue,
    project_id: int,
    *,
    size: int | None = None,
    per_image: int | None = None,
    min_area: int | None = None,
    folds: int | None = None,
) -> tuple[Round, bool]:
    """Start a round, or return the running one; the second value says whether it was started.

    ``size``, ``per_image`` and ``min_area`` say how its batch is chosen, ``folds`` how many
    networks are cross-fitted; what is None is as in the settings. A failed or cancelled round goes
    on where it stopped, with the values it was started with unless new ones are given; its training
    goes on from the checkpoint unless answers or settings have changed. One that Label Studio was
    told to follow is opened as it is where other values are given, and the next one begins with
    them. ``enqueue`` puts the first
    parts on their queues. Raises SettingsError when the settings do not make a training,
    NotFoundError for an unknown project.
    """
    asked = {"size": size, "per_image": per_image, "min_area": min_area, "folds": folds}
    given = {name: value for name, value in asked.items() if value is not None}
    trained = _is_trained(store, project_id)
    try:
        with store.session() as session:
            round_, started = _start(store, session, project_id, given, trained)
    except IntegrityError:  # somebody else was a moment faster
        with store.reading() as session:
            running = newest_round(session, project_id)
        assert running is not None
        round_, started = running, False
    for part in work_items.ready_parts(store, round_.id):
        enqueue(part)
    return round_, started


def _is_trained(store: Store, project_id: int) -> bool:
    """Whether the networks of a project's latest round are there, where it was stopped.

    Folds without images have no network. No session is open meanwhile: the storage may be slow.
    """
    with store.reading() as session:
        latest = newest_round(session, project_id)
    if latest is None or latest.state not in STOPPED:
        return False
    keys = [image.key for image in store.images(project_id, TRAIN)]
    try:
        networks = folds_of.networks(keys, latest.config.training.seed, latest.config.folds)
    except SettingsError:  # too few images for the folds, which the training has told
        return False
    files = store.files(project_id)
    return all(files.has_network(latest.number, fold) for fold in networks)


def _start(
    store: Store, session: Session, project_id: int, given: dict[str, int], trained: bool
) -> tuple[Round, bool]:
    if session.get(Project, project_id) is None:
        raise NotFoundError(f"there is no project {project_id}; `alc round status` lists them")
    latest = newest_round(session, project_id, lock=True)
    if latest is not None and latest.state in RUNNING:
        return latest, False
    if latest is not None and latest.state in STOPPED and _is_replaced(latest, given):
        work_items.open_round(session, latest)
        latest.error, latest.failed_in = None, None
    elif latest is not None and latest.state in STOPPED:
        config = round_config(store.settings, {**latest.config.given, **given})
        folds = latest.config.folds
        _resume(session, latest, config, trained and given.get("folds", folds) == folds)
        return latest, True
    number = latest.number + 1 if latest else 1
    config = round_config(store.settings, given)
    round_ = Round(project_id=project_id, number=number, state=RoundState.CREATED, config=config)
    session.add(round_)
    session.flush()
    work_items.begin_step(session, round_, RoundState.CREATED, [Work()])
    return round_, True


def _is_replaced(round_: Round, given: dict[str, int]) -> bool:
    """Whether a stopped round is in force in Label Studio, and another one was asked for.

    It is not done again then: labelers may be at its questions.
    """
    differs = any(getattr(round_.config, name) != value for name, value in given.items())
    return round_.switched_at is not None and differs


def _resume(session: Session, round_: Round, config: RoundConfig, trained: bool) -> None:
    """Let a stopped round go on where it stopped.

    One whose network is not ``trained`` begins anew, with the answers and settings of now, unless
    Label Studio was told to follow its queue: then only what comes after that is left to do.
    """
    in_force = round_.switched_at is not None
    if not in_force:  # a batch that was half brought into CVAT is chosen anew
        half_made = select(CvatTask.id).where(CvatTask.round_id == round_.id)
        session.execute(delete(CvatQuestion).where(CvatQuestion.cvat_task_id.in_(half_made)))
    if in_force or (trained and round_.failed_in in (RoundState.SCORING, RoundState.PUBLISHING)):
        round_.state = RoundState.PUBLISHING if in_force else RoundState(round_.failed_in)
        batch = {name: getattr(config, name) for name in (*BATCH_OPTIONS, "given")}
        round_.config = replace(round_.config, **batch)
        session.execute(
            update(Part)
            .where(Part.round_id == round_.id)
            .values(claimed_by=None, retry_at=None, retries=0)
        )
        known = session.scalar(
            select(func.count()).where(Part.round_id == round_.id, Part.step == round_.state)
        )
        if not known:  # it was stopped by an upgrade
            works = plan.works_of(session, round_, round_.state)
            work_items.begin_step(session, round_, round_.state, works)
    else:
        round_.config = config
        work_items.begin_step(session, round_, RoundState.CREATED, [Work()])
    round_.error, round_.failed_in = None, None
    round_.cancel_requested = False


def start_due(store: Store, enqueue: work_items.Enqueue) -> list[Round]:
    """Start the next round of every project whose open round's batch is answered.

    Returns the rounds. A project whose next round is on its way, or was stopped, is left alone.
    """
    with store.reading() as session:
        due = [
            round_.project_id
            for round_ in work_items.open_rounds(session)
            if newest_round(session, round_.project_id) is round_ and _is_answered(session, round_)
        ]
    return [start(store, enqueue, project_id)[0] for project_id in due]


def _is_answered(session: Session, round_: Round) -> bool:
    """Whether all that the round asks is settled, or as much, since it began, as its batch has.

    A superpixel counts once, however often it was asked about, singly or on pages; one that was
    mended by hand counts, one of which a class was only ruled out does not.
    """
    queries = select(Query.superpixel_id).where(Query.round_id == round_.id)
    tiles = select(Tile.superpixel_id).join(Page, Page.id == Tile.page_id)
    pages = tiles.where(Page.round_id == round_.id, Page.closed_at.is_(None), ~Tile.repeated)
    asked = {*session.scalars(queries), *session.scalars(pages)}
    since = session.execute(  # counted first: judging what is new takes longer
        select(LedgerEntry.kind, func.count().label("many"))
        .where(
            LedgerEntry.project_id == round_.project_id,
            LedgerEntry.id > (round_.ledger_position or 0),
        )
        .group_by(LedgerEntry.kind)
    )
    new = {row.kind: row.many for row in since}
    given = sum(new.get(kind, 0) for kind in ANSWERS)
    few = given < min(round_.config.size, len(asked)) and EntryKind.EDIT not in new
    if not asked or few:
        return False
    if asked <= standing.settled_among(session, asked):
        return True
    since_then = standing.settled_since(session, round_.project_id, round_.ledger_position or 0)
    return len(since_then) >= round_.config.size


def cancel(store: Store, project_id: int) -> Round:
    """Ask the running round to stop, and return it; RoundError when none can be stopped.

    It is cancelled at once where no worker is at it, else when the last one lets go. Once Label
    Studio was told to follow its queue it is in force, and opens.
    """
    with store.session() as session:
        latest = newest_round(session, project_id, lock=True)
        if latest is None or latest.state not in RUNNING:
            raise RoundError(f"no round of project {project_id} is running")
        if latest.switched_at is not None:
            raise RoundError(
                f"round {latest.number} cannot be cancelled any more: Label Studio was told to "
                "follow its queue, and it opens as soon as Label Studio answers; start the next "
                "one to replace it"
            )
        latest.cancel_requested = True
        if not count_workers(session, latest, store.settings):
            work_items.stop_round(session, latest, RoundState.CANCELLED, None)
        return latest
