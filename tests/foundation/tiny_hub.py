"""Tiny models with random weights as `save_pretrained` writes them, for each kind there is."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.foundation import tiny

SIDE = 64

MODELS = {"grounding-dino-base": "grounding-dino", "sam-vit-b": "sam"}
"""The names of the models that :func:`write_models` writes, and their kinds."""


def write(kind: str, folder: Path) -> Path:
    """The folder of a tiny model of a kind in KINDS, always with the same weights."""
    torch.manual_seed(7)
    folder.mkdir(parents=True, exist_ok=True)
    return KINDS[kind](folder)


def write_models(folder: Path) -> Path:
    """The files of MODELS, where `alc weights download` puts them."""
    for name, kind in MODELS.items():
        write(kind, folder / name)
    return folder


def _swin_and_text():
    from transformers import BertConfig, SwinConfig

    return {
        "backbone_config": SwinConfig(
            embed_dim=16,
            depths=[1, 1, 2, 1],
            num_heads=[1, 2, 4, 8],
            window_size=7,
            out_indices=[2, 3, 4],
        ),
        "text_config": BertConfig(
            vocab_size=1030,
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=128,
        ),
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "num_queries": 30,
    }


def _grounding_dino(folder: Path, kind: str = "GroundingDino") -> Path:
    import transformers

    config = getattr(transformers, f"{kind}Config")(**_swin_and_text())
    model = getattr(transformers, f"{kind}ForObjectDetection")(config)
    _shaken(model)
    model.save_pretrained(folder)
    transformers.GroundingDinoImageProcessor(
        size={"shortest_edge": 3 * SIDE, "longest_edge": 5 * SIDE}
    ).save_pretrained(folder)
    return tiny.write_tokenizer(folder)


def _mm_grounding_dino(folder: Path) -> Path:
    return _grounding_dino(folder, "MMGroundingDino")


def _owlv2(folder: Path) -> Path:
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor

    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = Owlv2Config(
        text_config={**small, "vocab_size": 1030, "bos_token_id": 101, "eos_token_id": 1029},
        vision_config={**small, "image_size": SIDE, "patch_size": 8},
        projection_dim=32,
    )
    model = Owlv2ForObjectDetection(config)
    _shaken(model)
    model.save_pretrained(folder)
    Owlv2ImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return _write_clip_tokenizer(folder)


def _sam(folder: Path) -> Path:
    from transformers import SamConfig, SamImageProcessor, SamModel

    image = {"image_size": SIDE, "patch_size": 8}
    config = SamConfig(
        vision_config={
            **image,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "output_channels": 32,
            "global_attn_indexes": [1],
            "window_size": 3,
            "num_pos_feats": 16,
        },
        prompt_encoder_config={**image, "hidden_size": 32},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64},
    )
    model = SamModel(config)
    _shaken(model)
    model.save_pretrained(folder)
    SamImageProcessor(
        size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)
    return folder


def _sam2(folder: Path) -> Path:
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model

    widths = [16, 32, 64, 128]
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 16,
                "image_size": [SIDE, SIDE],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": [1, 2, 4, 8],
                "window_size_per_stage": [4, 2, 2, 2],
                "global_attention_blocks": [3],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64},
    )
    model = Sam2Model(config)
    _shaken(model)
    model.save_pretrained(folder)
    Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def _sam3(folder: Path) -> Path:
    from transformers import Sam3Config, Sam3ImageProcessor, Sam3Model

    small = {"hidden_size": 32, "num_attention_heads": 2}
    part = {**small, "intermediate_size": 64}
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                **part,
                "num_hidden_layers": 2,
                "image_size": 56,
                "pretrain_image_size": 28,
                "patch_size": 14,
                "window_size": 2,
                "global_attn_indexes": [1],
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={
            "model_type": "clip_text_model",
            **part,
            "vocab_size": 1030,
            "num_hidden_layers": 1,
            "projection_dim": 32,
            "max_position_embeddings": 32,
            "bos_token_id": 101,
            "eos_token_id": 1029,
        },
        geometry_encoder_config={**part, "num_layers": 1},
        detr_encoder_config={**part, "num_layers": 1},
        detr_decoder_config={**part, "num_layers": 2, "num_queries": 10},
        mask_decoder_config={**small},
    )
    model = Sam3Model(config)
    _shaken(model)
    model.save_pretrained(folder)
    Sam3ImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return _write_clip_tokenizer(folder)


def _shaken(model) -> None:
    """Let the answers of an untrained model differ from place to place."""
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.normal_(std=1.5 / value[0].numel() ** 0.5)


def _write_clip_tokenizer(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = tiny.vocabulary()
    tokenizer = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A ?", special_tokens=[("[CLS]", 101), ("?", 1029)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return folder


KINDS = {
    "grounding-dino": _grounding_dino,
    "mm-grounding-dino": _mm_grounding_dino,
    "owlv2": _owlv2,
    "sam": _sam,
    "sam2": _sam2,
    "sam3": _sam3,
}
