"""Label Studio's times."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def read_time(value: Any) -> datetime:
    """The moment that a time of Label Studio's API stands for, such as ``2026-01-01T12:00:00.5Z``.

    Raises ValueError for anything else, also for a time without a time zone.
    """
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))  # Python 3.10 has no Z
    except ValueError:
        raise ValueError(f"{value!r} is not a time in ISO 8601") from None
    if moment.tzinfo is None:
        raise ValueError(f"the time {value!r} has no time zone")
    return moment
