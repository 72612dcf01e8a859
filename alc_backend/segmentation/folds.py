"""Cross-fitting: networks that are each trained without one fold of the images.

This goes beyond the paper: an image is scored by a network that has not learnt its wrong labels.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from alc_backend.core.draws import fold_of
from alc_backend.errors import SettingsError
from alc_backend.segmentation.config import TrainingConfig


def networks(keys: Collection[str], seed: int, folds: int) -> list[int | None]:
    """The networks to train: None, trained on all images, and the folds that others leave out.

    Folds without images need no network. Raises SettingsError when all images are in one fold.
    """
    if folds == 1:
        return [None]
    filled = sorted({fold_of(key, seed, folds) for key in keys})
    if len(filled) == 1:
        raise SettingsError(
            f"{len(keys)} images are too few for {folds} folds (all of them fall into one); "
            "use one fold (ALC_FOLDS=1)"
        )
    return [None, *filled]


def kept(keys: Collection[str], fold: int | None, seed: int, folds: int) -> list[str]:
    """The keys, sorted, of the images that the network of ``fold`` is trained on."""
    return [key for key in sorted(keys) if fold is None or fold_of(key, seed, folds) != fold]


def share(config: TrainingConfig, count: int) -> TrainingConfig:
    """The configuration of each of ``count`` networks that share the iterations of one training."""
    return replace(config, iterations=max(1, config.iterations // count))
