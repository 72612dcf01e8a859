"""What kind of model a folder holds, told without loading it."""

from __future__ import annotations

import json
from pathlib import Path

from alc_backend.errors import FoundationError

BOTH_KINDS = ("sam3", "sam3_video")
"""Models that find and segment at once, as transformers calls them."""


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
