"""What a round was started with, fixed for as long as it lasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from alc_backend.common.types import Json
from alc_backend.segmentation.config import TrainingConfig

BATCH_OPTIONS = ("size", "per_image", "min_area")
"""How a batch is chosen: what may still change when a round goes on with its network trained."""


@dataclass(frozen=True)
class RoundConfig:
    """The settings of one round.

    ``size`` is the number of queries of its batch, ``per_image`` the most of them about one image
    (None: no limit), ``min_area`` the fewest pixels of a superpixel that is asked about.
    ``folds`` networks are cross-fitted (1 as in the paper), on one network's iterations where they
    ``share_iterations``; ``flip`` predicts with the mirrored image as well. ``epsilon`` is ε of
    eq. 12, ``holdout`` the share of answers that are kept from training to estimate accuracy with.
    ``given`` are the values that were asked for at the start, in place of those of the settings;
    ``overlap`` is the number of annotators when the round began to train, None before.
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
    given: Mapping[str, int] = field(default_factory=dict)
    overlap: int | None = None

    def as_json(self) -> Json:
        """The values as JSON types, for the database and for reports."""
        return asdict(self)

    @classmethod
    def of_json(cls, values: Json) -> RoundConfig:
        """Read what :meth:`as_json` gave; KeyError where a value is missing."""
        known = {name.name: values[name.name] for name in fields(cls)}
        return cls(**{**known, "training": TrainingConfig(**values["training"])})
