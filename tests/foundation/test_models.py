"""The real code paths of every kind of model, on tiny random weights in the published formats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alc_backend.errors import FoundationError
from alc_backend.foundation import grounding_dino, models
from alc_backend.foundation.devices import enough_memory
from alc_backend.foundation.grounded_sam import first_maps, segments_of_masks
from alc_backend.foundation.prompts import Prompt, class_prompts
from alc_backend.foundation.protocols import Detections
from alc_backend.foundation.sam import DECODER_BYTES, Sam
from tests.foundation import tiny, tiny_hub

CLASSES = ["background", "sofa", "dog", "potted plant"]
PROMPTS = class_prompts(CLASSES, {"sofa": ["sofa", "couch"]})
NOWHERE = Path("no tokenizer")
DETECTORS = ("original", "grounding-dino", "mm-grounding-dino", "owlv2")
SEGMENTERS = ("original", "sam", "sam2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes the files of each kind of model when they are first asked for."""
    made = {}

    def path(kind, role="detector"):
        if (kind, role) not in made:
            new = tmp_path_factory.mktemp(f"{kind}-{role}")
            if kind != "original":
                made[kind, role] = tiny_hub.write(kind, new)
            elif role == "detector":
                tiny.write_tokenizer(new)
                made[kind, role] = tiny.write_grounding_dino(new / "groundingdino.pth")
            else:
                made[kind, role] = tiny.write_sam(new / "sam.pth")
        return made[kind, role]

    return path


@pytest.fixture(scope="module")
def finder(folder):
    def of(detector, segmenter="original"):
        made = None if detector == "sam3" else models.segmenter(folder(segmenter, "segmenter"))
        return models.finder(folder(detector), NOWHERE, made)

    return of


@pytest.fixture(scope="module")
def detector(folder):
    return models.detector(folder("original"), NOWHERE)


@pytest.fixture(scope="module")
def segmenter(folder):
    return models.segmenter(folder("original", "segmenter"))


@pytest.fixture(scope="module")
def picture():
    return tiny.picture()


@pytest.fixture(scope="module")
def wide():
    return tiny.wide_picture()


@pytest.mark.parametrize(
    ("detector", "segmenter"),
    [*((kind, "original") for kind in (*DETECTORS, "sam3")), ("original", "sam"),
     ("original", "sam2")],
)  # fmt: skip
def test_from_image_to_maps(finder, detector, segmenter, wide):
    model = finder(detector, segmenter)
    model.check(PROMPTS)
    maps = first_maps(wide, PROMPTS, model, threshold=0.0, uncovered=0)
    again = first_maps(wide, PROMPTS, model, threshold=0.0, uncovered=0)
    assert np.array_equal(maps.superpixels, again.superpixels)
    assert maps.found == again.found
    assert maps.labels.shape == maps.superpixels.shape == (24, 160)
    assert set(np.unique(maps.superpixels)) - {0} == set(maps.found)
    assert maps.found or maps.hidden + maps.empty
    for number, found in maps.found.items():
        here = maps.superpixels == number
        assert (maps.labels[here] == found.class_id).all()
        assert 0 < np.count_nonzero(here) <= found.area
        assert 0 < found.score <= 1
        left, top, right, bottom = found.box
        assert 0 <= left <= right <= 160
        assert 0 <= top <= bottom <= 24
    assert (maps.labels[maps.superpixels == 0] == 0).all()


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_higher_threshold_keeps_fewer_boxes(folder, kind, wide):
    detector = models.detector(folder(kind), NOWHERE)
    counts = [len(detector.detect(wide, PROMPTS, t).scores) for t in (0.0, 0.01, 0.5, 1.0)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[3] == 0


def test_nothing_found_is_an_image_of_background(finder, wide):
    for kind in ("original", "sam3"):
        maps = first_maps(wide, PROMPTS, finder(kind), threshold=1.0, uncovered=255)
        assert (maps.labels == 255).all()
        assert not maps.superpixels.any()
        assert maps.found == {}


def test_sam_3_scores_are_those_of_its_own_post_processing(folder, finder, picture):
    from transformers import AutoTokenizer, Sam3ImageProcessor, Sam3Model

    path = folder("sam3")
    model, prepare = (
        Sam3Model.from_pretrained(path).eval(),
        Sam3ImageProcessor.from_pretrained(path),
    )
    tokens = AutoTokenizer.from_pretrained(path)(
        "dog", padding="max_length", max_length=32, return_tensors="pt"
    )
    pixels = prepare(images=picture, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        output = model(pixel_values=pixels, input_ids=tokens["input_ids"],
                       attention_mask=tokens["attention_mask"])  # fmt: skip
    (expected,) = prepare.post_process_instance_segmentation(output, 0.0, 0.5, [(60, 80)])
    found, masks = finder("sam3").find(picture, [Prompt("dog", 2)], 0.0)
    assert np.allclose(found.scores, expected["scores"].numpy(), atol=1e-5)
    assert found.classes.tolist() == [2] * 10
    assert np.mean(np.array(list(masks)) != expected["masks"].numpy()) < 0.001


def test_owlv2_boxes_are_those_of_its_own_post_processing(folder, wide):
    from transformers import AutoTokenizer, Owlv2ForObjectDetection, Owlv2ImageProcessor

    path = folder("owlv2")
    model = Owlv2ForObjectDetection.from_pretrained(path).eval()
    prepare = Owlv2ImageProcessor.from_pretrained(path)
    tokens = AutoTokenizer.from_pretrained(path)(
        [prompt.text for prompt in PROMPTS], padding="max_length", max_length=16,
        return_tensors="pt",
    )  # fmt: skip
    pixels = prepare(images=wide, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        output = model(pixel_values=pixels, input_ids=tokens["input_ids"],
                       attention_mask=tokens["attention_mask"])  # fmt: skip
    sizes = torch.tensor([wide.shape[:2]])
    (expected,) = prepare.post_process_object_detection(output, 0.0, sizes)
    inside = expected["boxes"].numpy().clip(0, [160, 24, 160, 24])
    real = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    found = models.detector(path, NOWHERE).detect(wide, PROMPTS, 0.0)
    assert np.allclose(found.boxes, inside[real], atol=1e-3)
    assert np.allclose(found.scores, expected["scores"].numpy()[real], atol=1e-5)
    classes = np.array([prompt.class_id for prompt in PROMPTS])
    assert (found.classes == classes[expected["labels"].numpy()[real]]).all()


@pytest.mark.parametrize("kind", SEGMENTERS)
def test_boxes_are_decoded_in_parts_that_fit_the_memory(folder, kind, picture):
    segmenter = models.segmenter(folder(kind, "segmenter"))
    boxes = np.array([[k, k, k + 20, k + 15] for k in range(30)], dtype=np.float32)
    at_once = list(segmenter.segment(picture, boxes))
    before = segmenter.mask_memory
    segmenter.mask_memory = 7 * DECODER_BYTES + 10**6
    in_parts = list(segmenter.segment(picture, boxes))
    segmenter.mask_memory = before
    assert len(at_once) == len(in_parts) == 30
    assert np.mean(np.array(at_once) != np.array(in_parts)) < 0.001


class FullGpu(torch.nn.Module):
    """A model that has memory for ``most`` boxes at once."""

    def __init__(self, model, most):
        super().__init__()
        self.model, self.config, self.most = model, model.config, most
        self.get_image_embeddings = model.get_image_embeddings

    def forward(self, input_boxes, **others):
        if input_boxes.shape[1] > self.most:
            raise torch.cuda.OutOfMemoryError("full")
        return self.model(input_boxes=input_boxes, **others)


def test_when_the_gpu_is_full_fewer_boxes_are_decoded_at_once(folder, picture):
    from transformers import SamImageProcessorPil, SamModel

    path = folder("sam", "segmenter")
    model, prepare = SamModel.from_pretrained(path), SamImageProcessorPil.from_pretrained(path)
    boxes = np.array([[k, k, k + 20, k + 15] for k in range(9)], dtype=np.float32)
    expected = list(Sam(model, prepare).segment(picture, boxes))
    found = list(Sam(FullGpu(model, 2), prepare).segment(picture, boxes))
    assert len(found) == 9
    assert np.mean(np.array(found) != np.array(expected)) < 0.001
    with pytest.raises(FoundationError, match=r"for Segment Anything.*80×60"):
        list(Sam(FullGpu(model, 0), prepare).segment(picture, boxes))


def test_a_gpu_too_full_for_an_image_is_said(picture):
    with pytest.raises(FoundationError, match="80×60; free it"), enough_memory("OWLv2", picture):
        raise torch.cuda.OutOfMemoryError("full")


def test_captions_that_find_the_same_box_keep_the_better_one():
    first = Detections(
        np.array([[0, 0, 10, 10], [20, 20, 30, 30]], dtype=np.float32),
        np.array([0.5, 0.4], dtype=np.float32),
        np.array([1, 2]),
    )
    second = Detections(
        np.array([[0, 0, 10, 10.5], [20, 20, 25, 25]], dtype=np.float32),
        np.array([0.7, 0.9], dtype=np.float32),
        np.array([3, 3]),
    )
    merged = grounding_dino._merged([first, second])
    assert merged.classes.tolist() == [2, 3, 3]
    assert merged.scores.tolist() == pytest.approx([0.4, 0.7, 0.9])
    twice = Detections(first.boxes[[0, 0]], first.scores, first.classes)
    assert len(grounding_dino._merged([twice]).scores) == 2  # one caption's own boxes all stay


def test_long_class_lists_are_asked_for_in_several_captions(detector, wide):
    assert len(detector.captions(PROMPTS, 6)) > 1
    found = detector.detect(wide, PROMPTS, 0.0, limit=6)
    assert set(found.classes.tolist()) == {1, 2, 3}


@pytest.mark.parametrize("kind", ["owlv2", "sam3"])
def test_a_prompt_that_is_too_long_is_named(finder, kind):
    with pytest.raises(FoundationError, match="use fewer words"):
        finder(kind).check([Prompt("dog " * 40, 1)])


def test_half_precision_gives_nearly_the_same_masks(folder, picture):
    """On CUDA the image encoder computes in bfloat16; the same operations, here on the CPU."""
    full, half = (
        np.array(list(Sam.from_folder(folder("sam", "segmenter"), half=half).segment(
            picture, tiny.BOXES)))
        for half in (False, True)
    )  # fmt: skip
    assert full.any()
    assert np.mean(full != half) < 0.02


def test_superpixels_from_the_boxes_around_masks(segmenter, picture):
    labels = np.zeros((60, 80), dtype=np.uint8)
    labels[10:40, 10:40], labels[45:55, 60:70], labels[0:5] = 1, 1, 255
    superpixels = segments_of_masks(picture, labels, segmenter, uncovered=0)
    assert superpixels.shape == labels.shape
    assert superpixels.max() <= 2  # two components of class 1, none of background or void


@pytest.mark.parametrize("which", ["detector", "segmenter"])
def test_a_file_that_is_no_checkpoint_is_named(folder, which, tmp_path):
    load = {"detector": lambda path: models.detector(path, NOWHERE), "segmenter": models.segmenter}
    contents = [b"", b"no checkpoint", folder("original", which).read_bytes()[:2000]]
    for number, content in enumerate(contents):
        broken = tmp_path / f"weights{number}.pth"
        broken.write_bytes(content)
        with pytest.raises(FoundationError, match=r"weights\d\.pth: is not a checkpoint"):
            load[which](broken)
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(FoundationError, match=r"other\.pth"):
        load[which](tmp_path / "other.pth")
    other = folder("original", "segmenter" if which == "detector" else "detector")
    with pytest.raises(FoundationError, match=other.name):
        load[which](other)


def test_a_folder_that_holds_another_model_is_named(folder, tmp_path):
    with pytest.raises(FoundationError, match="ALC_DETECTOR takes"):
        models.detector(folder("sam", "segmenter"), NOWHERE)
    with pytest.raises(FoundationError, match="ALC_SEGMENTER takes"):
        models.segmenter(folder("owlv2"))
    with pytest.raises(FoundationError, match=r"exactly one \.pth file"):
        models.segmenter(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
    with pytest.raises(FoundationError, match="does not fit Segment Anything"):
        models.segmenter(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(FoundationError, match="names no kind of model"):
        models.segmenter(tmp_path)


def test_a_checkpoint_runs_no_code(tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path.joinpath("harmed").touch, ())

    broken = tmp_path / "weights.pth"
    torch.save({"model": {"a": Harm()}}, broken)
    for load in (lambda: models.detector(broken, NOWHERE), lambda: models.segmenter(broken)):
        with pytest.raises(FoundationError, match="is not a checkpoint"):
            load()
    assert not (tmp_path / "harmed").exists()


def test_nothing_is_fetched(folder):
    """Loading and asking, in a process that may not open a connection."""
    folders = [str(folder(kind)) for kind in ("original", "grounding-dino", "owlv2")]
    script = f"""
import socket
def refuse(*_, **__):
    raise AssertionError("a connection was opened")
socket.socket.connect = socket.getaddrinfo = refuse
from pathlib import Path
import numpy as np
from alc_backend.foundation import models
from alc_backend.foundation.prompts import class_prompts
image = np.zeros((40, 40, 3), dtype=np.uint8)
for folder in {folders!r}:
    detector = models.detector(Path(folder), Path("nowhere"))
    assert len(detector.detect(image, class_prompts(["sofa", "dog"]), 0.0).scores), folder
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS"))}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_package_that_is_missing_is_named(folder, monkeypatch):
    models.segmenter.cache_clear()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(FoundationError, match=r"alc-backend\[grounded-sam\]"):
        models.segmenter(folder("original", "segmenter"))


def test_a_tokenizer_that_is_missing_is_named(folder, tmp_path):
    alone = tmp_path / "alone.pth"
    alone.symlink_to(folder("original"))
    with pytest.raises(FoundationError, match="download bert-base-uncased"):
        models.detector(alone, tmp_path / "nothing")


def test_images_of_any_shape(finder):
    for kind in ("original", "owlv2", "sam3"):
        for shape in ((1, 1), (3, 300), (200, 2)):
            image = np.asarray(Image.new("RGB", shape[::-1], (90, 120, 30)))
            maps = first_maps(image, PROMPTS, finder(kind), threshold=0.2, uncovered=0)
            assert maps.labels.shape == shape
