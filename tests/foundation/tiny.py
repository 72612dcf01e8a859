"""Tiny checkpoints of the foundation models, written in their original file formats."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

WORDS = (
    "sofa couch dog cat car cable bus cow bird boat bottle bicycle chair horse sheep train tv "
    "monitor person table potted plant motor ##bike polyp air ##plane aero dining ##table "
    "##monitor traffic light sign road wall fence pole sky rider truck sidewalk building "
    "vegetation terrain motorcycle ##cycle ellipse circle square triangle green red"
)


def vocabulary() -> list[str]:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", ",", "-"]
    words = [*special, *letters, *(f"##{letter}" for letter in letters)]
    words += WORDS.split()
    return list(dict.fromkeys(words))


def write_bert(folder: Path, positions: int = 512) -> Path:
    """A text encoder of one small layer with a vocabulary of its own, as Hugging Face keeps it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), "utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder


def write_models(folder: Path) -> Path:
    """All three under the names that ``swin-b``, ``vit-b`` and bert-base-uncased have."""
    text = write_bert(folder / "bert-base-uncased")
    write_grounding_dino(folder / "groundingdino_swinb_cogcoor.pth", text)
    write_sam(folder / "sam_vit_b_01ec64.pth")
    return folder


def write_grounding_dino(path: Path, text_encoder: Path, queries: int = 30) -> Path:
    """A GroundingDINO with a small Swin, in the layout of groundingdino_swint_ogc.pth."""
    from groundingdino.config import GroundingDINO_SwinT_OGC as packaged
    from groundingdino.models.GroundingDINO import groundingdino
    from groundingdino.models.GroundingDINO.backbone import backbone, swin_transformer
    from groundingdino.util.slconfig import ConfigDict

    sizes = {
        "embed_dim": 16,
        "depths": [1, 1, 2, 1],
        "num_heads": [1, 2, 4, 8],
        "window_size": 7,
    }
    options = {name: value for name, value in vars(packaged).items() if name[0] != "_"}
    options |= {
        "text_encoder_type": str(text_encoder),
        "enc_layers": 1,
        "dec_layers": 2,
        "dim_feedforward": 128,
        "num_queries": queries,
        "use_checkpoint": False,
        "use_transformer_ckpt": False,
    }
    torch.manual_seed(1)
    original = swin_transformer.build_swin_transformer
    backbone.build_swin_transformer = lambda name, pretrain_img_size, **kw: (
        swin_transformer.SwinTransformer(pretrain_img_size=pretrain_img_size, **sizes, **kw)
    )
    try:
        model = groundingdino.build_groundingdino(ConfigDict(options))
    finally:
        backbone.build_swin_transformer = original
    _spread(model)
    return save_grounding_dino(path, model)


def save_grounding_dino(path: Path, model: torch.nn.Module) -> Path:
    tensors = {f"module.{name}": value for name, value in model.state_dict().items()}
    tensors["module.label_enc.weight"] = torch.zeros(3, 4)  # what training left behind
    torch.save({"model": tensors}, path)
    return path


def _spread(model: torch.nn.Module) -> None:
    """Let the boxes and scores of an untrained model differ from query to query."""
    with torch.no_grad():
        for head in {id(head): head for head in model.bbox_embed}.values():
            torch.nn.init.normal_(head.layers[-1].weight, std=0.2)
        torch.nn.init.normal_(model.feat_map.weight, std=0.1)


def write_sam(path: Path, image_size: int = 64) -> Path:
    """A Segment Anything model with two small blocks, in the layout of sam_vit_b_01ec64.pth."""
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    side = image_size // 8
    torch.manual_seed(2)
    model = Sam(
        ImageEncoderViT(
            depth=2,
            embed_dim=16,
            img_size=image_size,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=2,
            patch_size=8,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=(1,),
            window_size=3,
            out_chans=32,
        ),
        PromptEncoder(
            embed_dim=32,
            image_embedding_size=(side, side),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=8),
            transformer_dim=32,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )
    torch.save(model.state_dict(), path)
    return path
