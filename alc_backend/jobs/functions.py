"""What the workers run. Arguments are database ids; the state is in the database."""

from __future__ import annotations

import logging
from functools import lru_cache

from rq import get_current_job

from alc_backend import parts
from alc_backend.jobs.queues import Jobs, connect
from alc_backend.labelstudio.client import Client
from alc_backend.settings import settings
from alc_backend.store.database import Store
from alc_backend.store.models import Project

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def store() -> Store:
    """The store of this worker process."""
    return Store(settings())


def run_part(part_id: int) -> None:
    """Do a part of a round's present step and queue what follows."""
    jobs = _jobs()
    parts.run_part(store(), jobs.enqueue_part, part_id)


def import_new(project_id: int) -> None:
    """Import the pictures that were added to a dataset project in Label Studio."""
    from alc_backend import connect as connecting

    with store().reading() as session:
        project = session.get_one(Project, project_id)
    if project.dataset_project is None:
        return
    with Client.from_settings(settings()) as client:
        summary = connecting.import_project(store(), client, project.dataset_project)
    log.info("project %s: %s new pictures", project_id, summary.imported)
    for problem in summary.problems:
        log.warning("project %s: left out: %s", project_id, problem)


def _jobs() -> Jobs:
    job = get_current_job()
    return Jobs(settings(), job.connection if job else connect(settings()))
