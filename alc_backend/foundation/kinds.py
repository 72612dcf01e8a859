"""What kind of model a folder holds, told without loading it."""

from __future__ import annotations

import json
from pathlib import Path

from alc_backend.errors import FoundationError

BOTH_KINDS = ("sam3", "sam3_video")
"""Models that find and segment at once, as transformers calls them."""

BOX_THRESHOLD = 0.2
"""The score (0..1) that a detection must exceed by default: the paper's for PASCAL."""

PRESET_THRESHOLDS = {"kvasir": 0.05}
"""The same with a training preset, for fields that the detector knows little of."""

BOX_THRESHOLDS = {"owlv2": 0.1, "sam3": 0.3, "sam3_video": 0.3}
"""The same for kinds of models whose scores mean something else."""


def default_threshold(kind: str | None) -> float:
    """The score (0..1) that a detection of this kind of model must exceed by default."""
    return BOX_THRESHOLDS.get(kind, BOX_THRESHOLD) if kind is not None else BOX_THRESHOLD


def kind_of(path: Path) -> str | None:
    """What transformers calls the model in a folder; None for one without its configuration.

    Raises FoundationError for a configuration that cannot be read.
    """
    config = path / "config.json"
    if not config.is_file():
        return None
    try:
        return str(json.loads(config.read_text("utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FoundationError(
            f"{config}: names no kind of model ({error!r}); fetch it again with `alc weights "
            "download`"
        ) from error
