"""Masks for boxes by the Segment Anything Model, its first version and 2.1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alc_backend.foundation.checkpoints import fits, processor_of
from alc_backend.foundation.devices import enough_memory

MASK_MEMORY = 2**30
"""The approximate memory, in bytes, for the boxes that are decoded together."""

DECODER_BYTES = 48 * 2**20
"""The memory, in bytes, that the decoder needs for one box."""


class Sam:
    """Segment Anything; ``model`` and ``image_processor`` are those of transformers.

    With ``half`` the image encoder, which takes nearly all the time, computes in bfloat16; masks
    are decoded in single precision.
    """

    name = "Segment Anything"

    def __init__(
        self, model: Any, image_processor: Any, device: str = "cpu", half: bool = False
    ) -> None:
        self._model, self._prepare = model.to(device).eval(), image_processor
        self._device, self._half = device, half
        self._side = int(model.config.prompt_encoder_config.image_size)
        self.mask_memory = MASK_MEMORY

    @classmethod
    def from_folder(cls, folder: Path, device: str = "cpu", half: bool = False) -> Sam:
        """The model that ``save_pretrained`` wrote; FoundationError when it cannot be read."""
        from transformers import SamModel

        with fits(folder, cls.name):
            model = SamModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            return cls(model, processor_of(folder, "SamImageProcessorPil"), device, half)

    @classmethod
    def from_original(cls, model: Any, device: str = "cpu", half: bool = False) -> Sam:
        """The model that was read from an original checkpoint."""
        from transformers import SamImageProcessorPil

        side = model.config.vision_config.image_size
        prepare = SamImageProcessorPil(
            size={"longest_edge": side}, pad_size={"height": side, "width": side}
        )
        return cls(model, prepare, device, half)

    def segment(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32]
    ) -> Iterator[NDArray[np.bool_]]:
        """One mask for each box, in order; the image is encoded once."""
        if not len(boxes):
            return
        half = torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._half)
        with enough_memory(self.name, image), torch.inference_mode(), half:
            prepared = self._prepare(
                images=image, return_tensors="pt", input_data_format="channels_last"
            )
            pixels = prepared["pixel_values"].to(self._device)
            features = _single(self._model.get_image_embeddings(pixels))
        shape = (image.shape[0], image.shape[1])
        prompts = self._scaled(boxes, shape)
        at_once = boxes_at_once(shape, self._side, self.mask_memory)
        first = 0
        while first < len(prompts):
            masks = None
            try:
                masks = self._decode(features, prompts[first : first + at_once], prepared)
            except torch.cuda.OutOfMemoryError:
                if at_once == 1:
                    with enough_memory(self.name, image):
                        raise
            if masks is None:  # what the error held is free by now
                torch.cuda.empty_cache()
                at_once = at_once // 2
                continue
            yield from masks
            first += len(masks)

    def _scaled(self, boxes: NDArray[np.float32], shape: tuple[int, int]) -> torch.Tensor:
        """Boxes of an (H, W) image as boxes of the model's input: its longer side fills it."""
        longest = max(shape)
        height, width = (int(side * self._side / longest + 0.5) for side in shape)
        scale = np.array([width / shape[1], height / shape[0]] * 2)
        return torch.from_numpy((boxes.astype(np.float64) * scale).astype(np.float32))

    def _decode(self, features: Any, boxes: torch.Tensor, prepared: Any) -> NDArray[np.bool_]:
        with torch.inference_mode():
            output = self._model(
                image_embeddings=features,
                input_boxes=boxes[None].to(self._device),
                multimask_output=False,
            )
            masks = self._enlarged(output.pred_masks, prepared)
        decoded: NDArray[np.bool_] = masks[:, 0].cpu().numpy()
        return decoded

    def _enlarged(self, masks: torch.Tensor, prepared: Any) -> torch.Tensor:
        """Masks of an image's own size, bool (N, 1, H, W)."""
        (found,) = self._prepare.post_process_masks(
            masks, prepared["original_sizes"], prepared["reshaped_input_sizes"]
        )
        return found  # type: ignore[no-any-return]


class Sam2(Sam):
    """Segment Anything 2.1, from a folder that ``save_pretrained`` wrote."""

    name = "Segment Anything 2.1"

    @classmethod
    def from_folder(cls, folder: Path, device: str = "cpu", half: bool = False) -> Sam2:
        """The model that ``save_pretrained`` wrote; FoundationError when it cannot be read."""
        from transformers import Sam2Model

        with fits(folder, cls.name):
            model = Sam2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            return cls(model, processor_of(folder, "Sam2ImageProcessor"), device, half)

    def _scaled(self, boxes: NDArray[np.float32], shape: tuple[int, int]) -> torch.Tensor:
        """Boxes of an (H, W) image as boxes of the model's input, which it fills stretched."""
        scale = np.array([self._side / shape[1], self._side / shape[0]] * 2, dtype=np.float32)
        return torch.from_numpy(boxes * scale)

    def _enlarged(self, masks: torch.Tensor, prepared: Any) -> torch.Tensor:
        """Masks of an image's own size, bool (N, 1, H, W)."""
        (found,) = self._prepare.post_process_masks(masks, prepared["original_sizes"])
        return found  # type: ignore[no-any-return]


def boxes_at_once(shape: tuple[int, int], size: int, memory: int = MASK_MEMORY) -> int:
    """The number of boxes of an (H, W) image that can be decoded together in ``memory`` bytes.

    ``size`` is the side of the model's input in pixels.
    """
    floats = size * size + 2 * shape[0] * shape[1]
    return max(1, memory // (DECODER_BYTES + 4 * floats))


def _single(features: Any) -> Any:
    """Features, a tensor or a list of them, in single precision."""
    if isinstance(features, torch.Tensor):
        return features.float()
    return [part.float() for part in features]
