"""Tiny checkpoints of the foundation models in their original formats, the same on every machine.

The names and shapes of their tensors are kept in ``originals/shapes.json.gz``; the numbers follow
from the names. ``originals/make.py`` made both that file and what the original code answers.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

ORIGINALS = Path(__file__).with_name("originals")

WORDS = (
    "sofa couch dog cat car cable bus cow bird boat bottle bicycle chair horse sheep train tv "
    "monitor person table potted plant motor ##bike polyp air ##plane aero dining ##table "
    "##monitor traffic light sign road wall fence pole sky rider truck sidewalk building "
    "vegetation terrain motorcycle ##cycle ellipse circle square triangle green red"
)

SPECIAL = {
    0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1010: ",", 1012: ".",
    1029: "?",
}  # fmt: skip
"""The ids that these tokens have in bert-base-uncased; Grounding DINO relies on them."""


def vocabulary() -> list[str]:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = dict.fromkeys([*"-'", *letters, *(f"##{letter}" for letter in letters), *WORDS.split()])
    free = [n for n in range(1, 1030) if n not in SPECIAL]
    found = {**SPECIAL, **dict(zip(free, words, strict=False))}
    return [found.get(n, f"[unused{n}]") for n in range(1030)]


def write_tokenizer(folder: Path) -> Path:
    """The files of a tokenizer like that of bert-base-uncased, with few words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    tokenizer = Tokenizer(
        models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 101), ("[SEP]", 102)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), "utf-8")
    settings = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


@lru_cache
def shapes(name: str) -> Mapping[str, Sequence[int]]:
    """The shapes of a checkpoint's tensors; ``name`` is a published model's, or a tiny one's."""
    with gzip.open(ORIGINALS / "shapes.json.gz", "rt") as file:
        return json.load(file)[name]


def weights(wanted: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Tensors of these shapes whose numbers follow from their names."""
    return {name: _tensor(name, tuple(shape)) for name, shape in wanted.items()}


def _tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name.endswith("position_index") or name.endswith("position_ids"):
        return torch.zeros(shape, dtype=torch.int64)
    # heads that stand under two names are one
    source = name.replace("transformer.decoder.bbox_embed", "bbox_embed")
    for part in ("module.", *(f"bbox_embed.{n}." for n in range(1, 6))):
        source = source.replace(part, "bbox_embed.0." if "bbox" in part else "")
    random = np.random.RandomState(zlib.crc32(source.encode()))
    values = random.standard_normal(shape)
    if len(shape) > 1:
        values *= 2 / np.sqrt(np.prod(shape[1:]))
    else:
        values = values * 0.2 + (name.endswith("weight") and "proj_weight" not in name)
    if "bbox_embed" in name and ".layers.2." in name:
        values *= 0.2  # boxes that move a little, as those of a trained model
    if "decoder.norm." in name:
        values *= 0.1  # scores that are neither 0 nor 1
    return torch.from_numpy(values.astype(np.float32))


def write_sam(path: Path) -> Path:
    """A Segment Anything model with two small blocks, as sam_vit_b_01ec64.pth is written."""
    torch.save(weights(shapes("tiny sam")), path)
    return path


def write_grounding_dino(path: Path) -> Path:
    """A GroundingDINO with a small Swin, as groundingdino_swint_ogc.pth is written."""
    torch.save({"model": weights(shapes("tiny groundingdino"))}, path)
    return path


def picture() -> np.ndarray:
    """An image, uint8 (60, 80, 3), of two rectangles over soft noise."""
    random = np.random.RandomState(5)
    image = random.randint(0, 60, (60, 80, 3)).astype(np.uint8)
    image[10:40, 10:50], image[30:55, 40:70] = (200, 40, 40), (40, 200, 90)
    return image


def wide_picture() -> np.ndarray:
    """An image, uint8 (24, 160, 3), so wide that GroundingDINO takes it at 1333 × 200 pixels."""
    random = np.random.RandomState(6)
    image = random.randint(0, 60, (24, 160, 3)).astype(np.uint8)
    image[4:16, 10:90], image[12:22, 80:140] = (200, 40, 40), (40, 200, 90)
    return image


BOXES = np.array([[10, 10, 50, 40], [40, 30, 70, 55], [0, 0, 80, 60]], dtype=np.float32)
CAPTION = "sofa. couch. dog. potted plant."
