"""Masks of prompts by Segment Anything 3: one model, words in, masks out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alc_backend.foundation.checkpoints import fits, processor_of
from alc_backend.foundation.devices import enough_memory
from alc_backend.foundation.prompts import Prompt, check_lengths
from alc_backend.foundation.protocols import Detections

LONGEST = 32
"""The most tokens of a prompt."""


class Sam3:
    """Segment Anything 3, from a folder that ``save_pretrained`` wrote.

    With ``half`` the image encoder computes in bfloat16. Raises FoundationError for a folder that
    cannot be read.
    """

    def __init__(self, folder: Path, device: str = "cpu", half: bool = False) -> None:
        from transformers import AutoTokenizer, Sam3Model

        with fits(folder, "Segment Anything 3"):
            model = Sam3Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._prepare = processor_of(folder, "Sam3ImageProcessor")
        self._model, self._device, self._half = model.to(device).eval(), device, half
        self._longest = min(LONGEST, int(model.config.text_config.max_position_embeddings))
        self._words: dict[str, tuple[Any, torch.Tensor]] = {}

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise FoundationError for a prompt with too many tokens."""
        check_lengths(prompts, self._tokenizer, self._longest)

    def find(
        self, image: NDArray[np.uint8], prompts: Sequence[Prompt], threshold: float
    ) -> tuple[Detections, Iterator[NDArray[np.bool_]]]:
        """The detections of all prompts in an image, uint8 (H, W, 3), and their masks, (H, W).

        The image is encoded once, and each prompt asked by itself. A score is the probability of
        the object times that of the prompt's presence in the image.
        """
        self.check(prompts)
        half = torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._half)
        found, masks = [], []
        with enough_memory("Segment Anything 3", image), torch.inference_mode():
            prepared = self._prepare(
                images=image, return_tensors="pt", input_data_format="channels_last"
            )
            with half:
                pixels = prepared["pixel_values"].to(self._device)
                seen = _single(self._model.get_vision_features(pixels))
            for prompt in prompts:
                detections, kept = self._ask(seen, prompt, threshold, image.shape[:2])
                found.append(detections)
                masks.append(kept)
        detections = Detections(
            np.concatenate([part.boxes for part in found]),
            np.concatenate([part.scores for part in found]),
            np.concatenate([part.classes for part in found]),
        )
        return detections, (self._full(mask, image) for part in masks for mask in part)

    def _ask(
        self, seen: Any, prompt: Prompt, threshold: float, shape: tuple[int, ...]
    ) -> tuple[Detections, torch.Tensor]:
        """The detections of a prompt, and their masks' probabilities in the model's size."""
        words, mask = self._encoded(prompt.text)
        output = self._model(vision_embeds=seen, text_embeds=words, attention_mask=mask)
        presence = output.presence_logits[0].float().sigmoid()
        scores = output.pred_logits[0].float().sigmoid() * presence
        kept = scores > threshold
        scale = np.array([shape[1], shape[0]] * 2, dtype=np.float32)
        boxes = output.pred_boxes[0][kept].float().cpu().numpy().clip(0, 1) * scale
        of_prompt = np.full(len(boxes), prompt.class_id, dtype=np.int64)
        detections = Detections(boxes, scores[kept].cpu().numpy(), of_prompt)
        return detections, output.pred_masks[0][kept].float().sigmoid().cpu()

    def _encoded(self, text: str) -> tuple[Any, torch.Tensor]:
        """The features of a prompt and the mask of its tokens, computed once."""
        if text not in self._words:
            tokens = self._tokenizer(
                text, padding="max_length", max_length=self._longest, return_tensors="pt"
            ).to(self._device)
            mask = tokens["attention_mask"]
            features = self._model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=mask, return_dict=True
            )
            self._words[text] = features, mask
        return self._words[text]

    def _full(self, mask: torch.Tensor, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """A mask's probabilities, (h, w), as a mask of an image's size."""
        enlarged = torch.nn.functional.interpolate(
            mask[None, None], size=image.shape[:2], mode="bilinear", align_corners=False
        )
        inside: NDArray[np.bool_] = (enlarged[0, 0] > 0.5).numpy()
        return inside


def _single(seen: Any) -> Any:
    """The features of an image in single precision."""
    for name, value in seen.items():
        if isinstance(value, torch.Tensor):
            seen[name] = value.float()
        elif isinstance(value, (tuple, list)):
            seen[name] = tuple(part.float() for part in value)
    return seen
