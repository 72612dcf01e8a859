"""Original checkpoints, read into transformers, answer as the original code does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from alc_backend.foundation import models, original_grounding_dino, original_sam
from alc_backend.foundation.prompts import class_prompts
from tests.foundation import tiny

PROMPTS = class_prompts(["background", "sofa", "dog", "potted plant"], {"sofa": ["sofa", "couch"]})
PICTURES = {"square": tiny.picture(), "wide": tiny.wide_picture()}


@pytest.mark.parametrize("name", PICTURES)
def test_boxes_and_scores_are_those_of_groundingdino_py(name, tmp_path):
    expected = np.load(tiny.ORIGINALS / "groundingdino.npz")
    image = PICTURES[name]
    folder = tiny.write_tokenizer(tmp_path / "text")
    detector = models.detector(tiny.write_grounding_dino(tmp_path / "own.pth"), folder)
    (caption,) = detector.captions(PROMPTS)
    assert caption.text == tiny.CAPTION
    found = detector.detect(image, PROMPTS, 0.0)
    tokens = np.where(caption.classes < 0, -1, expected[f"{name} tokens"])
    assert np.allclose(found.scores, tokens.max(axis=1), atol=1e-3)
    assert found.scores.std() > 0.01
    clear = np.sort(tokens, axis=1)[:, -1] - np.sort(tokens, axis=1)[:, -2] > 1e-3
    assert clear.sum() > 5
    assert (found.classes == caption.classes[tokens.argmax(axis=1)])[clear].all()
    boxes = expected[f"{name} boxes"]
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    size = np.array([image.shape[1], image.shape[0]] * 2)
    assert np.allclose(found.boxes, corners.clip(0, 1) * size, atol=0.01)


@pytest.mark.parametrize("name", PICTURES)
def test_masks_are_those_of_segment_anything(name, tmp_path):
    expected = np.load(tiny.ORIGINALS / "sam.npz")[name]
    segmenter = models.segmenter(tiny.write_sam(tmp_path / "sam.pth"))
    found = np.array(list(segmenter.segment(PICTURES[name], tiny.BOXES)))
    assert found.shape == expected.shape
    assert 0.05 < expected.mean() < 0.95
    assert np.mean(found != expected) < 0.001


@pytest.mark.parametrize(
    "name", ["grounding-dino-tiny", "grounding-dino-base", "sam-vit-b", "sam-vit-l", "sam-vit-h"]
)
def test_the_published_checkpoints_have_a_place_for_every_tensor(name):
    """By names and shapes alone: without the published weights."""
    from transformers import GroundingDinoForObjectDetection, SamModel

    with torch.device("meta"):
        tensors = {key: torch.empty(shape) for key, shape in tiny.shapes(name).items()}
        if name.startswith("sam"):
            model = SamModel(original_sam.configuration(tensors))
            renamed = original_sam.renamed(tensors)
        else:
            tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
            config = original_grounding_dino.configuration(tensors)
            model = GroundingDinoForObjectDetection(config)
            renamed = original_grounding_dino.renamed(tensors)
    expected = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in renamed.items()}.items() <= expected.items()
    tied = ("model.decoder.bbox_embed", "prompt_encoder.shared_embedding", ".swin.layernorm.")
    assert all(any(part in key for part in tied) for key in expected.keys() - renamed.keys())


def test_a_checkpoint_takes_the_tokenizer_beside_it(tmp_path):
    checkpoint = tiny.write_grounding_dino(tmp_path / "own.pth")
    tiny.write_tokenizer(tmp_path)
    detector = models.detector(checkpoint, Path("nowhere"))
    assert len(detector.detect(tiny.picture(), PROMPTS, 0.0).scores) == 30
