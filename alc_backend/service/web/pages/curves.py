"""How the quality of a project grew, as the plots on its page draw it."""

from __future__ import annotations

from alc_backend.common.types import Json
from alc_backend.loop.overview import Overview

QUALITIES = {
    "data_miou": "data mIoU",
    "model_miou": "network's mIoU",
    "estimated_accuracy": "network's accuracy on held-out answers",
}
"""What is drawn where it is known, with its name in the legend."""


def curves(view: Overview) -> Json:
    """The rounds of a project as curves.

    ``x`` holds the labeler ``hours`` and the ``answers`` before each round, ``y`` the rows of the
    legend with the values of each round in [0, 1] (None where it is not known).
    """
    rounds = [
        round_
        for round_ in view.rounds
        if round_.answers is not None
        and any(getattr(round_, quality) is not None for quality in QUALITIES)
    ]
    return {
        "x": {
            "hours": [(round_.labeler_s or 0.0) / 3600 for round_ in rounds],
            "answers": [round_.answers for round_ in rounds],
        },
        "y": [
            {"label": label, "values": [getattr(round_, quality) for round_ in rounds]}
            for quality, label in QUALITIES.items()
            if any(getattr(round_, quality) is not None for round_ in rounds)
        ],
    }
