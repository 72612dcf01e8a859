"""Warm start: making the first label maps and superpixels of images as a project prescribes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alc_backend.datasets.classes import background, uncovered_class
from alc_backend.datasets.superpixels import check_seeds, fill, seeds, slic
from alc_backend.errors import DatasetError, SettingsError
from alc_backend.foundation import weights
from alc_backend.foundation.catalogue import (
    DETECTORS,
    MODELS,
    SEGMENTERS,
    TOKENIZER,
    Role,
)
from alc_backend.foundation.kinds import (
    BOTH_KINDS,
    BOX_THRESHOLD,
    PRESET_THRESHOLDS,
    default_threshold,
    kind_of,
)
from alc_backend.foundation.prompts import class_prompts
from alc_backend.settings import Settings

if TYPE_CHECKING:
    from alc_backend.foundation.grounded_sam import FirstMaps
    from alc_backend.foundation.protocols import Both, Segmenter

SLIC, SEEDS, SAM, GROUNDED_SAM = "slic", "seeds", "sam", "grounded-sam"
METHODS = (SLIC, SEEDS, SAM, GROUNDED_SAM)
"""Sources of superpixels: colours alone, by two methods; SAM in boxes around masks; or detected
objects."""


@dataclass(frozen=True)
class WarmStart:
    """How the first maps of a project's images are made; stored with the project.

    ``superpixels`` is one of METHODS; ``count`` is the number of superpixels that SLIC or SEEDS
    makes of an image; with ``fill`` SLIC also covers pixels outside all objects. ``threshold``
    (0..1) is the detector's box threshold; ``detector`` and ``segmenter`` are names of models or
    paths of checkpoints; a detector that makes masks itself has no segmenter ("").
    """

    superpixels: str = SLIC
    count: int = 100
    fill: bool = False
    threshold: float = 0.2
    detector: str = "grounding-dino-tiny"
    segmenter: str = "sam-vit-h"

    def __post_init__(self) -> None:
        """Raise SettingsError for an unknown source of superpixels."""
        if self.superpixels not in METHODS:
            raise SettingsError(
                f"superpixels come from {', '.join(METHODS)}, not {self.superpixels!r}"
            )

    @classmethod
    def chosen(cls, settings: Settings, superpixels: str, **given: Any) -> WarmStart:
        """The warm start that the settings choose, with ``given`` fields in place of theirs."""
        threshold = given.pop("threshold", None)
        if threshold is None:
            threshold = settings.box_threshold
        if threshold is None:
            threshold = _default_threshold(settings.detector, settings.preset)
        return cls(
            superpixels=superpixels,
            threshold=threshold,
            detector=settings.detector,
            segmenter="" if _does_both(settings.detector) else settings.segmenter,
            **given,
        )

    @classmethod
    def of(cls, kept: Mapping[str, Any] | None) -> WarmStart:
        """The warm start that was stored with a project; the default where none was."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in (kept or {}).items() if name in names})

    def as_dict(self) -> dict[str, Any]:
        """The values to store with a project, as JSON types."""
        return asdict(self)


class Warmer:
    """Makes the first label maps and superpixels of a project's images.

    ``synonyms`` are the prompts of classes whose name is not their prompt. Loads the models that it
    needs, once per process. Raises WeightsError when their files are missing, FoundationError when
    the files or a prompt are unusable, DatasetError when the classes do not allow this warm start.
    """

    def __init__(
        self,
        start: WarmStart,
        classes: Sequence[str],
        settings: Settings,
        synonyms: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.start, self.classes = start, classes
        self.uncovered = uncovered_class(classes)
        if start.fill and background(classes) is None:
            raise DatasetError(
                "--fill slic asks about what no object covers; add a class named background for it"
            )
        files = check_files(start, settings)
        self._segmenter: Segmenter | None = None
        self._model: Both | None = None
        if files.segmenter is not None or files.detector is not None:
            from alc_backend.foundation import models

            self._segmenter = models.segmenter(files.segmenter) if files.segmenter else None
            if files.detector is not None:
                self._model = models.finder(files.detector, files.tokenizer, self._segmenter)
                self._prompts = class_prompts(classes, synonyms)
                self._model.check(self._prompts)

    def from_image(self, image: NDArray[np.uint8]) -> FirstMaps:
        """The first maps of an image, uint8 (H, W, 3), that nobody has labelled.

        Without a detector the label map is background; raises DatasetError without such a class.
        """
        from alc_backend.foundation import grounded_sam

        if self._model is None:
            if background(self.classes) is None:
                raise DatasetError(
                    "there is nothing to start from: no masks, and no class named background; add "
                    "masks, or such a class"
                )
            labels = np.full(image.shape[:2], self.uncovered, dtype=np.uint8)
            return grounded_sam.FirstMaps(labels, self._by_colour(image), {}, 0, 0)
        maps = grounded_sam.first_maps(
            image,
            self._prompts,
            self._model,
            threshold=self.start.threshold,
            uncovered=self.uncovered,
        )
        return maps.with_superpixels(self._filled(maps.superpixels, image))

    def from_masks(
        self,
        image: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        superpixels: NDArray[np.int32] | None = None,
    ) -> NDArray[np.int32]:
        """The superpixels, int32 (H, W), of an image whose label map, uint8 (H, W), exists.

        ``superpixels`` are those that came with the label map, used unless SAM is to make them.
        """
        if self.start.superpixels == SAM:
            from alc_backend.foundation.grounded_sam import segments_of_masks

            assert self._segmenter is not None
            superpixels = segments_of_masks(image, labels, self._segmenter, self.uncovered)
        if superpixels is None:
            return self._by_colour(image)
        return self._filled(superpixels, image)

    def _by_colour(self, image: NDArray[np.uint8]) -> NDArray[np.int32]:
        make = seeds if self.start.superpixels == SEEDS else slic
        return make(image, self.start.count)

    def _filled(
        self, superpixels: NDArray[np.int32], image: NDArray[np.uint8]
    ) -> NDArray[np.int32]:
        return fill(superpixels, image, self.start.count) if self.start.fill else superpixels


class Files(NamedTuple):
    """The paths of the models that a warm start needs; None for those that it does not need.

    ``tokenizer`` is where the tokenizer for an original checkpoint is, or would be.
    """

    tokenizer: Path
    detector: Path | None = None
    segmenter: Path | None = None


def check_files(start: WarmStart, settings: Settings) -> Files:
    """The paths of the models that a warm start needs, found without opening them.

    Raises WeightsError with instructions for missing files, SettingsError for an unknown model and
    where SEEDS is not installed.
    """
    if start.superpixels == SEEDS:
        check_seeds()
    wanted = {}
    if start.superpixels == GROUNDED_SAM:
        wanted["detector"] = _known(DETECTORS, start.detector)
    if start.superpixels == SAM or (
        start.superpixels == GROUNDED_SAM and not _does_both(start.detector)
    ):
        wanted["segmenter"] = _known(SEGMENTERS, start.segmenter)
    ours = [name for name in wanted.values() if name in MODELS]
    found = weights.require(ours, settings.models)
    paths = {role: found.get(name, Path(name)) for role, name in wanted.items()}
    return Files(settings.models / TOKENIZER, **paths)


def _default_threshold(detector: str, preset: str) -> float:
    """The box threshold of a model that is named, or that lies in a folder, with a preset."""
    if detector in MODELS:
        threshold = MODELS[detector].threshold
    else:
        threshold = default_threshold(kind_of(Path(detector)))
    # Only Grounding DINO's scores mean what they do in the paper.
    return PRESET_THRESHOLDS.get(preset, threshold) if threshold == BOX_THRESHOLD else threshold


def _does_both(detector: str) -> bool:
    """Whether a detector makes masks itself, as SAM 3 does."""
    if detector in MODELS:
        return MODELS[detector].role == Role.BOTH
    return kind_of(Path(detector)) in BOTH_KINDS


def _known(models: Sequence[str], name: str) -> str:
    """The name of a model, or the path of one as given; SettingsError for neither."""
    if name not in models and not Path(name).exists():
        raise SettingsError(
            f"there is no model {name!r}; choose one of {', '.join(models)}, or the path of a "
            "checkpoint or of a folder that transformers has written"
        )
    return name
