"""The loss of labels that stand for several classes, of which one is right."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alc_backend.core.arrays import VOID


class MergedPositiveLoss(nn.Module):
    """-log of the probability of all classes that a label stands for, summed over the pixels.

    ``sets`` bool (ids, C) says which classes each label id stands for; for a single class it is
    cross entropy. Void pixels do not count.
    """

    def __init__(self, sets: NDArray[np.bool_]) -> None:
        super().__init__()
        self.register_buffer("_sets", torch.from_numpy(sets))

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of ``logits`` (B, C, H, W) and ``labels`` int64 (B, H, W), a scalar."""
        known = labels != VOID
        of_pixels = logits.permute(0, 2, 3, 1)[known].log_softmax(dim=1)
        sets = cast(torch.Tensor, self._sets)[labels[known]]
        return -of_pixels.masked_fill(~sets, float("-inf")).logsumexp(dim=1).sum()
