"""Cutting what is long into parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in their order, in lists of ``size``; the last one may be shorter."""
    left = iter(items)
    while part := list(islice(left, size)):
        yield part
