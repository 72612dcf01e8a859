"""The worker of a machine that only helps with trainings: nodes 1 and up of several machines."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from alc_backend.errors import AlcError, CancelledError, SettingsError
from alc_backend.loop.rounds import nodes
from alc_backend.loop.rounds.distributed import QUIET, processes_here
from alc_backend.loop.rounds.machines import Machines
from alc_backend.loop.rounds.meeting import AwayError
from alc_backend.settings import Settings
from alc_backend.store.connections import database_url, may_exist
from alc_backend.store.database import Store

log = logging.getLogger(__name__)

LOOK_EVERY_S = 3.0
"""How often it looks for a training to join, in seconds."""


def run_node(settings: Settings, machines: Machines) -> None:
    """Join one training of node 0 after the other, until this process is told to stop.

    It does no other jobs and needs no Redis. Raises SettingsError for settings that it cannot run
    with.
    """
    os.environ.setdefault(QUIET, "ERROR")  # PyTorch reads it once, when it is loaded
    processes = processes_here(settings)
    if not may_exist(database_url(settings)):
        raise SettingsError(
            "this machine has no database, and so finds no training; give it the DATABASE_URL of "
            "node 0 in its environment, or in a file that ALC_ENV_FILE names"
        )
    store, joined, last = Store(settings), set[str](), ""
    log.info(
        "machine %s of %s: waiting for trainings of node 0, %s",
        machines.node, machines.nodes, machines.meeting,
    )  # fmt: skip
    with suppress(SystemExit):  # it was told to stop, and its training processes have ended
        while True:
            told = _join(store, machines, processes, joined)
            if told and told != last:
                log.warning("%s", told)
            last = told
            time.sleep(LOOK_EVERY_S)


def _join(store: Store, machines: Machines, processes: int, joined: set[str]) -> str:
    """Join a training, if there is one; what keeps it from that, which may last, or nothing."""
    try:
        if nodes.join(store, machines, processes, joined):
            log.info("the training has ended; waiting for the next one")
    except (AwayError, CancelledError) as error:
        return f"not training: {error}"
    except AlcError as error:
        log.error("the training broke off: %s", error)
    except SQLAlchemyError as error:
        return f"the database cannot be read: {error}"
    return ""
