"""The configuration that a round gets at its start, made from the settings.

Touches nothing. Called by ``rounds.lifecycle``, and by ``annotations.recovery`` for rounds that are
made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.errors import SettingsError
from alc_backend.segmentation.config import configured
from alc_backend.settings import Settings
from alc_backend.store.round_config import RoundConfig


def round_config(settings: Settings, given: Mapping[str, int]) -> RoundConfig:
    """The configuration by the settings, with the values ``given`` for this round in their place.

    ``given`` may hold ``size``, ``per_image``, ``min_area`` and ``folds``.

    Raises SettingsError for an unknown acquisition, and when the settings do not make a training.
    """
    if settings.acquisition not in ACQUISITIONS:
        raise SettingsError(
            f"ALC_ACQUISITION {settings.acquisition!r} is unknown; choose one of "
            f"{', '.join(sorted(ACQUISITIONS))}"
        )
    values: dict[str, Any] = {
        "size": settings.round_size,
        "per_image": settings.per_image,
        "min_area": settings.min_area,
        "folds": settings.folds,
        **given,
    }
    return RoundConfig(
        **values,
        given=dict(given),
        acquisition=settings.acquisition,
        epsilon=settings.epsilon,
        share_iterations=settings.share_iterations,
        flip=settings.flip,
        holdout=settings.holdout,
        training=configured(settings),
        questions=settings.questions,
    )
