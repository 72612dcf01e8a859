"""The states of a round, and the steps that workers do."""

from __future__ import annotations

from alc_backend.common.types import TextEnum


class RoundState(TextEnum):
    """Where a round is: the first four run one after the other, each may fail or be cancelled."""

    CREATED = "created"
    TRAINING = "training"
    SCORING = "scoring"
    PUBLISHING = "publishing"
    OPEN = "open"
    CLOSED = "closed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Step(TextEnum):
    """What a worker does: a running round's state has the step of its name.

    ASKING and TIDYING are chores of an open round's queue, done beside its steps.
    """

    CREATED = "created"
    TRAINING = "training"
    SCORING = "scoring"
    PUBLISHING = "publishing"
    ASKING = "asking"
    TIDYING = "tidying"


RUNNING = (RoundState.CREATED, RoundState.TRAINING, RoundState.SCORING, RoundState.PUBLISHING)

NEXT = {
    Step.CREATED: RoundState.TRAINING,
    Step.TRAINING: RoundState.SCORING,
    Step.SCORING: RoundState.PUBLISHING,
    Step.PUBLISHING: RoundState.OPEN,
}
"""The state after each step."""

CHORES = (Step.ASKING, Step.TIDYING)
