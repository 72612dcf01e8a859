"""One process of a training: ``python -m alc_backend.loop.rounds.train_process PART CLAIM FILE``.

PART is the id of the part of a round, and CLAIM the name of the claim by which the process that
started this one has it: nothing is published once another worker does. FILE is where the processes
meet; RANK, LOCAL_RANK and WORLD_SIZE come from the environment. Touches what ``training`` touches.
Started by ``distributed``, by name; nothing imports it.
"""

from __future__ import annotations

import os
import sys

from alc_backend.common.processes import die_with_parent
from alc_backend.loop.rounds.distributed import say


def main() -> None:
    """Train as one of several processes: the first reports the progress, each its error."""
    die_with_parent()
    import torch
    from torch import distributed

    from alc_backend.errors import AlcError, CancelledError
    from alc_backend.loop.rounds import training
    from alc_backend.loop.rounds.progress import Reporter
    from alc_backend.settings import settings
    from alc_backend.store.database import Store
    from alc_backend.store.models import Part

    part_id, claim, meeting = sys.argv[1:]
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group(
        "nccl" if cuda else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world
    )

    class Teller(Reporter):
        """Tells the progress to the process that started this one, which writes it down."""

        def __call__(self, done: int, total: int, message: str) -> None:
            if rank == 0:
                say(done=done, total=total, message=message)

    try:
        store = Store(settings())
        with store.reading() as session:
            part = session.get_one(Part, int(part_id))
        part.claimed_by = claim
        training.train_networks(store, part.round, Teller(store, part))
    except CancelledError as error:
        say(cancelled=str(error))
        sys.exit(1)
    except AlcError as error:
        say(error=str(error))
        sys.exit(1)
    distributed.barrier()  # nobody leaves before the first one has saved
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
