"""What the original code of GroundingDINO and Segment Anything answers, kept for the tests.

`make originals` runs this in an environment of its own, with groundingdino-py 0.4.0 and
segment-anything 1.0, which need an old transformers. It writes, beside itself, ``shapes.json.gz``
(names and shapes of the tensors of all published checkpoints and of the tiny ones) and
``groundingdino.npz`` and ``sam.npz`` (what the tiny ones answer to the tests' pictures).
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from groundingdino.config import GroundingDINO_SwinB_cfg as swin_b
from groundingdino.config import GroundingDINO_SwinT_OGC as swin_t
from groundingdino.datasets import transforms
from groundingdino.models.GroundingDINO.backbone.backbone import Joiner
from groundingdino.models.GroundingDINO.backbone.position_encoding import build_position_encoding
from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer
from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO, build_groundingdino
from groundingdino.models.GroundingDINO.transformer import build_transformer
from groundingdino.util.slconfig import ConfigDict
from PIL import Image
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from transformers import BertConfig, BertModel

from tests.foundation import tiny

SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 7}
SIZES = {"enc_layers": 1, "dec_layers": 2, "dim_feedforward": 128, "num_queries": 30}
PICTURES = {"square": tiny.picture, "wide": tiny.wide_picture}


def main() -> None:
    """Write the three files."""
    with tempfile.TemporaryDirectory() as folder:
        text = tiny.write_tokenizer(Path(folder) / "text")
        small = _bert(text, {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1})
        models = {"tiny groundingdino": _grounding_dino(swin_t, small, SIZES, SWIN)}
        large = _bert(tiny.write_tokenizer(Path(folder) / "large"), {"vocab_size": 30522})
        models |= {
            "grounding-dino-tiny": _grounding_dino(swin_t, large),
            "grounding-dino-base": _grounding_dino(swin_b, large),
            "tiny sam": _sam(),
            **{
                f"sam-{name.replace('_', '-')}": sam_model_registry[name]()
                for name in ("vit_b", "vit_l", "vit_h")
            },
        }
        shapes = {name: dict(_shapes(name, model)) for name, model in models.items()}
        with (
            (tiny.ORIGINALS / "shapes.json.gz").open("wb") as raw,
            gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file,
        ):
            file.write(json.dumps(shapes).encode())
        _detect(models["tiny groundingdino"])
        _segment(models["tiny sam"])


def _shapes(name: str, model: torch.nn.Module) -> Iterator[tuple[str, list[int]]]:
    prefix = "module." if "dino" in name else ""
    for tensor, value in model.state_dict().items():
        yield prefix + tensor, list(value.shape)
    if prefix:
        yield "module.label_enc.weight", [3, 4]  # what training left behind


def _bert(folder: Path, sizes: dict[str, int]) -> Path:
    sizes = {"vocab_size": len(tiny.vocabulary()), "intermediate_size": 128, **sizes}
    if "hidden_size" not in sizes:
        del sizes["intermediate_size"]
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    return folder


def _grounding_dino(packaged, text, sizes=None, swin=None) -> torch.nn.Module:
    options = {name: value for name, value in vars(packaged).items() if name[0] != "_"}
    options |= {"text_encoder_type": str(text), "use_checkpoint": False}
    options |= {"use_transformer_ckpt": False, **(sizes or {})}
    chosen = ConfigDict(options)
    if swin is None:
        return build_groundingdino(chosen).eval()
    image_side = int(chosen.backbone.split("_")[-2])
    features = SwinTransformer(
        pretrain_img_size=image_side, out_indices=chosen.return_interm_indices, **swin
    )
    backbone = Joiner(features, build_position_encoding(chosen))
    backbone.num_channels = features.num_features[4 - len(chosen.return_interm_indices) :]
    given = {name: options[name] for name in signature(GroundingDINO).parameters if name in options}
    given |= {"backbone": backbone, "transformer": build_transformer(chosen)}
    given |= {"aux_loss": True, "iter_update": True, "query_dim": 4, "dn_number": 0}
    return GroundingDINO(**given).eval()


def _sam() -> torch.nn.Module:
    encoder = ImageEncoderViT(
        depth=2,
        embed_dim=16,
        img_size=64,
        mlp_ratio=4,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        num_heads=2,
        patch_size=8,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=(1,),
        window_size=3,
        out_chans=32,
    )
    prompts = PromptEncoder(
        embed_dim=32, image_embedding_size=(8, 8), input_image_size=(64, 64), mask_in_chans=16
    )
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=8),
        transformer_dim=32,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    return Sam(encoder, prompts, decoder).eval()


def _load(model: torch.nn.Module, name: str) -> None:
    given = {
        tensor.removeprefix("module."): value
        for tensor, value in tiny.weights(tiny.shapes(name)).items()
        if not tensor.endswith(("position_index", "position_ids")) and "label_enc" not in tensor
    }
    missing, unknown = model.load_state_dict(given, strict=False)
    assert not unknown
    assert all(tensor.endswith(("position_index", "position_ids")) for tensor in missing)


def _detect(model: torch.nn.Module) -> None:
    _load(model, "tiny groundingdino")
    prepare = transforms.Compose(
        [
            transforms.RandomResize([800], max_size=1333),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    found = {}
    for name, picture in PICTURES.items():
        pixels, _ = prepare(Image.fromarray(picture()), None)
        with torch.inference_mode():
            output = model(pixels[None], captions=[tiny.CAPTION])
        tokens = output["pred_logits"][0].sigmoid()
        found[f"{name} boxes"] = output["pred_boxes"][0].numpy()
        found[f"{name} tokens"] = tokens[:, : int((tokens > 0).any(0).sum())].numpy()
    np.savez_compressed(tiny.ORIGINALS / "groundingdino.npz", **found)


def _segment(model: torch.nn.Module) -> None:
    _load(model, "tiny sam")
    predictor = SamPredictor(model)
    found = {}
    for name, picture in PICTURES.items():
        predictor.set_image(picture())
        masks = [predictor.predict(box=box, multimask_output=False)[0][0] for box in tiny.BOXES]
        found[name] = np.array(masks)
    np.savez_compressed(tiny.ORIGINALS / "sam.npz", **found)


if __name__ == "__main__":
    main()
