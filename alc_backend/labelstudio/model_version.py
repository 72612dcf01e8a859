"""model_version."""

from __future__ import annotations


def model_version(number: int) -> str:
    """The version that Label Studio knows the predictions of round ``number`` by."""
    return f"alc-round-{number}"
