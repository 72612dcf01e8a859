"""Where the foundation models compute, and what becomes of a GPU whose memory is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from alc_backend.errors import FoundationError


def device() -> str:
    """``cuda`` where there is a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def enough_memory(model: str, image: NDArray[np.uint8]) -> Iterator[None]:
    """Turn a GPU that is too full for ``model`` and an image, (H, W, 3), into FoundationError."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        height, width = image.shape[:2]
        raise FoundationError(
            f"the GPU has not enough memory for {model} and an image of {width}×{height}; free it "
            "of other programs, choose a smaller model (docs/warm_start.md lists them), or hide "
            "the GPU with CUDA_VISIBLE_DEVICES="
        ) from error
