"""The states of a round, and the chores of an open one."""

from __future__ import annotations

CREATED, TRAINING, SCORING, PUBLISHING = "created", "training", "scoring", "publishing"
OPEN, CLOSED, FAILED, CANCELLED = "open", "closed", "failed", "cancelled"
RUNNING = (CREATED, TRAINING, SCORING, PUBLISHING)
ALL = (*RUNNING, OPEN, CLOSED, FAILED, CANCELLED)
NEXT = {CREATED: TRAINING, TRAINING: SCORING, SCORING: PUBLISHING, PUBLISHING: OPEN}

ASKING, TIDYING = "asking", "tidying"
CHORES = (ASKING, TIDYING)
"""What is done to an open round's queue: parts of it beside its steps, claimed in the same way."""
