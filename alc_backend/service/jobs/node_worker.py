"""The worker of a machine that only helps with trainings: nodes 1 and up of several machines."""

from __future__ import annotations

import logging
import time

from sqlalchemy.exc import SQLAlchemyError

from alc_backend.errors import AlcError, CancelledError
from alc_backend.loop.rounds import nodes
from alc_backend.loop.rounds.distributed import processes_here
from alc_backend.loop.rounds.machines import Machines
from alc_backend.loop.rounds.meeting import AwayError
from alc_backend.settings import Settings
from alc_backend.store.database import Store

log = logging.getLogger(__name__)

LOOK_EVERY_S = 3.0
"""How often it looks for a training to join, in seconds."""


def run_node(settings: Settings, machines: Machines) -> None:
    """Join one training of node 0 after the other, until this process is told to stop.

    It does no other jobs and needs no Redis. Raises SettingsError for settings that it cannot run
    with.
    """
    processes = processes_here(settings)
    store, joined, last = Store(settings), set[str](), ""
    log.info(
        "machine %s of %s: waiting for trainings of node 0, %s",
        machines.node, machines.nodes, machines.meeting,
    )  # fmt: skip
    while True:
        told = ""
        try:
            if nodes.join(store, machines, processes, joined):
                log.info("the training has ended; waiting for the next one")
        except (AwayError, CancelledError) as error:
            told = f"not training: {error}"
        except AlcError as error:
            log.error("the training broke off: %s", error)
        except SQLAlchemyError as error:
            told = f"the database cannot be read: {error}"
        if told and told != last:
            log.warning("%s", told)
        last = told
        time.sleep(LOOK_EVERY_S)
