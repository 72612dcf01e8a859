"""Original checkpoints of GroundingDINO as models of the package transformers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from alc_backend.foundation.checkpoints import Tensors, count, fits, load, width

POINTS = 4
"""The sampling points of deformable attention in each level, in all published models."""

HEAD = 64
"""The width of an attention head of BERT, in all published models."""

_UNUSED = re.compile(
    r"^label_enc\.|^bert\.pooler\.|^bert\.embeddings\.position_ids$|\.relative_position_index$"
    r"|^transformer\.decoder\.bbox_embed\."  # the same tensors as bbox_embed
)

_BACKBONE = "model.backbone.conv_encoder.model."

_RENAMED = (
    (r"^backbone\.0\.patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^backbone\.0\.patch_embed\.norm\.", "swin.embeddings.norm."),
    (r"^backbone\.0\.layers\.", "swin.encoder.layers."),
    (r"\.attn\.relative_position_bias_table$",
     ".attention.relative_position_bias.relative_position_bias_table"),
    (r"^(swin\..*)\.attn\.proj\.", r"\1.attention.o_proj."),
    (r"^(swin\..*)\.attn\.", r"\1.attention."),
    (r"^(swin\..*\.blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"^(swin\..*\.blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"^swin\.", _BACKBONE + "swin."),
    (r"^bert\.", "model.text_backbone."),
    (r"^feat_map\.", "model.text_projection."),
    (r"^input_proj\.", "model.input_proj_vision."),
    (r"^transformer\.level_embed$", "model.level_embed"),
    (r"^transformer\.tgt_embed\.", "model.query_position_embeddings."),
    (r"^transformer\.enc_output", "model.enc_output"),
    (r"^transformer\.enc_out_bbox_embed\.", "model.encoder_output_bbox_embed."),
    (r"^transformer\.decoder\.norm\.", "model.decoder.layer_norm."),
    (r"^transformer\.decoder\.ref_point_head\.", "model.decoder.reference_points_head."),
    (r"^transformer\.encoder\.layers\.(\d+)\.", r"model.encoder.layers.\1.deformable_layer."),
    (r"^transformer\.encoder\.text_layers\.(\d+)\.",
     r"model.encoder.layers.\1.text_enhancer_layer."),
    (r"^transformer\.encoder\.fusion_layers\.(\d+)\.", r"model.encoder.layers.\1.fusion_layer."),
    (r"^transformer\.decoder\.layers\.", "model.decoder.layers."),
    (r"\.deformable_layer\.norm1\.", ".deformable_layer.self_attn_layer_norm."),
    (r"\.deformable_layer\.norm2\.", ".deformable_layer.final_layer_norm."),
    (r"\.text_enhancer_layer\.norm1\.", ".text_enhancer_layer.layer_norm_before."),
    (r"\.text_enhancer_layer\.norm2\.", ".text_enhancer_layer.layer_norm_after."),
    (r"\.(deformable|text_enhancer)_layer\.linear", r".\1_layer.fc"),
    (r"\.fusion_layer\.gamma_v$", ".fusion_layer.vision_param"),
    (r"\.fusion_layer\.gamma_l$", ".fusion_layer.text_param"),
    (r"\.fusion_layer\.(.*)(?<![a-z])v_proj\.", r".fusion_layer.\1vision_proj."),
    (r"\.fusion_layer\.(.*)(?<![a-z])l_proj\.", r".fusion_layer.\1text_proj."),
    (r"\.fusion_layer\.layer_norm_v\.", ".fusion_layer.layer_norm_vision."),
    (r"\.fusion_layer\.layer_norm_l\.", ".fusion_layer.layer_norm_text."),
    (r"^(model\.decoder\.layers\.\d+)\.cross_attn\.", r"\1.encoder_attn."),
    (r"^(model\.decoder\.layers\.\d+)\.norm1\.", r"\1.encoder_attn_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.ca_text\.", r"\1.encoder_attn_text."),
    (r"^(model\.decoder\.layers\.\d+)\.catext_norm\.", r"\1.encoder_attn_text_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.norm2\.", r"\1.self_attn_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.linear", r"\1.fc"),
)  # fmt: skip

_JOINED = (
    (re.compile(r"\.in_proj_(weight|bias)$"), (".query.", ".key.", ".value.")),
    (re.compile(r"\.attention\.qkv\.(weight|bias)$"),
     (".attention.q_proj.", ".attention.k_proj.", ".attention.v_proj.")),
)  # fmt: skip
"""Tensors that hold the projections of queries, keys and values one above the other."""


def model_of(tensors: Tensors, checkpoint: Path) -> Any:
    """The ``GroundingDinoForObjectDetection`` with an original checkpoint's tensors, on the CPU.

    Raises FoundationError for tensors that do not fit.
    """
    from transformers import GroundingDinoForObjectDetection

    with fits(checkpoint, "GroundingDINO"):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
        return load(GroundingDinoForObjectDetection, configuration(tensors), renamed(tensors))


def configuration(tensors: Tensors) -> Any:
    """The ``GroundingDinoConfig`` with the sizes of the tensors; KeyError for a missing one."""
    from transformers import BertConfig, GroundingDinoConfig, SwinConfig

    table = "backbone.0.layers.{}.blocks.0.attn.relative_position_bias_table"
    layers = count(tensors, "backbone.0.layers")
    levels = count(tensors, "input_proj")
    encoder = "transformer.encoder.layers.0"
    decoder = "transformer.decoder.layers.0"
    heads = width(tensors, f"{encoder}.self_attn.attention_weights.weight") // (levels * POINTS)
    text = width(tensors, "bert.embeddings.word_embeddings.weight", 1)
    return GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=width(tensors, "backbone.0.patch_embed.proj.weight"),
            depths=[count(tensors, f"backbone.0.layers.{n}.blocks") for n in range(layers)],
            num_heads=[width(tensors, table.format(n), 1) for n in range(layers)],
            window_size=(round(width(tensors, table.format(0)) ** 0.5) + 1) // 2,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            vocab_size=width(tensors, "bert.embeddings.word_embeddings.weight"),
            hidden_size=text,
            num_hidden_layers=count(tensors, "bert.encoder.layer"),
            num_attention_heads=max(1, text // HEAD),
            intermediate_size=width(tensors, "bert.encoder.layer.0.intermediate.dense.weight"),
            max_position_embeddings=width(tensors, "bert.embeddings.position_embeddings.weight"),
        ),
        d_model=width(tensors, "transformer.level_embed", 1),
        num_feature_levels=levels,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_layers=count(tensors, "transformer.encoder.layers"),
        decoder_layers=count(tensors, "transformer.decoder.layers"),
        encoder_ffn_dim=width(tensors, f"{encoder}.linear1.weight"),
        decoder_ffn_dim=width(tensors, f"{decoder}.linear1.weight"),
        num_queries=width(tensors, "transformer.tgt_embed.weight"),
    )


def renamed(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors under the names that transformers gives them, joined projections taken apart."""
    found: dict[str, torch.Tensor] = {}
    for original, tensor in tensors.items():
        if _UNUSED.search(original):
            continue
        name = re.sub(
            r"^backbone\.0\.norm(\d)\.",
            lambda match: f"{_BACKBONE}hidden_states_norms.stage{int(match[1]) + 1}.",
            original,
        )
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        found |= _apart(name, tensor)
    return found


def _apart(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    for pattern, parts in _JOINED:
        match = pattern.search(name)
        if match:
            return {
                name[: match.start()] + part + match[1]: piece
                for part, piece in zip(parts, tensor.chunk(3), strict=True)
            }
    return {name: tensor}
