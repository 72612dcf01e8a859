"""The processes that train one network together, and what they tell each other.

They exchange tensors alone (sums, and copies of what the first process has), never pickled objects:
what comes from another machine is numbers, and cannot be code.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed


class LostError(Exception):
    """Another process of the group does not answer any more; it knows why."""


@contextmanager
def exchange() -> Iterator[None]:
    """Raise LostError where what is exchanged within the context fails; PyTorch has many errors."""
    try:
        yield
    except RuntimeError as error:
        raise LostError(str(error)) from error


class Group:
    """The process group that this process belongs to; without one, it is the first and only one.

    ``rank`` of ``ranks`` is its number, from 0; ``device`` is where it computes: the GPU of its
    LOCAL_RANK, or the CPU where there is none. Methods raise LostError.
    """

    def __init__(self) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self.rank, self.ranks = (
            (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        )
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            gpu = int(os.environ.get("LOCAL_RANK", self.rank)) if together else 0
            self.device = torch.device("cuda", gpu)

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace a tensor of any shape by its sum over all processes."""
        if self.ranks > 1:
            with exchange():
                distributed.all_reduce(tensor)

    def as_the_first(self, *numbers: int) -> list[int]:
        """The numbers, below 2⁶³, that the first process gave; each gives as many."""
        if self.ranks == 1:
            return list(numbers)
        message = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        with exchange():
            distributed.broadcast(message, src=0)
            return [int(number) for number in message]

    def copy_the_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give tensors the values that the first process has; all have the same shapes, in order.

        They lie on ``device``.
        """
        if self.ranks == 1:
            return
        for tensor in tensors:
            message = tensor.detach().reshape(-1).clone()
            with exchange():
                distributed.broadcast(message, src=0)
            if self.rank > 0:
                tensor.detach().copy_(message.view(tensor.shape))
