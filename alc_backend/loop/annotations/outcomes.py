"""outcomes."""

from __future__ import annotations

RECORDED, KNOWN, DELETED = "recorded", "known", "deleted"


UNKNOWN_TASK, UNKNOWN_CLASS = "of an unknown task", "of an unknown class"


UNREADABLE = "unreadable"


PROBLEMS = (UNKNOWN_TASK, UNKNOWN_CLASS, UNREADABLE)
