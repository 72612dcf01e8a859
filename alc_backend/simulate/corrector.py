"""A²LC's corrector: a small network, taught by the answers, that relabels what was not asked about.

Source: A²LC (AAAI 2026), as published; nobody checks what it writes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LAYERS = (256, 128, 64)
RATE, EPOCHS, BATCH = 1e-4, 100, 8

SURE = 0.99
"""The least probability of a class that a superpixel is relabelled to."""


def relabelled(
    predicted: NDArray[np.float32],
    labels: NDArray[np.uint8],
    answers: Mapping[int, int],
    corrected: NDArray[np.intp],
    seed: int,
) -> dict[int, int]:
    """The superpixels that the corrector relabels, by index, with their new class ids.

    ``predicted`` (N, C) are the network's mean probabilities over each superpixel, ``labels`` (N,)
    the present labels, ``answers`` the class ids that were named, by index, and ``corrected`` the
    class ids that this round's corrections named. A superpixel that nobody was asked about is
    relabelled if another class than its label has a probability of at least SURE, unless that class
    is in the rarer half of ``corrected`` or its label is the rarest class there.
    """
    if not answers or not len(corrected):
        return {}
    classes = predicted.shape[1]
    index = np.fromiter(answers, dtype=np.intp, count=len(answers))
    named = np.fromiter(answers.values(), dtype=np.intp, count=len(answers))
    probabilities = _taught(predicted, index, named, seed)
    counts = np.bincount(corrected, minlength=classes)
    ascending = sorted(np.flatnonzero(counts), key=lambda class_id: (counts[class_id], class_id))
    rare = ascending[: len(ascending) // 2]
    best = probabilities.argmax(axis=1)
    open_ = np.ones(len(labels), dtype=np.bool_)
    open_[index] = False
    chosen = (
        open_
        & (best != labels)
        & (probabilities.max(axis=1) >= SURE)
        & ~np.isin(best, rare)
        & (labels != ascending[0])
    )
    return {int(found): int(best[found]) for found in np.flatnonzero(chosen)}


def _taught(
    predicted: NDArray[np.float32], index: NDArray[np.intp], named: NDArray[np.intp], seed: int
) -> NDArray[np.float32]:
    """The probabilities (N, C) of the network that has learnt the answers."""
    import torch
    from torch import nn

    classes = predicted.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = (classes, *LAYERS)
        hidden = [
            layer
            for width, following in zip(widths, LAYERS, strict=False)
            for layer in (nn.Linear(width, following), nn.ReLU())
        ]
        network = nn.Sequential(*hidden, nn.Linear(LAYERS[-1], classes))
        counts = np.bincount(named, minlength=classes)
        weights = np.where(counts > 0, 1 / np.maximum(counts, 1), 0.0)
        loss = nn.CrossEntropyLoss(torch.tensor(weights, dtype=torch.float32))
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        values = torch.from_numpy(np.ascontiguousarray(predicted))
        inputs, targets = values[torch.from_numpy(index)], torch.from_numpy(named)
        for _ in range(EPOCHS):
            for part in torch.split(torch.randperm(len(index)), BATCH):
                optimizer.zero_grad()
                loss(network(inputs[part]), targets[part]).backward()
                optimizer.step()
        with torch.inference_mode():
            found: NDArray[np.float32] = network(values).softmax(dim=1).numpy()
    return found
