"""The names that Label Studio knows the predictions of a round by."""

from __future__ import annotations

import re


def of_round(number: int) -> str:
    """The version of the predictions of round ``number``."""
    return f"alc-round-{number}"


def round_number(version: object) -> int | None:
    """The number of the round whose predictions have this version; None for any other version."""
    found = re.fullmatch(r"alc-round-(\d{1,9})", str(version), re.ASCII)
    return int(found[1]) if found else None
