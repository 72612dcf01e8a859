"""The configuration of a round, fixed when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from alc_backend.common.types import Json
from alc_backend.segmentation.config import TrainingConfig

BATCH_OPTIONS = ("size", "per_image", "min_area")
"""The options of a RoundConfig that choose the batch: they may change after training."""


@dataclass(frozen=True)
class RoundConfig:
    """The configuration of one round.

    ``size`` is the number of queries in its batch (B of the paper), ``per_image`` the most of them
    about one image (None: no limit), ``min_area`` the area in pixels from which on a superpixel is
    asked about. ``acquisition`` names the score that ranks queries. ``folds`` is the number of
    networks trained by cross-fitting (1, as in the paper, for none); with ``share_iterations`` they
    divide the iterations of one training among them. ``flip`` predicts each image mirrored too and
    averages. ``epsilon``, from 0 to 1, is the similarity ε of eq. 12. ``holdout``, from 0 to 0.5,
    is the share of answers kept from training, on which accuracy is estimated. ``questions`` says
    what annotators are asked, one of :data:`alc_backend.core.questions.KINDS`. ``given`` are the
    values that replace those of the settings, by the name of the option; ``overlap`` is the number
    of annotators when training began, None before.
    """

    size: int
    per_image: int | None
    min_area: int
    folds: int
    acquisition: str
    epsilon: float
    share_iterations: bool
    flip: bool
    holdout: float
    training: TrainingConfig
    questions: str = "single"
    given: Mapping[str, int] = field(default_factory=dict)
    overlap: int | None = None

    def as_json(self) -> Json:
        """The values as JSON types, for the database and for reports."""
        return asdict(self)

    @classmethod
    def of_json(cls, values: Json) -> RoundConfig:
        """The configuration that :meth:`as_json` gave; KeyError when a value is missing."""
        options = {option.name: values[option.name] for option in fields(cls)}
        return cls(**{**options, "training": TrainingConfig(**values["training"])})
