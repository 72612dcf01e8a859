"""Boxes by OWLv2, which is asked each prompt by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from alc_backend.foundation.checkpoints import fits, processor_of
from alc_backend.foundation.devices import enough_memory
from alc_backend.foundation.prompts import Prompt, check_lengths
from alc_backend.foundation.protocols import Detections


class Owlv2:
    """OWLv2, from a folder that ``save_pretrained`` wrote; FoundationError when it does not fit."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from transformers import AutoTokenizer, Owlv2ForObjectDetection

        with fits(folder, "OWLv2"):
            model = Owlv2ForObjectDetection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._prepare = processor_of(folder, "Owlv2ImageProcessor")
        self._model, self._device = model.to(device).eval(), device
        self._longest = int(model.config.text_config.max_position_embeddings)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise FoundationError for a prompt with too many tokens."""
        check_lengths(prompts, self._tokenizer, self._longest)

    def detect(
        self, image: NDArray[np.uint8], prompts: Sequence[Prompt], threshold: float
    ) -> Detections:
        """The boxes in an image, uint8 (H, W, 3), whose best prompt scores over ``threshold``.

        Of several prompts of equal score the first wins.
        """
        self.check(prompts)
        text = self._tokenizer(
            [prompt.text for prompt in prompts],
            padding="max_length",
            max_length=self._longest,
            return_tensors="pt",
        )
        with enough_memory("OWLv2", image), torch.inference_mode():
            pixels = self._prepare(
                images=image, return_tensors="pt", input_data_format="channels_last"
            )
            output = self._model(
                pixel_values=pixels["pixel_values"].to(self._device),
                input_ids=text["input_ids"].to(self._device),
                attention_mask=text["attention_mask"].to(self._device),
            )
        of_prompts = output.logits[0].float().sigmoid().cpu().numpy()
        best = of_prompts.argmax(axis=1)
        scores = of_prompts[np.arange(len(best)), best]
        kept = scores > threshold
        centre, size = np.split(output.pred_boxes[0].float().cpu().numpy()[kept], 2, axis=1)
        height, width = image.shape[:2]
        # the image stands at the top left of a square, which the boxes are parts of
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1) * max(height, width)
        inside = boxes.clip(0, np.array([width, height, width, height])).astype(np.float32)
        classes = np.array([prompt.class_id for prompt in prompts], dtype=np.int64)[best[kept]]
        # what lies wholly in the square's empty part is no object
        real = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
        return Detections(inside[real], scores[kept][real], classes[real])
