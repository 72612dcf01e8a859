"""What the workers run. Arguments are database ids; the state is in the database."""

from __future__ import annotations

from functools import lru_cache

from rq import get_current_job

from alc_backend import rounds
from alc_backend.jobs.queues import Jobs, connect
from alc_backend.settings import settings
from alc_backend.store.database import Store
from alc_backend.store.models import Round


@lru_cache(maxsize=1)
def store() -> Store:
    """The store of this worker process."""
    return Store(settings())


def run_step(round_id: int) -> None:
    """Do a round's present step and queue the next one."""
    jobs = _jobs()
    rounds.run_step(store(), jobs.enqueue_step, round_id)
    with store().reading() as session:
        round_ = session.get(Round, round_id)
    if round_ is not None and round_.state == rounds.OPEN:
        jobs.enqueue_prune(round_.project_id)


def prune(project_id: int) -> None:
    """Remove what older rounds left behind."""
    from alc_backend import steps

    steps.prune(store(), project_id)


def _jobs() -> Jobs:
    job = get_current_job()
    return Jobs(settings(), job.connection if job else connect(settings()))
