"""Training DeepLab-v3+ on the current label maps (eqs. 1 and 11), resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from alc_backend.core.arrays import VOID
from alc_backend.errors import TrainingError
from alc_backend.segmentation import model as networks
from alc_backend.segmentation.config import TrainingConfig
from alc_backend.segmentation.dataset import Batch, Loader, TrainingCrops
from alc_backend.store.files import write_atomically

MOMENTUM, WEIGHT_DECAY, POWER, ENCODER_SHARE = 0.9, 1e-4, 0.9, 0.1

Progress = Callable[[int, int, str], None]
"""Called with iterations done, iterations in all, and a sentence; may raise to stop."""


def train(
    config: TrainingConfig,
    keys: Sequence[str],
    load: Loader,
    *,
    classes: list[str],
    path: Path,
    data_version: str,
    progress: Progress,
    checkpoint_every: int = 50,
    cache_bytes: int = 2**31,
) -> None:
    """Train from ImageNet weights and save the network to ``path`` (safetensors).

    ``data_version`` names the state of the label maps that ``load`` gives. A checkpoint beside
    ``path`` is written every ``checkpoint_every`` iterations; a killed training called again with
    the same arguments continues there and, on a CPU, ends with the same weights as an undisturbed
    one; a finished one is not repeated. ``progress`` may raise CancelledError to stop. Raises
    TrainingError when the loss is not finite.
    """
    fingerprint = _fingerprint(config, keys, classes, data_version)
    if networks.trained_by(path) == fingerprint:
        return  # finished before its worker could say so
    path.unlink(missing_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mean, deviation = networks.normalisation(config.encoder)
    crops = TrainingCrops(
        keys,
        load,
        input_size=config.input_size,
        batch_size=config.batch_size,
        fill=cast(tuple[int, int, int], tuple(round(255 * value) for value in mean)),
        seed=config.seed,
        cache_bytes=cache_bytes,
    )
    torch.manual_seed(config.seed)
    network = networks.build(config.encoder, len(classes), pretrained=True).to(device)
    optimiser = _optimiser(network, config)
    checkpoint = path.with_suffix(".checkpoint")
    start = _restore(checkpoint, network, optimiser, fingerprint)

    loss_function = nn.CrossEntropyLoss(ignore_index=VOID)
    network.train()
    smoothed, began = 0.0, time.monotonic()
    for iteration in range(start, config.iterations):
        decay = (1 - iteration / config.iterations) ** POWER
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * decay
        torch.manual_seed(_iteration_seed(config.seed, iteration))  # dropout
        batch = crops.batch(iteration)
        images, labels = _tensors(batch, mean, deviation, device)
        optimiser.zero_grad(set_to_none=True)
        if bool((labels != VOID).any()):
            loss = loss_function(network(images), labels)
            value = float(loss.detach())
            if not value < float("inf"):
                checkpoint.unlink(missing_ok=True)
                raise TrainingError(
                    f"the loss became {value} at iteration {iteration} (images "
                    f"{', '.join(batch.keys)}); lower base_rate and start the round again"
                )
            loss.backward()
            optimiser.step()
            smoothed = value if iteration == start else 0.95 * smoothed + 0.05 * value
        done = iteration + 1
        if done % checkpoint_every == 0 and done < config.iterations:
            _save_checkpoint(checkpoint, network, optimiser, done, fingerprint)
        rate = (done - start) * config.batch_size / (time.monotonic() - began)
        progress(done, config.iterations, f"loss {smoothed:.3f}, {rate:.1f} images/s")
    networks.save(
        network.cpu(), path, encoder=config.encoder, classes=classes, training=fingerprint
    )
    checkpoint.unlink(missing_ok=True)


def _optimiser(network: nn.Module, config: TrainingConfig) -> torch.optim.SGD:
    encoder = {id(parameter) for parameter in cast(nn.Module, network.encoder).parameters()}
    head = [parameter for parameter in network.parameters() if id(parameter) not in encoder]
    backbone = [parameter for parameter in network.parameters() if id(parameter) in encoder]
    groups = [
        {"params": backbone, "lr": config.base_rate * ENCODER_SHARE},
        {"params": head, "lr": config.base_rate},
    ]
    for group in groups:
        group["initial_lr"] = group["lr"]
    return torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def _tensors(
    batch: Batch,
    mean: tuple[float, float, float],
    deviation: tuple[float, float, float],
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(batch.images).to(device).permute(0, 3, 1, 2).float().div_(255)
    scale = torch.tensor([mean, deviation], device=device).view(2, 1, 3, 1, 1)
    return (images - scale[0]) / scale[1], torch.from_numpy(batch.labels).to(device).long()


def _iteration_seed(seed: int, iteration: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{iteration}".encode()).digest()[:7], "big")


def _fingerprint(
    config: TrainingConfig, keys: Sequence[str], classes: list[str], data_version: str
) -> str:
    content = json.dumps([config.as_dict(), list(keys), classes, data_version])
    return hashlib.sha256(content.encode()).hexdigest()


def _save_checkpoint(
    path: Path, network: nn.Module, optimiser: torch.optim.SGD, done: int, fingerprint: str
) -> None:
    state = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "done": done,
        "fingerprint": fingerprint,
    }
    write_atomically(path, lambda part: torch.save(state, part))


def _restore(path: Path, network: nn.Module, optimiser: torch.optim.SGD, fingerprint: str) -> int:
    """Load a checkpoint of this very training; returns the iterations already done."""
    if not path.is_file():
        return 0
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state["fingerprint"] != fingerprint:
        return 0
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["done"])
