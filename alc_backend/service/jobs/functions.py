"""The functions that workers run. Each is given a database id; the state is in the database."""

from __future__ import annotations

import logging
import threading
from functools import lru_cache

from rq import get_current_job

from alc_backend.errors import AlcError
from alc_backend.foundation.warm_start import WarmStart
from alc_backend.labelstudio.client import Client
from alc_backend.loop.projects import connection, image_queue, initial_labels
from alc_backend.loop.rounds import executor
from alc_backend.service.jobs.queues import Jobs, connect
from alc_backend.settings import settings
from alc_backend.store.database import Store
from alc_backend.store.models import Project

log = logging.getLogger(__name__)


_opening = threading.Lock()
"""Held while the store is opened: a worker's threads ask for it at the same moment."""


def store() -> Store:
    """The store of this worker process, opened once."""
    with _opening:
        return _opened()


@lru_cache(maxsize=1)
def _opened() -> Store:
    return Store(settings())


def run_part(part_id: int) -> None:
    """Do a part of a round's current step, and queue what follows."""
    jobs = _jobs()
    executor.run_part(store(), jobs.enqueue_part, part_id)


def import_new(project_id: int) -> None:
    """Queue the images that were added to a dataset project in Label Studio."""
    with store().reading() as session:
        project = session.get_one(Project, project_id)
    if project.dataset_project is None:
        return
    with Client.from_settings(settings()) as client:
        noted, _ = image_queue.note(store(), client, project_id)
    log.info("project %s: %s new images", project_id, noted)
    enqueue_images(_jobs())


def take_up(label_studio_project: int) -> None:
    """Make a project for one that was connected in Label Studio, and queue its images."""
    known = store().project_of(label_studio_project)
    if known is not None:
        return
    start = WarmStart.chosen(settings(), settings().superpixels)
    try:
        with Client.from_settings(settings()) as client:
            project_id = connection.take_up_project(
                store(), client, label_studio_project, warm_start=start.as_dict()
            )
            connection.connect_project(store(), client, project_id, log.info)
    except AlcError as error:
        log.error("Label Studio project %s was not taken up: %s", label_studio_project, error)
        return
    import_new(project_id)


def label_images(project_id: int) -> None:
    """Make the first label maps of some waiting images, and queue the rest."""
    try:
        label_some(project_id)
    except AlcError as error:
        log.error("project %s: images wait: %s", project_id, error)
        return
    enqueue_images(_jobs())


def label_some(project_id: int) -> None:
    """Make the first label maps of some waiting images; what keeps all from it is an AlcError."""
    job = get_current_job()

    def progress(done: int, name: str) -> None:
        if job is not None:
            job.meta.update(done=done, total=image_queue.SHARD, message=name)
            job.save_meta()

    with Client.from_settings(settings()) as client:
        done = initial_labels.work(store(), client, project_id, progress=progress)
    log.info(
        "project %s: %s images with %s superpixels, %s detections hidden, %s empty",
        project_id, done.labelled, done.superpixels, done.hidden, done.empty,
    )  # fmt: skip
    for problem in done.problems:
        log.warning("project %s: left out: %s", project_id, problem)


def enqueue_images(jobs: Jobs) -> None:
    """Queue the waiting images of all projects."""
    for project_id, count in image_queue.due(store()).items():
        jobs.enqueue_images(project_id, image_queue.shards(count))


def _jobs() -> Jobs:
    job = get_current_job()
    return Jobs(settings(), job.connection if job else connect(settings()))
