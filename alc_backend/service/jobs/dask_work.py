"""What the processes of a cluster under Dask run in place of a worker: :func:`work`, by its name.

They have settings of their own. There, a part or an image is claimed, done and left to others as
by any worker; neither secrets nor settings come over the scheduler, and plain values alone go back.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
import time
from functools import lru_cache

from alc_backend.common import logs
from alc_backend.common.private import private_files
from alc_backend.common.processes import end_hung
from alc_backend.common.types import Json
from alc_backend.common.version import __version__
from alc_backend.errors import AlcError, SettingsError
from alc_backend.loop import leases
from alc_backend.loop.rounds import executor
from alc_backend.service.jobs import functions
from alc_backend.settings import settings
from alc_backend.store.connections import database_url, may_exist
from alc_backend.store.models import Part, Project

log = logging.getLogger(__name__)

PART, IMAGES = "part", "images"
"""What a task of the cluster is: a part of a round's scoring, or some waiting images."""

PAUSE_S = 5.0
"""How long a process that could not do a task lets others take the next one."""

_one_at_a_time = threading.Lock()
"""Held by the task of this process: a network is loaded once in it, and memory is reckoned so."""


def mark_of(project: Project) -> str:
    """The name of a file in the storage, which only those know who see the project's row.

    Who knows it and finds it has the database and the storage that belong together.
    """
    facts = f"{project.id} {project.created_at.timestamp()}"
    return f"projects/{project.id}/cluster-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def work(kind: str, row_id: int, project_id: int, mark: str, version: str) -> Json:
    """Do a part of the scoring (PART, its id), or make first label maps of a project (IMAGES).

    One task at a time is done in a process, whatever its number of threads. Returns ``following``,
    the ids of the parts that can begin now; ``problem``, why it was not done, or None; and
    ``seconds``. Raises nothing: an exception would travel as a pickle.
    """
    began, problem, hidden = time.monotonic(), None, list[str]()
    following: list[Part] = []
    with _one_at_a_time, private_files():
        try:
            _check_version(version)
            hidden = settings().hidden()
            _begin()
            _check_place(project_id, mark)
            if kind == PART:
                executor.run_part(functions.store(), following.append, row_id)
            else:
                functions.label_some(project_id)
        except AlcError as error:
            problem = f"{_here()}: {error}"
        except Exception as error:
            log.exception("%s %s", kind, row_id)
            problem = f"{_here()}: {type(error).__name__}: {error}; see its log"
        if problem is not None:
            problem = logs.redact(problem, hidden)
            log.error("%s %s was not done: %s", kind, row_id, problem)
            time.sleep(PAUSE_S)
    return {
        "following": [part.id for part in following],
        "problem": problem,
        "seconds": time.monotonic() - began,
    }


def _here() -> str:
    return f"the Dask worker on {socket.gethostname()}"


def _check_version(version: str) -> None:
    """Raise SettingsError unless this is the version of the worker that asks."""
    if version != __version__:
        raise SettingsError(
            f"it has version {__version__} of alc-backend, and `alc worker` has {version}; install "
            "the same one on both"
        )


@lru_cache(maxsize=1)
def _begin() -> None:
    """Make this process, once, one of ours: its log, and its end when it hangs."""
    if not may_exist(database_url(settings())):
        raise SettingsError(
            "it has no database; give it the settings of `alc worker` in its environment "
            "(DATABASE_URL, ALC_FILES_URL, …), or in a file that ALC_ENV_FILE names there"
        )
    logs.configure(settings())
    threading.Thread(target=_watch, name="watchdog", daemon=True).start()


def _watch() -> None:
    while not leases.is_hung():
        time.sleep(PAUSE_S)
    end_hung(settings().hung_after_minutes)


def _check_place(project_id: int, mark: str) -> None:
    """Raise SettingsError unless database and storage are those of the worker that asks."""
    store = functions.store()
    with store.reading() as session:
        project = session.get(Project, project_id)
    if project is None or mark_of(project) != mark:
        raise SettingsError("it uses another database; give it the DATABASE_URL of `alc worker`")
    if not store.storage.exists(mark):
        raise SettingsError(
            "it does not see the files of `alc worker`; give it the same ALC_FILES_URL, or the "
            "same ALC_DATA_DIR where that folder is shared"
        )
