"""Masks for boxes by the Segment Anything Model, from its original checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from alc_backend.errors import FoundationError
from alc_backend.foundation.checkpoints import (
    Tensors,
    count,
    fits,
    not_installed,
    read_tensors,
    width,
)

MASK_MEMORY = 2**30
"""The approximate memory, in bytes, for the boxes that are decoded together."""

DECODER_BYTES = 48 * 2**20
"""The memory, in bytes, that the decoder needs for one box."""


class Segmenter(Protocol):
    """A model that segments the object in a box."""

    def segment(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32]
    ) -> Iterator[NDArray[np.bool_]]:
        """One mask, bool (H, W), for each box (left, top, right, bottom in pixels), in order."""


class Sam:
    """Segment Anything with a ViT encoder, whose sizes are read from the checkpoint.

    With ``half`` the image encoder, which takes nearly all the time, computes in bfloat16; masks
    are decoded in single precision. Raises FoundationError for an unusable file.
    """

    def __init__(self, checkpoint: Path, device: str = "cpu", half: bool = False) -> None:
        try:
            from segment_anything import SamPredictor
        except ImportError as error:
            raise not_installed("Segment Anything", error) from error
        tensors = read_tensors(checkpoint, "Segment Anything")
        with fits(checkpoint, "Segment Anything"):
            model = _build(tensors)
            model.load_state_dict(tensors)
        self._predictor = SamPredictor(model.to(device).eval())
        self._device, self._half = device, half

    def segment(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32]
    ) -> Iterator[NDArray[np.bool_]]:
        """One mask for each box, in order; the image is encoded once."""
        if not len(boxes):
            return
        shape = (image.shape[0], image.shape[1])
        half = torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._half)
        with torch.inference_mode(), half:
            self._predictor.set_image(image)
        self._predictor.features = self._predictor.features.float()
        prompts = self._predictor.transform.apply_boxes(boxes.astype(np.float64), shape)
        at_once = boxes_at_once(shape, self._predictor.model.image_encoder.img_size)
        first = 0
        while first < len(prompts):
            try:
                masks = self._decode(prompts[first : first + at_once])
            except torch.cuda.OutOfMemoryError as error:
                if at_once == 1:
                    raise FoundationError(
                        "the GPU has not enough memory for one mask of an image of "
                        f"{shape[1]}×{shape[0]}; use a smaller image or vit_b"
                    ) from error
                torch.cuda.empty_cache()
                at_once = at_once // 2
                continue
            yield from masks
            first += len(masks)

    def _decode(self, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        with torch.inference_mode():
            masks, _, _ = self._predictor.predict_torch(
                point_coords=None,
                point_labels=None,
                boxes=torch.as_tensor(boxes, dtype=torch.float32, device=self._device),
                multimask_output=False,
            )
        decoded: NDArray[np.bool_] = masks[:, 0].cpu().numpy()
        return decoded


def boxes_at_once(shape: tuple[int, int], size: int) -> int:
    """The number of boxes of an (H, W) image to decode together, by the memory they need.

    ``size`` is the side of the model's input in pixels.
    """
    floats = size * size + 2 * shape[0] * shape[1]
    return max(1, MASK_MEMORY // (DECODER_BYTES + 4 * floats))


def architecture(tensors: Tensors) -> dict[str, Any]:
    """The sizes of a Segment Anything model, read from the shapes of its tensors.

    Raises KeyError for a missing tensor.
    """
    patch = width(tensors, "image_encoder.patch_embed.proj.weight", 2)
    side = width(tensors, "image_encoder.pos_embed", 1)
    blocks = count(tensors, "image_encoder.blocks")
    reach = [
        (width(tensors, f"image_encoder.blocks.{n}.attn.rel_pos_h") + 1) // 2 for n in range(blocks)
    ]
    dimension = width(tensors, "image_encoder.pos_embed", 3)
    head = width(tensors, "image_encoder.blocks.0.attn.rel_pos_h", 1)
    return {
        "image_size": side * patch,
        "patch_size": patch,
        "embed_dim": dimension,
        "depth": blocks,
        "num_heads": dimension // head,
        "window_size": min(reach),
        "global_attn_indexes": tuple(n for n, size in enumerate(reach) if size == side),
        "prompt_dim": width(tensors, "image_encoder.neck.0.weight"),
        "mlp_dim": width(tensors, "mask_decoder.transformer.layers.0.mlp.lin1.weight"),
    }


def _build(tensors: Tensors) -> Any:
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        TwoWayTransformer,
    )
    from segment_anything.modeling import Sam as Model

    sizes = architecture(tensors)
    side = sizes["image_size"] // sizes["patch_size"]
    return Model(
        image_encoder=ImageEncoderViT(
            depth=sizes["depth"],
            embed_dim=sizes["embed_dim"],
            img_size=sizes["image_size"],
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=sizes["num_heads"],
            patch_size=sizes["patch_size"],
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=sizes["global_attn_indexes"],
            window_size=sizes["window_size"],
            out_chans=sizes["prompt_dim"],
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=sizes["prompt_dim"],
            image_embedding_size=(side, side),
            input_image_size=(sizes["image_size"], sizes["image_size"]),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=sizes["prompt_dim"], mlp_dim=sizes["mlp_dim"], num_heads=8
            ),
            transformer_dim=sizes["prompt_dim"],
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )
