"""Boxes by Grounding DINO and MM-Grounding-DINO, which read all prompts as one caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alc_backend.errors import FoundationError
from alc_backend.foundation.checkpoints import fits, processor_of
from alc_backend.foundation.devices import enough_memory
from alc_backend.foundation.prompts import Caption, Prompt, best_classes, captions
from alc_backend.foundation.protocols import Detections

SAME_BOX = 0.8
"""Of boxes from different captions with a larger IoU only the one with the best score is kept."""

_SPECIAL = ("[CLS]", "[SEP]", ".", "?")
"""The tokens that separate prompts for the model."""


class GroundingDino:
    """Grounding DINO or MM-Grounding-DINO.

    ``model`` is the model in transformers, ``image_processor`` and ``tokenizer`` prepare its
    input. Computes in single precision, because half precision selects other proposals.
    """

    def __init__(
        self, model: Any, image_processor: Any, tokenizer: Any, device: str = "cpu"
    ) -> None:
        self._model = model.to(device).eval()
        self._prepare, self._tokenizer, self._device = image_processor, tokenizer, device
        ids = [tokenizer.convert_tokens_to_ids(token) for token in _SPECIAL]
        self._model.model.special_tokens = torch.tensor(ids, device=device)

    @classmethod
    def from_folder(cls, folder: Path, model_class: str, device: str = "cpu") -> GroundingDino:
        """The model that ``save_pretrained`` wrote; FoundationError when it cannot be read."""
        import transformers

        with fits(folder, "Grounding DINO"):
            model = getattr(transformers, model_class).from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
            prepare = processor_of(folder, "GroundingDinoImageProcessorPil")
            return cls(model, prepare, tokenizer_of(folder), device)

    @classmethod
    def from_original(
        cls, model: Any, tokenizer_folder: Path, device: str = "cpu"
    ) -> GroundingDino:
        """The model that was read from an original checkpoint, and its tokenizer's folder."""
        from transformers import GroundingDinoImageProcessorPil

        return cls(model, GroundingDinoImageProcessorPil(), tokenizer_of(tokenizer_folder), device)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise FoundationError for a prompt that is too long, or without a known word."""
        self.captions(prompts)

    def captions(self, prompts: Sequence[Prompt], limit: int | None = None) -> list[Caption]:
        """The prompts as captions of at most ``limit`` tokens, None for as many as it takes."""
        config = self._model.config
        most = min(config.max_text_len, config.text_config.max_position_embeddings)
        return captions(prompts, self._tokenizer, min(most, limit or most))

    def detect(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        threshold: float,
        limit: int | None = None,
    ) -> Detections:
        """The boxes in an image, uint8 (H, W, 3), whose best class scores over ``threshold``.

        Each caption, of at most ``limit`` tokens, is asked by itself; duplicates are left out.
        """
        height, width = image.shape[:2]
        scale = np.array([width, height, width, height], dtype=np.float32)
        found = []
        with enough_memory("Grounding DINO", image), torch.inference_mode():
            pixels = self._prepare(
                images=image, return_tensors="pt", input_data_format="channels_last"
            ).to(self._device)
            for caption in self.captions(prompts, limit):
                found.append(self._ask(pixels, caption, threshold, scale))
        return _merged(found)

    def _ask(
        self, pixels: Any, caption: Caption, threshold: float, scale: NDArray[np.float32]
    ) -> Detections:
        text = self._tokenizer(caption.text, return_tensors="pt").to(self._device)
        output = self._model(**pixels, **text)
        tokens = output.logits[0, :, : len(caption.classes)].float().sigmoid().cpu().numpy()
        scores, classes = best_classes(tokens, caption.classes)
        kept = scores > threshold
        centre, size = np.split(output.pred_boxes[0].float().cpu().numpy()[kept], 2, axis=1)
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, 1)
        return Detections(boxes * scale, scores[kept], classes[kept])


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer in a folder; FoundationError when there is none that can be used."""
    from transformers import BertTokenizerFast

    files = ("tokenizer.json", "vocab.txt")
    if not any((folder / name).is_file() for name in files):
        raise FoundationError(
            f"{folder}: has no tokenizer (tokenizer.json or vocab.txt of bert-base-uncased); fetch "
            "it with `alc weights download bert-base-uncased`"
        )
    with fits(folder, "a tokenizer like that of bert-base-uncased"):
        tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
        if any(tokenizer.convert_tokens_to_ids(t) == tokenizer.unk_token_id for t in _SPECIAL):
            raise ValueError(f"it does not know {', '.join(_SPECIAL)}")
        return tokenizer


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
