"""Training DeepLab-v3+ on the current label maps (eqs. 1 and 11), resumable at any time."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alc_backend.common.files import write_atomically
from alc_backend.common.types import Progress
from alc_backend.core.arrays import VOID
from alc_backend.errors import TrainingError
from alc_backend.segmentation import model as networks
from alc_backend.segmentation.config import TrainingConfig
from alc_backend.segmentation.dataset import Batch, Loader, TrainingCrops
from alc_backend.segmentation.group import Group
from alc_backend.segmentation.partial_labels import MergedPositiveLoss

log = logging.getLogger(__name__)

MOMENTUM, WEIGHT_DECAY, POWER, ENCODER_SHARE = 0.9, 1e-4, 0.9, 0.1


def train(
    config: TrainingConfig,
    keys: Sequence[str],
    load: Loader,
    *,
    classes: list[str],
    path: Path,
    data_version: str,
    progress: Progress,
    check: Callable[[], object] = lambda: None,
    checkpoint_every: int = 50,
    cache_bytes: int = 2**31,
    loader_threads: int = 1,
    log_folder: Path | None = None,
    class_sets: NDArray[np.bool_] | None = None,
) -> None:
    """Train a network and save it to ``path`` (safetensors).

    ``data_version`` identifies the state of the label maps that ``load`` returns. A checkpoint
    beside ``path`` is written every ``checkpoint_every`` iterations. A training that was killed
    continues there when called again with the same arguments and, on a CPU, ends with the same
    weights as one without interruption; a finished one is not repeated. ``progress`` may raise
    CancelledError to stop, and so may ``check``, which is called before a file that others see is
    written or removed. ``loader_threads`` threads prepare crops ahead; TensorBoard files go to
    ``log_folder`` if TensorBoard is installed. ``class_sets`` bool (ids, C) says which classes each
    id of the label maps stands for, where that may be several; one of them is right.

    On CUDA the network computes in bfloat16. In a process group (``torchrun``) every process
    trains on its share of each batch, and the gradients are those of the whole batch. Only the
    first process reads and writes files of the training: the others, which may run on machines that
    do not see its ``path``, begin with the weights and at the iteration that it has. A batch that
    does not fit into memory is processed in parts, which ``progress`` reports; batch norm then sees
    the parts. Raises TrainingError when the loss is not finite, when not even two images fit, or
    when the processes of a group were called with different arguments.
    """
    fingerprint = _fingerprint(config, keys, classes, data_version, class_sets)
    if _is_finished(Group(), path, fingerprint):
        return  # by a worker that was killed before it could report that
    training = Training(config, classes, path, fingerprint, class_sets)
    if training.rank == 0:
        check()
        path.unlink(missing_ok=True)
    crops = TrainingCrops(
        keys,
        load,
        input_size=config.input_size,
        batch_size=config.batch_size,
        fill=cast(tuple[int, int, int], tuple(round(255 * value) for value in training.mean)),
        seed=config.seed,
        cache_bytes=cache_bytes // training.ranks,
    )
    start = training.restore()
    training.network.train()
    board = _TensorBoard(log_folder if training.rank == 0 else None, start)
    smoothed: float | None = None
    began = time.monotonic()
    batches = crops.batches(
        start, config.iterations, threads=loader_threads, rank=training.rank, ranks=training.ranks
    )
    with closing(board), closing(batches):  # type: ignore[type-var]
        for iteration, batch in enumerate(batches, start=start):
            value = training.step(iteration, batch, crops.keys(iteration))
            if value is not None:
                smoothed = value if smoothed is None else 0.95 * smoothed + 0.05 * value
                board.write(iteration, value, training.rate(iteration))
            done = iteration + 1
            if done % checkpoint_every == 0 and done < config.iterations and training.rank == 0:
                check()
                training.save_checkpoint(done)
            speed = (done - start) / (time.monotonic() - began)
            progress(
                done,
                config.iterations,
                f"loss {smoothed or 0:.3f}, {speed * config.batch_size:.1f} images/s"
                f"{training.note}",
            )
    if training.rank == 0:
        check()
        training.finish()


class Training:
    """One training: its network, optimiser, loss and checkpoint."""

    def __init__(
        self,
        config: TrainingConfig,
        classes: list[str],
        path: Path,
        fingerprint: str,
        class_sets: NDArray[np.bool_] | None = None,
    ) -> None:
        self._group = Group()
        self.rank, self.ranks = self._group.rank, self._group.ranks
        self.note = ""
        self._fingerprint = fingerprint
        self._config, self._classes, self._path = config, classes, path
        self._checkpoint = path.with_suffix(".checkpoint")
        self._device = self._group.device
        self.mean, deviation = networks.normalisation(config.encoder)
        self._scale = torch.tensor([self.mean, deviation], device=self._device).view(2, 1, 3, 1, 1)
        torch.manual_seed(config.seed)
        self.network = networks.build(config.encoder, len(classes), weights=config.encoder_weights)
        self.network = self.network.to(self._device).to(memory_format=networks.LAYOUT)
        if self.ranks > 1 and self._device.type == "cuda":
            convert = cast(
                Callable[[nn.Module], nn.Module], nn.SyncBatchNorm.convert_sync_batchnorm
            )
            self.network = convert(self.network)
        self._optimiser = _optimiser(self.network, config)
        self._loss: nn.Module = nn.CrossEntropyLoss(ignore_index=VOID, reduction="sum")
        if class_sets is not None:
            self._loss = MergedPositiveLoss(class_sets).to(self._device)
        self._part = -(-config.batch_size // self.ranks)

    def rate(self, iteration: int) -> float:
        """The head's learning rate at an iteration (polynomial decay)."""
        decay: float = (1 - iteration / self._config.iterations) ** POWER
        return self._config.base_rate * decay

    def step(self, iteration: int, batch: Batch, keys: Sequence[str]) -> float | None:
        """Run one iteration; returns the mean loss over labelled pixels, None when there are none.

        ``batch`` is this process's share of the batch whose image keys are ``keys``.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = group["share"] * self.rate(iteration)
        images, labels = self._tensors(batch)
        labelled = self._over_all((labels != VOID).sum())
        if not labelled:
            return None
        total: torch.Tensor | None = None
        while total is None:
            self._optimiser.zero_grad(set_to_none=True)
            torch.manual_seed(_iteration_seed(self._config.seed, iteration, self.rank))  # dropout
            try:
                total = self._backward(images, labels, labelled)
            except RuntimeError as error:
                if not networks.is_out_of_memory(error):
                    raise
            if total is None:  # outside the handler, whose exception keeps the tensors alive
                self._take_smaller_parts()
        value = self._over_all(total)
        if not value < float("inf"):
            if self.rank == 0:
                self._checkpoint.unlink(missing_ok=True)
            raise TrainingError(
                f"the loss became {value} at iteration {iteration} (images "
                f"{', '.join(keys)}); lower base_rate and start the round again"
            )
        if self.ranks > 1:
            self._add_gradients()
        self._optimiser.step()
        return value

    def restore(self) -> int:
        """Load a checkpoint of the same training, if any; returns the iterations already done.

        In a group, that is the first process's checkpoint; the others get their state from it.
        """
        done = self._read_checkpoint() if self.rank == 0 else 0
        done, self._part = self._group.as_the_first(done, self._part)
        self._group.copy_the_first(self.network.state_dict().values())
        if done:
            self._group.copy_the_first(self._momenta())
        return done

    def _read_checkpoint(self) -> int:
        if not self._checkpoint.is_file():
            return 0
        try:
            state: dict[str, Any] = torch.load(
                self._checkpoint, map_location=self._device, weights_only=True
            )
            if state["fingerprint"] != self._fingerprint:
                return 0
        except (OSError, EOFError, UnpicklingError, RuntimeError, KeyError, TypeError) as error:
            log.warning("training starts anew, %s cannot be read: %s", self._checkpoint, error)
            return 0
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._part = state["part"]
        return int(state["done"])

    def save_checkpoint(self, done: int) -> None:
        """Write what :meth:`restore` reads; random choices need no state, only the iteration."""
        state = {
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "done": done,
            "part": self._part,
            "fingerprint": self._fingerprint,
        }
        write_atomically(self._checkpoint, lambda part: torch.save(state, part))

    def finish(self) -> None:
        """Save the network and remove the checkpoint."""
        networks.save(
            self.network.cpu(),
            self._path,
            encoder=self._config.encoder,
            classes=self._classes,
            training=self._fingerprint,
        )
        self._checkpoint.unlink(missing_ok=True)

    def _momenta(self) -> list[torch.Tensor]:
        """What the optimiser remembers of each parameter's gradients; zeros at first."""
        return [
            self._optimiser.state[parameter].setdefault(
                "momentum_buffer", torch.zeros_like(parameter)
            )
            for group in self._optimiser.param_groups
            for parameter in group["params"]
        ]

    def _backward(
        self, images: torch.Tensor, labels: torch.Tensor, labelled: float
    ) -> torch.Tensor:
        """Add up the gradients of the batch, part by part; returns the loss of this share."""
        total = torch.zeros((), device=self._device)
        parts = max(
            1, min(-(-len(images) // self._part), len(images) // 2)
        )  # of at least two images
        for part, truth in zip(
            torch.tensor_split(images, parts), torch.tensor_split(labels, parts), strict=True
        ):
            with torch.autocast(
                self._device.type, dtype=torch.bfloat16, enabled=self._device.type == "cuda"
            ):
                logits = self.network(part)
            loss = self._loss(logits.float(), truth) / labelled
            loss.backward()
            total += loss.detach()
        return total

    def _add_gradients(self) -> None:
        """Sum the gradients over all processes, in one message."""
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        sizes = [gradient.numel() for gradient in gradients]
        message = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._group.add_up(message)
        parts = torch.split(message, sizes)
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def _take_smaller_parts(self) -> None:
        if (
            self._part <= 2 or self.ranks > 1
        ):  # other processes would wait for this one in batch norm
            raise TrainingError(
                f"{self._part} images at a time do not fit into memory; lower ALC_INPUT_SIZE or "
                "ALC_BATCH_SIZE, choose a smaller encoder (ALC_ENCODER), or free memory, and start "
                "the round again"
            )
        self._part = max(2, self._part // 2)
        self.note = f" (in parts of about {self._part}: the batch does not fit into memory)"
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _tensors(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = torch.from_numpy(batch.images), torch.from_numpy(batch.labels)
        if self._device.type == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        images = images.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
        scaled = (images - self._scale[0]) / self._scale[1]
        return scaled.contiguous(memory_format=networks.LAYOUT), labels.to(
            self._device, non_blocking=True
        ).long()

    def _over_all(self, value: torch.Tensor) -> float:
        """The sum of a scalar over all processes."""
        value = value.clone()
        self._group.add_up(value)
        return float(value)


class _TensorBoard:
    """Writes scalars if TensorBoard is installed and there is a folder for them."""

    def __init__(self, folder: Path | None, start: int) -> None:
        self._writer: Any = None
        if folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._writer = SummaryWriter(str(folder), purge_step=start)

    def write(self, iteration: int, loss: float, rate: float) -> None:
        if self._writer is not None:
            self._writer.add_scalar("loss", loss, iteration)
            self._writer.add_scalar("learning rate", rate, iteration)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _is_finished(group: Group, path: Path, fingerprint: str) -> bool:
    """Whether the first process of the group has the network already.

    Raises TrainingError when this one was to train another one.
    """
    mine = int(fingerprint[:15], 16)
    finished, first = group.as_the_first(int(networks.trained_by(path) == fingerprint), mine)
    if first != mine:
        raise TrainingError(
            "the processes of this training see different images, label maps or settings; give all "
            "machines the same database and settings, and start the round again"
        )
    return bool(finished)


def _optimiser(network: nn.Module, config: TrainingConfig) -> torch.optim.SGD:
    encoder = {id(parameter) for parameter in cast(nn.Module, network.encoder).parameters()}
    head = [parameter for parameter in network.parameters() if id(parameter) not in encoder]
    backbone = [parameter for parameter in network.parameters() if id(parameter) in encoder]
    groups = [
        {"params": backbone, "share": ENCODER_SHARE},
        {"params": head, "share": 1.0},
    ]
    return torch.optim.SGD(
        groups, lr=config.base_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )


def _iteration_seed(seed: int, iteration: int, rank: int) -> int:
    name = f"{seed}/{iteration}/{rank}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


def _fingerprint(
    config: TrainingConfig,
    keys: Sequence[str],
    classes: list[str],
    data_version: str,
    class_sets: NDArray[np.bool_] | None,
) -> str:
    content: list[Any] = [config.as_dict(), list(keys), classes, data_version]
    if class_sets is not None:
        content.append(class_sets.tolist())
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
