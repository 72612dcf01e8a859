"""The names that Label Studio knows the predictions of a round by."""

from __future__ import annotations


def of_round(number: int) -> str:
    """The version of the predictions of round ``number``."""
    return f"alc-round-{number}"
