"""What becomes of an annotation that arrives."""

from __future__ import annotations

from alc_backend.common.types import TextEnum


class Outcome(TextEnum):
    """What the ledger did with an annotation, or why it did nothing."""

    RECORDED = "recorded"
    KNOWN = "known"
    DELETED = "deleted"
    UNKNOWN_TASK = "of an unknown task"
    UNKNOWN_CLASS = "of an unknown class"
    UNREADABLE = "unreadable"


PROBLEMS = (Outcome.UNKNOWN_TASK, Outcome.UNKNOWN_CLASS, Outcome.UNREADABLE)
"""Outcomes that an admin should hear of."""
