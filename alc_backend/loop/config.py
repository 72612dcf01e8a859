"""config."""

from __future__ import annotations

from typing import Any

from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.errors import SettingsError
from alc_backend.segmentation.config import TrainingConfig, configured
from alc_backend.settings import Settings
from alc_backend.store.models import Round

BATCH = ("size", "per_image", "min_area")
"""How a round's batch is chosen: what may still change when it goes on with its network trained."""


def config_of(settings: Settings, given: dict[str, int]) -> dict[str, Any]:
    """The settings of a round, fixed at its start; ``given`` replaces those of the batch."""
    if settings.acquisition not in ACQUISITIONS:
        raise SettingsError(
            f"ALC_ACQUISITION {settings.acquisition!r} is unknown; choose one of "
            f"{', '.join(sorted(ACQUISITIONS))}"
        )
    return {
        "size": settings.round_size,
        "per_image": settings.per_image,
        "min_area": settings.min_area,
        "folds": settings.folds,
        **given,
        "given": given,
        "acquisition": settings.acquisition,
        "epsilon": settings.epsilon,
        "share_iterations": settings.share_iterations,
        "flip": settings.flip,
        "holdout": settings.holdout,
        "training": configured(settings).as_dict(),
    }


def training_of(round_: Round) -> TrainingConfig:
    """The hyper-parameters that the round was started with."""
    return TrainingConfig(**round_.config["training"])
