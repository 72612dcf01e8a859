"""Detecting boxes with classes by GroundingDINO, from its original checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from alc_backend.errors import FoundationError
from alc_backend.foundation.checkpoints import count, fits, not_installed, read_tensors, width
from alc_backend.foundation.prompts import Caption, Prompt, best_classes, captions

Tensors = Mapping[str, torch.Tensor]

MAX_TOKENS = 256
"""The most tokens in a caption that GroundingDINO accepts."""

SAME_BOX = 0.8
"""Of boxes from different captions with a larger IoU only the one with the best score is kept."""

_UNUSED = ("label_enc.", "bert.embeddings.position_ids")


@dataclass(frozen=True)
class Detections:
    """The detections in an image, in the detector's order.

    ``boxes`` float32 (N, 4) are left, top, right, bottom in pixels, inside the image; ``scores``
    float32 (N,) lie in 0..1; ``classes`` int64 (N,) are class ids.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


class Detector(Protocol):
    """A model that finds the objects that prompts name."""

    def captions(self, prompts: Sequence[Prompt]) -> list[Caption]:
        """The prompts as captions for this detector; FoundationError for unusable prompts."""

    def detect(
        self, image: NDArray[np.uint8], wanted: Sequence[Caption], threshold: float
    ) -> Detections:
        """The boxes in an image, uint8 (H, W, 3), whose best class scores over ``threshold``."""


class GroundingDino:
    """GroundingDINO with a Swin backbone, whose sizes are read from the checkpoint.

    ``text_encoder`` is the folder of bert-base-uncased. Nothing is downloaded. Computes in single
    precision, because half precision selects entirely different proposals. Raises FoundationError
    for unusable files.
    """

    def __init__(self, checkpoint: Path, text_encoder: Path, device: str = "cpu") -> None:
        tensors = read_tensors(checkpoint, "GroundingDINO", inside="model")
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
        self._model = _build(tensors, checkpoint, text_encoder).to(device).eval()
        self._device = device
        if not self._model.tokenizer.is_fast:
            raise FoundationError(
                f"{text_encoder}: has no fast tokenizer; fetch it again with `alc weights download "
                "bert-base-uncased`"
            )

    def captions(self, prompts: Sequence[Prompt]) -> list[Caption]:
        """The prompts as captions that are short enough for the text encoder."""
        longest = min(MAX_TOKENS, int(self._model.bert.config.max_position_embeddings))
        return captions(prompts, self._model.tokenizer, longest)

    def detect(
        self, image: NDArray[np.uint8], wanted: Sequence[Caption], threshold: float
    ) -> Detections:
        """The boxes of all captions in an image, uint8 (H, W, 3), without duplicates."""
        height, width_ = image.shape[:2]
        pixels = _prepared(image).to(self._device)
        found = [self._ask(pixels, caption, threshold) for caption in wanted]
        scale = np.array([width_, height, width_, height], dtype=np.float32)
        return _merged(
            [Detections(boxes * scale, scores, classes) for boxes, scores, classes in found]
        )

    def _ask(
        self, pixels: torch.Tensor, caption: Caption, threshold: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        with torch.inference_mode():
            output = self._model(pixels[None], captions=[caption.text])
        tokens = output["pred_logits"][0, :, : len(caption.classes)].float().sigmoid().cpu().numpy()
        scores, classes = best_classes(tokens, caption.classes)
        kept = scores > threshold
        centre, size = np.split(output["pred_boxes"][0].float().cpu().numpy()[kept], 2, axis=1)
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, 1)
        return boxes, scores[kept], classes[kept]


def _prepared(image: NDArray[np.uint8]) -> torch.Tensor:
    """The image resized and normalised as in GroundingDINO's training, float32 (3, h, w)."""
    from groundingdino.datasets import transforms

    prepare = transforms.Compose(
        [
            transforms.RandomResize([800], max_size=1333),  # one size: nothing random
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    pixels, _ = prepare(Image.fromarray(image), None)
    assert isinstance(pixels, torch.Tensor)
    return pixels


def _merged(found: Sequence[Detections]) -> Detections:
    """All boxes, without those that overlap a better box of another caption."""
    from torchvision.ops import box_iou

    boxes = np.concatenate([part.boxes for part in found])
    scores = np.concatenate([part.scores for part in found])
    classes = np.concatenate([part.classes for part in found])
    caption = np.concatenate([np.full(len(part.scores), n) for n, part in enumerate(found)])
    kept = np.ones(len(boxes), dtype=np.bool_)
    if len(found) > 1:
        tensor = torch.from_numpy(boxes)
        same = box_iou(tensor, tensor).numpy() > SAME_BOX
        same &= caption[:, None] != caption[None, :]
        for best in np.argsort(-scores, kind="stable"):
            if kept[best]:
                kept &= ~same[best]
    return Detections(boxes[kept], scores[kept], classes[kept])


def architecture(tensors: Tensors) -> dict[str, Any]:
    """The sizes of a GroundingDINO model, read from the shapes of its tensors.

    ``swin`` are the arguments of the backbone; the other names are those of the package's
    configuration. Raises KeyError for a missing tensor.
    """
    table = "backbone.0.layers.{}.blocks.0.attn.relative_position_bias_table"
    layers = count(tensors, "backbone.0.layers")
    levels = count(tensors, "input_proj")
    encoder = "transformer.encoder.layers.0"
    weights = tensors[f"{encoder}.self_attn.attention_weights.weight"].shape[0]
    return {
        "swin": {
            "embed_dim": width(tensors, "backbone.0.patch_embed.proj.weight"),
            "depths": [count(tensors, f"backbone.0.layers.{n}.blocks") for n in range(layers)],
            "num_heads": [tensors[table.format(n)].shape[1] for n in range(layers)],
            "window_size": (round(width(tensors, table.format(0)) ** 0.5) + 1) // 2,
        },
        "hidden_dim": width(tensors, "transformer.level_embed", 1),
        "num_feature_levels": levels,
        "nheads": weights // (levels * 4),  # four sampling points in each level
        "dim_feedforward": width(tensors, f"{encoder}.linear1.weight"),
        "enc_layers": count(tensors, "transformer.encoder.layers"),
        "dec_layers": count(tensors, "transformer.decoder.layers"),
        "num_queries": width(tensors, "transformer.tgt_embed.weight"),
    }


def _build(tensors: Tensors, checkpoint: Path, text_encoder: Path) -> Any:
    try:
        from groundingdino.config import GroundingDINO_SwinT_OGC as packaged
        from groundingdino.models.GroundingDINO import groundingdino, transformer
        from groundingdino.models.GroundingDINO.backbone import backbone, swin_transformer
        from groundingdino.util.slconfig import ConfigDict
    except ImportError as error:
        raise not_installed("GroundingDINO", error) from error
    with fits(checkpoint, "GroundingDINO"):
        sizes = architecture(tensors)
        swin = swin_transformer.SwinTransformer(
            **sizes.pop("swin"), out_indices=(1, 2, 3), dilation=False, use_checkpoint=False
        )
        options = {name: value for name, value in vars(packaged).items() if name[0] != "_"}
        options |= {**sizes, "use_checkpoint": False, "use_transformer_ckpt": False}
        args = ConfigDict(options)
        joined = backbone.Joiner(swin, backbone.build_position_encoding(args))
        joined.num_channels = swin.num_features[1:]
    with redirect_stdout(StringIO()), fits(text_encoder, "bert-base-uncased"):
        model = groundingdino.GroundingDINO(
            joined,
            transformer.build_transformer(args),
            num_queries=args.num_queries,
            aux_loss=False,
            iter_update=True,
            query_dim=4,
            num_feature_levels=args.num_feature_levels,
            nheads=args.nheads,
            dec_pred_bbox_embed_share=True,
            two_stage_type="standard",
            two_stage_bbox_embed_share=False,
            two_stage_class_embed_share=False,
            text_encoder_type=str(text_encoder),
            max_text_len=MAX_TOKENS,
        )
    with fits(checkpoint, "GroundingDINO"):
        missing, unknown = model.load_state_dict(tensors, strict=False)
        unknown = [name for name in unknown if not name.startswith(_UNUSED)]
        if missing or unknown:
            raise KeyError((missing + unknown)[0])
    return model
