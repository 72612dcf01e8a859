"""The configuration of a training; imports without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alc_backend.errors import SettingsError

if TYPE_CHECKING:
    from alc_backend.settings import Settings

OUTPUT_STRIDE = 16
"""The side, in image pixels, of one pixel of the encoder's last map; input sizes are multiples."""

ENCODERS = ("efficientnet-lite0", "resnet18", "resnet50", "resnet101")
"""Backbones by the name used in settings."""


@dataclass(frozen=True)
class TrainingConfig:
    """The hyper-parameters of one training (Sec. 4.1).

    ``input_size`` is the side of the square crops in pixels; ``base_rate`` the learning rate of the
    head (the encoder has a tenth of it); ``encoder_weights`` is ``imagenet``, ``none`` (random), or
    the path of a file.
    """

    encoder: str
    input_size: int
    iterations: int
    batch_size: int
    base_rate: float
    seed: int = 0
    encoder_weights: str = "imagenet"

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise SettingsError(
                f"encoder {self.encoder!r} is unknown; choose one of {', '.join(ENCODERS)}"
            )
        if self.input_size < 64:
            raise SettingsError(f"input_size {self.input_size} must be at least 64")
        if self.iterations < 1 or self.batch_size < 2 or not self.base_rate > 0:
            raise SettingsError(
                "iterations must be at least 1, batch_size at least 2 (batch norm needs two "
                "images) and base_rate positive"
            )

    def as_dict(self) -> dict[str, Any]:
        """The values as JSON types; ``TrainingConfig(**values)`` restores it."""
        return asdict(self)


PRESETS = {
    "pascal": TrainingConfig("resnet101", 513, 30_000, 16, 0.01),
    "cityscapes": TrainingConfig("resnet101", 768, 30_000, 16, 0.01),
    "kvasir": TrainingConfig("resnet101", 352, 6_300, 32, 0.01),
    "cpu": TrainingConfig("efficientnet-lite0", 192, 400, 8, 0.02),
    "sample": TrainingConfig("efficientnet-lite0", 128, 160, 8, 0.05),
}
"""Hyper-parameters by name: the paper's three datasets, ``cpu`` for a machine without GPU, and
``sample`` for the built-in dataset."""


def training_config(preset: str, *, seed: int = 0, **overrides: Any) -> TrainingConfig:
    """A preset with the overrides that are not None.

    Raises SettingsError for an unknown preset or an invalid value.
    """
    if preset not in PRESETS:
        raise SettingsError(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    given = {name: value for name, value in overrides.items() if value is not None}
    return replace(PRESETS[preset], seed=seed, **given)


def configured(
    settings: Settings, *, preset: str | None = None, iterations: int | None = None
) -> TrainingConfig:
    """The training configuration in the settings; ``preset`` and ``iterations`` override theirs.

    Raises SettingsError as :func:`training_config` does, and for a missing file of weights.
    """
    weights = settings.encoder_weights
    if weights not in (None, "imagenet", "none") and not Path(str(weights)).is_file():
        raise SettingsError(
            f"ALC_ENCODER_WEIGHTS {weights!r} is not a file; name one, or set imagenet or none"
        )
    return training_config(
        preset or settings.preset,
        seed=settings.seed,
        encoder=settings.encoder,
        input_size=settings.input_size,
        iterations=iterations or settings.iterations,
        batch_size=settings.batch_size,
        base_rate=settings.base_rate,
        encoder_weights=settings.encoder_weights,
    )
