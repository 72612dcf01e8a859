"""The states of a round, and the steps that lead from one to the next."""

from __future__ import annotations

from alc_backend.common.types import TextEnum


class RoundState(TextEnum):
    """What a round is doing, or how it ended.

    The first four follow each other while it runs; from each of them it may fail or be cancelled.
    """

    CREATED = "created"
    TRAINING = "training"
    SCORING = "scoring"
    PUBLISHING = "publishing"
    OPEN = "open"
    CLOSED = "closed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Step(TextEnum):
    """What a worker does for a round: one step for each running state, of the same name.

    ASKING, PLANNING and TIDYING are chores: they keep the queue of an open round in order.
    """

    CREATED = "created"
    TRAINING = "training"
    SCORING = "scoring"
    PUBLISHING = "publishing"
    ASKING = "asking"
    PLANNING = "planning"
    TIDYING = "tidying"


RUNNING = (RoundState.CREATED, RoundState.TRAINING, RoundState.SCORING, RoundState.PUBLISHING)
"""The states in which workers have a step to do."""

STOPPED = (RoundState.FAILED, RoundState.CANCELLED)
"""The states from which a round goes on when it is started again."""

NEXT = {
    Step.CREATED: RoundState.TRAINING,
    Step.TRAINING: RoundState.SCORING,
    Step.SCORING: RoundState.PUBLISHING,
    Step.PUBLISHING: RoundState.OPEN,
}
"""The state that a round reaches by each step."""

CHORES = (Step.ASKING, Step.PLANNING, Step.TIDYING)
"""The steps that change no round's state."""
