"""The one thing to do next in a project, in words, and how far a running round is."""

from __future__ import annotations

from dataclasses import dataclass

from alc_backend.common.durations import duration
from alc_backend.loop.overview import Overview
from alc_backend.loop.workplace import Workplace
from alc_backend.store.round_states import RUNNING, RoundState

STEPS = {
    RoundState.CREATED: "Prepare",
    RoundState.TRAINING: "Train",
    RoundState.SCORING: "Score",
    RoundState.PUBLISHING: "Publish",
}
"""How the steps of a round are called on the page."""


@dataclass(frozen=True)
class Advice:
    """What is happening and what to do: a ``headline``, and a ``detail`` that may be empty.

    ``ask``: answering questions comes first, before starting a round; ``failed``: something went
    wrong.
    """

    headline: str
    detail: str = ""
    ask: bool = False
    failed: bool = False


@dataclass(frozen=True)
class StepShown:
    """A step of a running round: the ``share`` of it that is done, None while nobody knows."""

    name: str
    share: float | None
    present: bool


def advise(view: Overview, place: Workplace) -> Advice:
    """What to do next in a project whose annotators work in ``place``."""
    round_ = view.round
    if place.questions is None:
        return Advice(f"Connect this project to {place.name}.", "Run `alc init`.")
    if round_ is None:
        return Advice(
            "Start the first round.",
            "It trains a network on the pseudo labels and puts the best questions into "
            f"{place.name}.",
        )
    if round_.state in RUNNING:
        left = "" if round_.eta_s is None else f"; about {duration(round_.eta_s)} left in this step"
        open_ = " Questions of the round before stay open meanwhile." if view.queue else ""
        return Advice(
            f"Round {round_.round} is {_doing(round_.state)}{left}.",
            _sentence(round_.message) + open_,
        )
    if round_.state == RoundState.FAILED:
        return Advice(
            f"Round {round_.round} failed.", "Mend what is said above, and start it again.",
            failed=True,
        )  # fmt: skip
    if round_.state == RoundState.CANCELLED:
        return Advice(
            f"Round {round_.round} was cancelled.", "Started again, it goes on where it stopped."
        )
    if view.queue:
        time = f", about {duration(view.left_s)}" if view.left_s else ""
        many = f"{view.queue:,}".replace(",", "\u202f")
        question = "question is" if view.queue == 1 else "questions are"
        return Advice(f"{many} {question} left{time}.", "Then start a round.", ask=True)
    return Advice(
        "All questions are answered: start a round.",
        "It learns from the answers and asks what is worth most then.",
    )


def steps(view: Overview) -> list[StepShown]:
    """The steps of the running round, in their order; empty while none runs."""
    round_ = view.round
    if round_ is None or round_.state not in RUNNING:
        return []
    at = RUNNING.index(round_.state)
    share = round_.done / round_.total if round_.total else None
    return [
        StepShown(STEPS[state], 1.0 if turn < at else share if turn == at else 0.0, turn == at)
        for turn, state in enumerate(RUNNING)
    ]


def _doing(state: RoundState) -> str:
    return "being prepared" if state == RoundState.CREATED else str(state)


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:] + "." if message else ""
