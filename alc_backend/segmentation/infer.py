"""Predicting the class probabilities and features of images, one image in memory at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import pad

from alc_backend.core.pooling import Prediction
from alc_backend.errors import RoundError, StorageError, TrainingError
from alc_backend.segmentation import model as networks
from alc_backend.segmentation.config import OUTPUT_STRIDE

WHOLE_PIXELS = 2048 * 1152
"""Images of at most this many pixels (those of Cityscapes have fewer) are predicted whole."""

TILE, MARGIN = 1024, 128
"""Larger images are predicted in tiles of this side, whose inner edges are cut by this margin."""

CHANNELS = 128
"""Channels of the features: the encoder's last map is projected to so many at random, which keeps
distances nearly as they are (Johnson and Lindenstrauss 1984) whatever the encoder's width."""

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

        self._map = torch.empty(0)
        self._projection: torch.Tensor | None = None
        encoder_network = cast(nn.Module, self._network.encoder)
        encoder_network.register_forward_hook(self._keep_map)

    def probabilities(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The softmax over the classes of an image, uint8 (H, W, 3), float32 (C, H, W).

        Raises as :meth:`predict` does.
        """
        return self.predict(image).probabilities

    @torch.inference_mode()
    def predict(self, image: NDArray[np.uint8]) -> Prediction:
        """The probabilities and features of an image, uint8 (H, W, 3).

        Only the result needs memory in proportion to the image. Raises TrainingError when the
        network predicts NaN, StorageError when the disk has no room for a large result, RoundError
        when the GPU has no memory left for the image.
        """
        height, width = image.shape[:2]
        if height * width <= WHOLE_PIXELS:
            return self._predict(image)
        probabilities = self._room((self._classes, height, width))
        features = np.empty((0, 0, 0), dtype=np.float32)
        for rows, inner_rows in _tiles(height):
            for cols, inner_cols in _tiles(width):
                tile = self._predict(image[rows, cols])
                inside = (_shifted(inner_rows, rows), _shifted(inner_cols, cols))
                probabilities[:, inner_rows, inner_cols] = tile.probabilities[
                    (slice(None), *inside)
                ]
                if not features.size:
                    shape = (len(tile.features), -(-height // OUTPUT_STRIDE))
                    features = np.empty((*shape, -(-width // OUTPUT_STRIDE)), dtype=np.float32)
                features[:, _squares(inner_rows), _squares(inner_cols)] = tile.features[
                    (slice(None), *map(_squares, inside))
                ]
        return Prediction(probabilities, features, OUTPUT_STRIDE)

    def _predict(self, image: NDArray[np.uint8]) -> Prediction:
        try:
            return self._averaged(image)
        except RuntimeError as error:
            if not networks.is_out_of_memory(error):
                raise
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            height, width = image.shape[:2]
            raise RoundError(
                f"there is not enough memory to predict {width}×{height} pixels; free it of other "
                "programs, hide a GPU that is too small with CUDA_VISIBLE_DEVICES=, or choose a "
                "smaller network with ALC_ENCODER"
            ) from error

    def _averaged(self, image: NDArray[np.uint8]) -> Prediction:
        probabilities, features = self._softmax(image)
        if self._flip:
            mirrored, seen = self._softmax(np.ascontiguousarray(image[:, ::-1]))
            probabilities = (probabilities + mirrored.flip(-1)) / 2
            features = (features + seen.flip(-1)) / 2
        if not bool(torch.isfinite(probabilities).all()):
            raise TrainingError(
                "the network predicts values that are not numbers; lower ALC_BASE_RATE"
            )
        return Prediction(probabilities.cpu().numpy(), features.cpu().numpy(), OUTPUT_STRIDE)

    def _softmax(self, image: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = image.shape[:2]
        pixels = torch.tensor(image, device=self._device).permute(2, 0, 1)[None].float().div_(255)
        pixels = (pixels - self._scale[0]) / self._scale[1]
        padded = pad(pixels, (0, -width % OUTPUT_STRIDE, 0, -height % OUTPUT_STRIDE))
        padded = padded.contiguous(memory_format=networks.LAYOUT)
        probabilities = torch.softmax(self._network(padded)[0, :, :height, :width], dim=0)
        return probabilities, self._projected(self._map[0])

    def _keep_map(self, _: nn.Module, __: object, maps: Sequence[torch.Tensor]) -> None:
        """Called after the encoder: keep its last map."""
        self._map = maps[-1]

    def _projected(self, features: torch.Tensor) -> torch.Tensor:
        """The encoder's map (F, h, w) with at most CHANNELS channels."""
        width = len(features)
        if width <= CHANNELS:
            return features.float()
        if self._projection is None:
            drawn = torch.randn(CHANNELS, width, generator=torch.Generator().manual_seed(0))
            self._projection = (drawn / CHANNELS**0.5).to(self._device)
        return torch.einsum("cf,fhw->chw", self._projection, features.float())

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


def _shifted(inner: slice, outer: slice) -> slice:
    """Where ``inner`` lies within ``outer``."""
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _squares(pixels: slice) -> slice:
    """The squares of OUTPUT_STRIDE that hold these pixels, which begin at a square's edge."""
    return slice(pixels.start // OUTPUT_STRIDE, -(-pixels.stop // OUTPUT_STRIDE))


def _tiles(length: int) -> Iterator[tuple[slice, slice]]:
    """The tiles along a side of this length: the pixels to predict, and those of them to keep."""
    step = TILE - 2 * MARGIN
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield slice(max(0, start - MARGIN), min(length, stop + MARGIN)), slice(start, stop)
