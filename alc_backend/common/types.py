"""Types that all layers share."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

Json = dict[str, Any]
"""A JSON object, decoded."""

Progress = Callable[[int, int, str], None]
"""Called with the work done so far, all the work, and a sentence; may raise to stop the work."""


class TextEnum(str, Enum):
    """A closed set of words, each equal to its text: in the database, in JSON and in messages."""

    def __str__(self) -> str:
        return str(self.value)

    __hash__ = str.__hash__
