"""Recognising label-studio-ml's server where `alc serve` is expected, and what it leaves undone."""

from __future__ import annotations

import httpx

REMEDY = (
    "nothing need be done: what it does not pass on is found by reconciling; `alc serve` passes "
    "on everything"
)


def served_by(health: httpx.Response) -> str | None:
    """The label-studio-ml that gave an answer to /health, and its limits; None for another program.

    1.0.9 answers its folder of models and whether it is ``v2``, 2.x the name of the model's class.
    """
    try:
        answer = health.json()
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    if answer.get("model_class") == "ALCBackend":
        return (
            "label-studio-ml 2.x, which does not pass on when many annotations are made or deleted "
            "at once, nor deleted tasks"
        )
    if {"model_dir", "v2"} <= answer.keys():
        return (
            "label-studio-ml 1.0.9, which asks for no password, and with USE_REDIS loses events "
            "that arrive together"
        )
    return None
