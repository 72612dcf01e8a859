"""One training by several machines: what node 0 does, whose worker has it, and the others.

Node 0 opens the ``meeting``, waits until all machines have come, and says how many processes each
starts; the others look into the database for a training that a living worker has, and join it. All
of them watch it: it ends on every machine as soon as it ends, fails or is cancelled on one. Reads
the rows of parts and rounds; starts processes by ``distributed``. Called by ``executor`` (node 0)
and by the service's node workers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from alc_backend.common import logs
from alc_backend.errors import CancelledError, SettingsError, TrainingError
from alc_backend.loop import leases
from alc_backend.loop.leases import Lease
from alc_backend.loop.rounds import meeting
from alc_backend.loop.rounds.distributed import (
    WATCH_EVERY_S,
    BrokenOffError,
    Share,
    launch,
    processes_here,
)
from alc_backend.loop.rounds.machines import Machines, share_out
from alc_backend.loop.rounds.presence import presence
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store.database import Store
from alc_backend.store.models import Part, Round
from alc_backend.store.round_states import RoundState, Step

log = logging.getLogger(__name__)

WAIT_S = 300.0
"""How long node 0 waits for the others before it does something else, in seconds."""

LOOK_EVERY_S = 0.5
"""How often node 0 looks meanwhile whether they have come, in seconds."""

TELL_EVERY_S = 3.0
"""How often it tells meanwhile that it waits, in seconds."""


class AloneError(Exception):
    """Other machines have not come: the training has to be tried again later."""


class StoppingError(Exception):
    """The worker is to stop, and has not begun what it was about to do."""


def lead(
    store: Store,
    machines: Machines,
    report: Reporter,
    is_stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Train a round, whose part ``report`` is about, as node 0 of several machines.

    Waits WAIT_S for the others; raises AloneError when some are still missing then, StoppingError
    when it ``is_stopping`` meanwhile. Raises CancelledError as ``report`` does, SettingsError where
    the machines cannot train together, TrainingError with the reason, wherever it is.
    """
    part, settings = report.claimed, store.settings
    batch_size = part.round.config.training.batch_size
    share_out([1] * machines.nodes, batch_size)  # tells what cannot be before it waits
    me = presence(leases.this_process(), machines, processes_here(settings))
    lease = Lease(store, part)
    with closing(meeting.Host(machines, _training(part), me, settings.stale_after_s)) as host:
        began, told = time.monotonic(), float("-inf")
        while len(present := host.present()) < machines.nodes:
            if is_stopping():
                raise StoppingError
            missing, now = machines.nodes - len(present), time.monotonic()
            waiting = f"waiting for {missing} of {machines.nodes} machines at {machines.meeting}"
            if now - told >= TELL_EVERY_S:
                report(0, max(1, part.total), waiting)
                told = now
            if now - began >= WAIT_S:
                raise AloneError(waiting)
            time.sleep(LOOK_EVERY_S)
        shares = share_out([there.processes for there in present], batch_size)
        host.begin(present, shares)

        def watch() -> None:
            lease.check()
            host.check()

        try:
            launch(settings, part, _share(machines, shares), report, watch)
        except BrokenOffError as error:
            lease.check()
            if not error.cause_elsewhere:
                raise
            raise TrainingError(host.reason() or str(error)) from None
        host.await_end()


def join(store: Store, machines: Machines, processes: int, joined: set[str]) -> bool:
    """Train with node 0, as another machine, if it waits for one; whether it did.

    It is called again and again with the same ``joined``, which remembers the trainings that it has
    had to do with: each is joined once. Raises CancelledError when the training was cancelled or
    has another worker, SettingsError where the machines cannot train together, TrainingError,
    AwayError where node 0 does not answer, or not any more.
    """
    trainings = {_training(part): part for part in running_trainings(store)}
    open_to = [training for training in trainings if training not in joined]
    if not open_to:
        return False
    me = presence(leases.this_process(), machines, processes)
    stale_after_s, hidden = store.settings.stale_after_s, store.settings.hidden()
    with closing(meeting.Guest(machines, open_to, me, stale_after_s)) as guest:
        part = trainings[guest.training]
        watched = _Watched(store, part)

        def watch() -> None:
            watched.look()
            guest.check()

        try:
            guest.enter()
            log.info(
                "joining the training of project %s, round %s, as machine %s of %s",
                part.round.project_id, part.round.number, machines.node, machines.nodes,
            )  # fmt: skip
            while (share := guest.share()) is None:
                watch()
                time.sleep(WATCH_EVERY_S)
            joined.add(guest.training)
            launch(store.settings, part, share, lambda done, total, message: None, watch)
        except meeting.DisplacedError:
            joined.add(guest.training)
            raise  # the other one trains
        except (SettingsError, TrainingError) as error:
            joined.add(guest.training)
            elsewhere = isinstance(error, BrokenOffError) and error.cause_elsewhere
            guest.tell_failure(logs.redact(str(error), hidden), cause_elsewhere=elsewhere)
            raise
        except meeting.AwayError:
            raise
        except CancelledError as error:
            guest.tell_failure(logs.redact(str(error), hidden), cause_elsewhere=False)
            raise
        except BaseException:
            guest.tell_failure("its worker was stopped", cause_elsewhere=False)
            raise
        guest.tell_end()
    return True


def running_trainings(store: Store) -> list[Part]:
    """The trainings that a living worker has now, and that are not to be cancelled."""
    with store.reading() as session:
        parts = session.scalars(
            select(Part)
            .join(Round, Round.id == Part.round_id)
            .where(
                Round.state == RoundState.TRAINING,
                Round.cancel_requested.is_(False),
                Part.step == Step.TRAINING,
                Part.claimed_by.is_not(None),
                Part.finished_at.is_(None),
            )
        ).all()
    return [part for part in parts if not leases.is_abandoned(part, store.settings)]


class _Watched(Lease):
    """The lease that node 0 has of a training, as another machine watches it."""

    def look(self) -> None:
        """Raise CancelledError once the training is over, or the worker that has it is dead.

        While the database is away nobody can know; the training goes on as long as node 0 does.
        """
        try:
            self.check()
        except SQLAlchemyError as error:
            log.warning("whether the training goes on cannot be read: %s", error)

    def _check(self, found: tuple[Part, Round] | None) -> None:
        super()._check(found)
        if found is not None and leases.is_abandoned(found[0], self._store.settings):
            raise CancelledError("node 0, which has the training, gives no sign of life any more")


def _training(part: Part) -> str:
    """What names a training, unlike any other one and any other attempt: its part and claim."""
    return f"{part.id}/{part.claimed_by}"


def _share(machines: Machines, shares: list[int]) -> Share:
    """Node 0's share."""
    return Share(f"tcp:{machines.host}:{machines.port}", 0, shares[0], sum(shares))
