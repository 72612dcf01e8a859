"""The real code paths of both models, on tiny checkpoints in the original file formats."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from alc_backend.errors import FoundationError
from alc_backend.foundation import grounding, sam
from alc_backend.foundation.grounded_sam import first_maps, segments_of_masks
from alc_backend.foundation.grounding import Detections, GroundingDino
from alc_backend.foundation.prompts import class_prompts
from alc_backend.foundation.sam import Sam
from tests.foundation.tiny import (
    save_grounding_dino,
    write_bert,
    write_grounding_dino,
    write_sam,
)

CLASSES = ["background", "sofa", "dog", "potted plant"]
PROMPTS = class_prompts(CLASSES, {"sofa": ["sofa", "couch"]})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    text = write_bert(folder / "bert-base-uncased")
    return {
        "text": text,
        "detector": write_grounding_dino(folder / "groundingdino.pth", text),
        "segmenter": write_sam(folder / "sam.pth"),
    }


@pytest.fixture(scope="module")
def detector(files):
    return GroundingDino(files["detector"], files["text"])


@pytest.fixture(scope="module")
def segmenter(files):
    return Sam(files["segmenter"])


@pytest.fixture(scope="module")
def picture():
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    image[10:40, 10:50], image[30:55, 40:70] = (200, 40, 40), (40, 200, 90)
    return image


@pytest.fixture(scope="module")
def wide():
    """An image that stays small: the detector enlarges it until its longer side is 1333."""
    image = np.zeros((24, 160, 3), dtype=np.uint8)
    image[4:16, 10:90], image[12:22, 80:140] = (200, 40, 40), (40, 200, 90)
    return image


def test_from_image_to_maps(detector, segmenter, wide):
    wanted = detector.captions(PROMPTS)
    maps = first_maps(wide, wanted, detector, segmenter, threshold=0.2, uncovered=0)
    assert maps.labels.shape == maps.superpixels.shape == (24, 160)
    assert len(maps.found) > 2
    assert set(np.unique(maps.superpixels)) - {0} == set(maps.found)
    for number, found in maps.found.items():
        here = maps.superpixels == number
        assert (maps.labels[here] == found.class_id).all()
        assert 0 < np.count_nonzero(here) <= found.area
        assert 0.2 < found.score <= 1
        left, top, right, bottom = found.box
        assert 0 <= left <= right <= 160
        assert 0 <= top <= bottom <= 24
    assert (maps.labels[maps.superpixels == 0] == 0).all()


def test_the_same_image_gives_the_same_maps(files, detector, segmenter, wide):
    wanted = detector.captions(PROMPTS)
    once = first_maps(wide, wanted, detector, segmenter, threshold=0.2, uncovered=0)
    again = first_maps(
        wide,
        wanted,
        GroundingDino(files["detector"], files["text"]),
        Sam(files["segmenter"]),
        threshold=0.2,
        uncovered=0,
    )
    assert np.array_equal(once.superpixels, again.superpixels)
    assert once.found == again.found


def test_a_higher_threshold_keeps_fewer_boxes(detector, wide):
    wanted = detector.captions(PROMPTS)
    counts = [len(detector.detect(wide, wanted, t).scores) for t in (0.0, 0.5, 0.99, 1.0)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]
    assert counts[3] == 0


def test_nothing_found_is_an_image_of_background(detector, segmenter, wide):
    wanted = detector.captions(PROMPTS)
    maps = first_maps(wide, wanted, detector, segmenter, threshold=1.0, uncovered=255)
    assert (maps.labels == 255).all()
    assert not maps.superpixels.any()
    assert maps.found == {}


def test_as_the_package_itself_does_it_on_a_swin_t(files, wide, tmp_path):
    """The architecture read from the file is that of the package's own configuration."""
    from groundingdino.config import GroundingDINO_SwinT_OGC as packaged
    from groundingdino.models import build_model
    from groundingdino.util.inference import predict
    from groundingdino.util.slconfig import SLConfig

    args = SLConfig.fromfile(packaged.__file__)
    args.text_encoder_type, args.device = str(files["text"]), "cpu"
    args.enc_layers = args.dec_layers = 1
    args.num_queries = 50
    args.use_checkpoint = args.use_transformer_ckpt = False
    torch.manual_seed(3)
    model = build_model(args).eval()
    torch.nn.init.normal_(model.feat_map.weight, std=0.1)
    path = save_grounding_dino(tmp_path / "groundingdino_swint.pth", model)

    ours = GroundingDino(path, files["text"])
    (caption,) = ours.captions(PROMPTS)
    boxes, scores, _ = predict(
        model, grounding._prepared(wide), caption.text, 0.0, 0.0, device="cpu"
    )
    with torch.inference_mode():
        tokens = model(grounding._prepared(wide)[None], captions=[caption.text])
    found = ours.detect(wide, [caption], 0.0)
    assert len(found.scores) == 50
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 / [160, 24]
    inside = ((boxes[:, :2] - boxes[:, 2:] / 2 >= 0) & (boxes[:, :2] + boxes[:, 2:] / 2 <= 1)).all(
        1
    )
    assert inside.any()
    assert np.allclose(centres[inside.numpy()], boxes[inside, :2], atol=1e-4)
    of_classes = tokens["pred_logits"][0].sigmoid()[:, : len(caption.classes)].numpy()
    of_classes[:, caption.classes < 0] = -1
    assert np.allclose(found.scores, of_classes.max(axis=1), atol=1e-5)
    assert (found.scores <= scores.numpy() + 1e-5).all()  # theirs may be a full stop's
    assert (found.classes == caption.classes[of_classes.argmax(axis=1)]).all()


def test_the_sizes_of_both_swins_are_read_from_their_tensors():
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import build_swin_transformer

    for name, size, expected in (
        ("swin_T_224_1k", 224, (96, [2, 2, 6, 2], [3, 6, 12, 24], 7)),
        ("swin_B_384_22k", 384, (128, [2, 2, 18, 2], [4, 8, 16, 32], 12)),
    ):
        swin = build_swin_transformer(name, size, out_indices=(1, 2, 3))
        tensors = {f"backbone.0.{key}": value for key, value in swin.state_dict().items()}
        rest = {
            "input_proj.3.0.weight": (256,),
            "transformer.level_embed": (4, 256),
            "transformer.encoder.layers.0.self_attn.attention_weights.weight": (128, 256),
            "transformer.encoder.layers.5.linear1.weight": (2048,),
            "transformer.encoder.layers.0.linear1.weight": (2048,),
            "transformer.decoder.layers.5.linear1.weight": (2048,),
            "transformer.tgt_embed.weight": (900, 256),
        }
        tensors |= {key: torch.empty(shape, device="meta") for key, shape in rest.items()}
        sizes = grounding.architecture(tensors)
        assert tuple(sizes.pop("swin").values()) == expected
        assert sizes == {
            "hidden_dim": 256,
            "num_feature_levels": 4,
            "nheads": 8,
            "dim_feedforward": 2048,
            "enc_layers": 6,
            "dec_layers": 6,
            "num_queries": 900,
        }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_b", (768, 12, 12, (2, 5, 8, 11))),
        ("vit_l", (1024, 24, 16, (5, 11, 17, 23))),
        ("vit_h", (1280, 32, 16, (7, 15, 23, 31))),
    ],
)
def test_the_sizes_of_all_three_vits_are_read_from_their_tensors(name, expected):
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        tensors = sam_model_registry[name]().state_dict()
        sizes = sam.architecture(tensors)
        assert set(sam._build(tensors).state_dict()) == set(tensors)
    assert sizes["image_size"] == 1024
    assert sizes["window_size"] == 14
    found = tuple(sizes[n] for n in ("embed_dim", "depth", "num_heads", "global_attn_indexes"))
    assert found == expected


def test_masks_are_those_of_the_package_itself(files, segmenter, picture):
    from segment_anything import SamPredictor

    model = sam._build(torch.load(files["segmenter"], weights_only=True))
    model.load_state_dict(torch.load(files["segmenter"], weights_only=True))
    predictor = SamPredictor(model.eval())
    predictor.set_image(picture)
    boxes = np.array([[10, 10, 50, 40], [40, 30, 70, 55], [0, 0, 80, 60]], dtype=np.float32)
    found = list(segmenter.segment(picture, boxes))
    assert len(found) == 3
    for box, mask in zip(boxes, found, strict=True):
        alone, _, _ = predictor.predict(box=box, multimask_output=False)
        assert np.mean(alone[0] != mask) < 0.001


def test_boxes_are_decoded_in_parts_that_fit_the_memory(segmenter, picture, monkeypatch):
    boxes = np.array([[k, k, k + 20, k + 15] for k in range(30)], dtype=np.float32)
    at_once = list(segmenter.segment(picture, boxes))
    parts = []
    decode = Sam._decode

    def counted(self, prompts):
        parts.append(len(prompts))
        return decode(self, prompts)

    monkeypatch.setattr(Sam, "_decode", counted)
    monkeypatch.setattr(sam, "MASK_MEMORY", 7 * sam.DECODER_BYTES + 10**6)
    in_parts = list(segmenter.segment(picture, boxes))
    assert sum(parts) == 30
    assert 1 < max(parts) < 8
    assert np.mean(np.array(at_once) != np.array(in_parts)) < 0.001


def test_when_the_gpu_is_full_fewer_boxes_are_decoded_at_once(segmenter, picture, monkeypatch):
    boxes = np.array([[k, k, k + 20, k + 15] for k in range(9)], dtype=np.float32)
    expected = list(segmenter.segment(picture, boxes))
    decode = Sam._decode

    def full_above_two(self, prompts):
        if len(prompts) > 2:
            raise torch.cuda.OutOfMemoryError("full")
        return decode(self, prompts)

    monkeypatch.setattr(Sam, "_decode", full_above_two)
    found = list(segmenter.segment(picture, boxes))
    assert len(found) == 9
    assert np.mean(np.array(found) != np.array(expected)) < 0.001

    def always_full(self, prompts):
        raise torch.cuda.OutOfMemoryError("full")

    monkeypatch.setattr(Sam, "_decode", always_full)
    with pytest.raises(FoundationError, match="80×60"):
        list(segmenter.segment(picture, boxes))


def test_captions_that_find_the_same_box_keep_the_better_one(detector):
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
    merged = grounding._merged([first, second])
    assert merged.classes.tolist() == [2, 3, 3]
    assert merged.scores.tolist() == pytest.approx([0.4, 0.7, 0.9])
    twice = Detections(first.boxes[[0, 0]], first.scores, first.classes)
    assert len(grounding._merged([twice]).scores) == 2  # one caption's own boxes all stay


def test_long_class_lists_are_asked_for_in_several_captions(files, wide):
    from alc_backend.foundation.prompts import captions

    detector = GroundingDino(files["detector"], files["text"])
    wanted = captions(PROMPTS, detector._model.tokenizer, 6)
    assert len(wanted) > 1
    found = detector.detect(wide, wanted, 0.0)
    assert set(found.classes.tolist()) == {1, 2, 3}


def test_half_precision_gives_nearly_the_same_masks(files, segmenter, picture):
    """On CUDA the image encoder computes in bfloat16; the same operations, here on the CPU."""
    half = Sam(files["segmenter"], half=True)
    boxes = np.array([[10, 10, 50, 40], [40, 30, 70, 55], [0, 0, 80, 60]], dtype=np.float32)
    full, less = (np.array(list(model.segment(picture, boxes))) for model in (segmenter, half))
    assert full.any()
    assert np.mean(full != less) < 0.01


def test_superpixels_from_the_boxes_around_masks(segmenter, picture):
    labels = np.zeros((60, 80), dtype=np.uint8)
    labels[10:40, 10:40], labels[45:55, 60:70], labels[0:5] = 1, 1, 255
    superpixels = segments_of_masks(picture, labels, segmenter, uncovered=0)
    assert superpixels.shape == labels.shape
    assert superpixels.max() <= 2  # two components of class 1, none of background or void


@pytest.mark.parametrize("which", ["detector", "segmenter"])
def test_a_file_that_is_no_checkpoint_is_named(files, which, tmp_path):
    broken = tmp_path / "weights.pth"

    def load():
        if which == "detector":
            return GroundingDino(broken, files["text"])
        return Sam(broken)

    for content in (b"", b"no checkpoint", files[which].read_bytes()[:2000]):
        broken.write_bytes(content)
        with pytest.raises(FoundationError, match=r"weights\.pth: is not a checkpoint"):
            load()
    torch.save({"model": {"a": torch.zeros(1)}}, broken)
    with pytest.raises(FoundationError, match=r"weights\.pth"):
        load()
    other = files["segmenter" if which == "detector" else "detector"]
    broken.write_bytes(other.read_bytes())
    with pytest.raises(FoundationError, match=r"weights\.pth"):
        load()


def test_a_checkpoint_runs_no_code(files, tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path.joinpath("harmed").touch, ())

    broken = tmp_path / "weights.pth"
    torch.save({"model": {"a": Harm()}}, broken)
    for load in (lambda: GroundingDino(broken, files["text"]), lambda: Sam(broken)):
        with pytest.raises(FoundationError, match="is not a checkpoint"):
            load()
    assert not (tmp_path / "harmed").exists()


def test_nothing_is_fetched(files):
    """Loading and asking, in a process that may not open a connection."""
    script = f"""
import socket
def refuse(*_, **__):
    raise AssertionError("a connection was opened")
socket.socket.connect = socket.getaddrinfo = refuse
from pathlib import Path
import numpy as np
from alc_backend.foundation.grounding import GroundingDino
from alc_backend.foundation.prompts import class_prompts
detector = GroundingDino(Path({str(files["detector"])!r}), Path({str(files["text"])!r}))
wanted = detector.captions(class_prompts(["sofa", "dog"]))
assert len(detector.detect(np.zeros((40, 40, 3), dtype=np.uint8), wanted, 0.0).scores) == 30
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS"))}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_package_that_is_missing_is_named(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "groundingdino.models.GroundingDINO", None)
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    for load in (
        lambda: GroundingDino(files["detector"], files["text"]),
        lambda: Sam(files["segmenter"]),
    ):
        with pytest.raises(FoundationError, match=r"alc-backend\[grounded-sam\]"):
            load()


def test_a_text_encoder_that_does_not_fit_is_named(files, tmp_path):
    with pytest.raises(FoundationError, match="bert-base-uncased"):
        GroundingDino(files["detector"], tmp_path / "nothing")
    from transformers import BertConfig, BertModel

    other = write_bert(tmp_path / "other")
    BertModel(
        BertConfig(vocab_size=77, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(other)
    with pytest.raises(FoundationError, match=r"groundingdino\.pth: does not fit"):
        GroundingDino(files["detector"], other)


def test_images_of_any_shape(detector, segmenter):
    wanted = detector.captions(PROMPTS)
    for shape in ((1, 1), (3, 300), (200, 2)):
        image = np.asarray(Image.new("RGB", shape[::-1], (90, 120, 30)))
        maps = first_maps(image, wanted, detector, segmenter, threshold=0.2, uncovered=0)
        assert maps.labels.shape == shape
