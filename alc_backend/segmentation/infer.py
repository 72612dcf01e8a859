"""Predicting the class probabilities of images, one image in memory at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from alc_backend.errors import StorageError, TrainingError
from alc_backend.segmentation import model as networks
from alc_backend.segmentation.config import OUTPUT_STRIDE

WHOLE_PIXELS = 2048 * 1152
"""Images of at most this many pixels (those of Cityscapes have fewer) are predicted whole."""

TILE, MARGIN = 1024, 128
"""Larger images are predicted in tiles of this side, whose inner edges are cut by this margin."""

MEMORY_BYTES = 2**29
"""Larger results, in bytes, are kept in a temporary file that the system pages in and out."""


class Predictor:
    """A trained network that is ready to predict, on the GPU if there is one.

    With ``flip`` the predictions of the image and of its mirror image are averaged.
    """

    def __init__(self, path: Path, classes: list[str], *, flip: bool = False) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network, encoder = networks.load(path, classes)
        self._network = network.to(self._device).to(memory_format=networks.LAYOUT)
        self._classes, self._flip, self._folder = len(classes), flip, path.parent
        mean, deviation = networks.normalisation(encoder)
        self._scale = torch.tensor([mean, deviation], device=self._device).view(2, 1, 3, 1, 1)

    @torch.inference_mode()
    def probabilities(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The softmax over the classes of an image, uint8 (H, W, 3), float32 (C, H, W).

        Only the result needs memory in proportion to the image. Raises TrainingError when the
        network predicts NaN, StorageError when the disk has no room for a large result.
        """
        height, width = image.shape[:2]
        if height * width <= WHOLE_PIXELS:
            return self._predict(image)
        result = self._room((self._classes, height, width))
        for rows, inner_rows in _tiles(height):
            for cols, inner_cols in _tiles(width):
                tile = self._predict(image[rows, cols])
                inside = (
                    slice(inner_rows.start - rows.start, inner_rows.stop - rows.start),
                    slice(inner_cols.start - cols.start, inner_cols.stop - cols.start),
                )
                result[:, inner_rows, inner_cols] = tile[(slice(None), *inside)]
        return result

    def _predict(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        probabilities = self._softmax(image)
        if self._flip:
            mirrored = self._softmax(np.ascontiguousarray(image[:, ::-1]))
            probabilities = (probabilities + mirrored.flip(-1)) / 2
        if not bool(torch.isfinite(probabilities).all()):
            raise TrainingError(
                "the network predicts values that are not numbers; lower ALC_BASE_RATE"
            )
        return probabilities.cpu().numpy()

    def _softmax(self, image: NDArray[np.uint8]) -> torch.Tensor:
        height, width = image.shape[:2]
        pixels = torch.tensor(image, device=self._device).permute(2, 0, 1)[None].float().div_(255)
        pixels = (pixels - self._scale[0]) / self._scale[1]
        padded = pad(pixels, (0, -width % OUTPUT_STRIDE, 0, -height % OUTPUT_STRIDE))
        padded = padded.contiguous(memory_format=networks.LAYOUT)
        return torch.softmax(self._network(padded)[0, :, :height, :width], dim=0)

    def _room(self, shape: tuple[int, int, int]) -> NDArray[np.float32]:
        """An empty array of this shape: in memory, or in an unlinked temporary file."""
        if 4 * int(np.prod(shape)) <= MEMORY_BYTES:
            return np.empty(shape, dtype=np.float32)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, 4 * int(np.prod(shape)))
            except (
                OSError
            ) as error:  # a full disk would kill the process later, at a write to the map
                raise StorageError(
                    f"{self._folder} has no room for the {4 * int(np.prod(shape)) >> 20} MiB that "
                    f"the probabilities of one image take ({error}); free some"
                ) from error
            return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)


def _tiles(length: int) -> Iterator[tuple[slice, slice]]:
    """The tiles along a side of this length: the pixels to predict, and those of them to keep."""
    step = TILE - 2 * MARGIN
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield slice(max(0, start - MARGIN), min(length, stop + MARGIN)), slice(start, stop)
