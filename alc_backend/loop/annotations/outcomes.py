"""What can become of an annotation that arrives.

Touches nothing. Used by every module of ``annotations``, and by commands that count outcomes.
"""

from __future__ import annotations

from alc_backend.common.types import TextEnum


class Outcome(TextEnum):
    """What the ledger did with an annotation, or why it did nothing."""

    RECORDED = "recorded"
    KNOWN = "known"
    """The ledger has it already, or something newer."""

    DELETED = "deleted"
    """It is gone from Label Studio, and withdrawn in the ledger."""

    ABSENT = "not in Label Studio"
    """It was reported as given or changed, and neither Label Studio nor the ledger has it."""

    PRESENT = "still in Label Studio"
    """It was reported as gone, and Label Studio has it."""

    LOST = "kept, though Label Studio, restored from an older dump, lacks it"

    UNKNOWN_TASK = "of an unknown task"
    UNKNOWN_CLASS = "of an unknown class"
    UNREADABLE = "unreadable"


PROBLEMS = (Outcome.UNKNOWN_TASK, Outcome.UNKNOWN_CLASS, Outcome.UNREADABLE)
"""Outcomes that an admin should hear of."""
