"""One process of a training: ``python -m alc_backend.loop.rounds.train_process PART CLAIM PLACE``.

PART is the id of the part of a round, and CLAIM the name of the claim by which a worker has it:
nothing is published once another worker does. PLACE is where the processes meet, ``file:PATH`` or
``tcp:HOST:PORT``; RANK, LOCAL_RANK and WORLD_SIZE come from the environment. Touches what
``training`` touches. Started by ``distributed``, by name; nothing imports it.
"""

from __future__ import annotations

import os
import sys
import traceback

from alc_backend.common.processes import die_with_parent
from alc_backend.loop.rounds import meeting, presence
from alc_backend.loop.rounds.distributed import LOST, say


def main() -> None:
    """Train as one of several processes: the first reports the progress, each its error."""
    die_with_parent()
    import torch
    from torch import distributed

    from alc_backend.errors import AlcError, CancelledError
    from alc_backend.loop.rounds import training
    from alc_backend.loop.rounds.progress import Reporter
    from alc_backend.segmentation.group import LostError, exchange
    from alc_backend.settings import settings
    from alc_backend.store.database import Store
    from alc_backend.store.models import Part

    part_id, claim, place = sys.argv[1:]
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    class Teller(Reporter):
        """Tells the progress to the process that started this one, which writes it down."""

        def __call__(self, done: int, total: int, message: str) -> None:
            if rank == 0:
                say(done=done, total=total, message=message)

    try:
        with exchange():
            distributed.init_process_group(
                presence.backend(),
                store=meeting.of_processes(place, f"{part_id}/{claim}", world),
                rank=rank,
                world_size=world,
            )
        store = Store(settings())
        with store.reading() as session:
            part = session.get_one(Part, int(part_id))
        part.claimed_by = claim
        training.train_networks(store, part.round, Teller(store, part))
        with exchange():
            distributed.barrier()  # nobody leaves before the first one has saved
    except CancelledError as error:
        say(cancelled=str(error))
        sys.exit(1)
    except AlcError as error:
        say(error=str(error))
        sys.exit(1)
    except (LostError, meeting.AwayError, distributed.DistError):
        traceback.print_exc()
        sys.exit(LOST)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
