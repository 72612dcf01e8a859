"""Class probabilities of a picture, one picture in memory at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from alc_backend.errors import TrainingError
from alc_backend.segmentation import model as networks
from alc_backend.segmentation.config import OUTPUT_STRIDE


class Predictor:
    """A trained network ready to predict, on the GPU when there is one."""

    def __init__(self, path: Path, classes: list[str]) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network, encoder = networks.load(path, classes)
        self._network = network.to(self._device)
        mean, deviation = networks.normalisation(encoder)
        self._scale = torch.tensor([mean, deviation], device=self._device).view(2, 1, 3, 1, 1)

    @torch.inference_mode()
    def probabilities(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Softmax over the classes for ``image`` uint8 (H, W, 3): float32 (C, H, W).

        Raises TrainingError when the network's weights have become useless (NaN).
        """
        height, width = image.shape[:2]
        pixels = torch.tensor(image, device=self._device).permute(2, 0, 1)[None].float().div_(255)
        pixels = (pixels - self._scale[0]) / self._scale[1]
        stride = OUTPUT_STRIDE
        padded = pad(pixels, (0, -width % stride, 0, -height % stride))
        logits = self._network(padded)[0, :, :height, :width]
        probabilities = torch.softmax(logits, dim=0)
        if not bool(torch.isfinite(probabilities).all()):
            raise TrainingError("it predicts values that are not numbers")
        return probabilities.cpu().numpy()
