"""Original checkpoints of Segment Anything as models of the package transformers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from alc_backend.foundation.checkpoints import Tensors, count, fits, load, width

_PIXEL_MEAN, _PIXEL_STD = "pixel_mean", "pixel_std"

_RENAMED = (
    (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^image_encoder\.", "vision_encoder."),
    (r"^(vision_encoder\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"^prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (
        r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
        "shared_image_embedding.positional_embedding",
    ),
    (r"^(mask_decoder\.transformer\..*)\bnorm(\d|_final_attn)\.", r"\1layer_norm\2."),
    (r"^mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.layers\.0\.",
     r"\1.proj_in."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.layers\.2\.",
     r"\1.proj_out."),
    (r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d|iou_prediction_head))\.layers\.1\.",
     r"\1.layers.0."),
)  # fmt: skip


def model_of(tensors: Tensors, checkpoint: Path) -> Any:
    """The ``SamModel`` with the tensors of an original checkpoint, on the CPU.

    Raises FoundationError for tensors that do not fit.
    """
    from transformers import SamModel

    with fits(checkpoint, "Segment Anything"):
        config = configuration(tensors)
        return load(SamModel, config, renamed(tensors))


def configuration(tensors: Tensors) -> Any:
    """The ``SamConfig`` whose sizes are those of the tensors; KeyError for a missing tensor."""
    from transformers import SamConfig

    patch = width(tensors, "image_encoder.patch_embed.proj.weight", 2)
    side = width(tensors, "image_encoder.pos_embed", 1)
    blocks = count(tensors, "image_encoder.blocks")
    reach = [
        (width(tensors, f"image_encoder.blocks.{n}.attn.rel_pos_h") + 1) // 2 for n in range(blocks)
    ]
    dimension = width(tensors, "image_encoder.pos_embed", 3)
    head = width(tensors, "image_encoder.blocks.0.attn.rel_pos_h", 1)
    prompt = width(tensors, "image_encoder.neck.0.weight")
    image = {"image_size": side * patch, "patch_size": patch}
    return SamConfig(
        vision_config={
            **image,
            "hidden_size": dimension,
            "num_hidden_layers": blocks,
            "num_attention_heads": dimension // head,
            "mlp_dim": width(tensors, "image_encoder.blocks.0.mlp.lin1.weight"),
            "output_channels": prompt,
            "window_size": min(reach),
            "global_attn_indexes": [n for n, size in enumerate(reach) if size == side],
            "num_pos_feats": prompt // 2,
        },
        prompt_encoder_config={
            **image,
            "hidden_size": prompt,
            "mask_input_channels": width(tensors, "prompt_encoder.mask_downscaling.3.weight"),
        },
        mask_decoder_config={
            "hidden_size": prompt,
            "mlp_dim": width(tensors, "mask_decoder.transformer.layers.0.mlp.lin1.weight"),
            "num_hidden_layers": count(tensors, "mask_decoder.transformer.layers"),
            "iou_head_hidden_dim": width(
                tensors, "mask_decoder.iou_prediction_head.layers.0.weight"
            ),
        },
    )


def renamed(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors under the names that transformers gives them."""
    found = {}
    for name, tensor in tensors.items():
        if name in (_PIXEL_MEAN, _PIXEL_STD):
            continue
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found
