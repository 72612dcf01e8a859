"""Loading the models that ALC_DETECTOR and ALC_SEGMENTER choose, each from its own files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from alc_backend.errors import FoundationError
from alc_backend.foundation import original_grounding_dino, original_sam
from alc_backend.foundation.checkpoints import not_installed, original_in, read_tensors
from alc_backend.foundation.devices import device
from alc_backend.foundation.grounding_dino import GroundingDino
from alc_backend.foundation.kinds import BOTH_KINDS, kind_of
from alc_backend.foundation.owlv2 import Owlv2
from alc_backend.foundation.protocols import Both, Detector, DetectThenSegment, Segmenter
from alc_backend.foundation.sam import Sam, Sam2
from alc_backend.foundation.sam3 import Sam3

_GROUNDING_DINO = {
    "grounding-dino": "GroundingDinoForObjectDetection",
    "mm-grounding-dino": "MMGroundingDinoForObjectDetection",
}
_SAM2 = ("sam2", "sam2_video")


def finder(path: Path, tokenizer: Path, segmenter: Segmenter | None) -> Both:
    """The model at ``path`` that finds and segments: SAM 3, or a detector with ``segmenter``.

    ``tokenizer`` is the folder of the tokenizer for an original checkpoint that has none beside
    it. Raises FoundationError for a model that is no detector, or that cannot be read.
    """
    if kind_of(path) in BOTH_KINDS:
        return both(path)
    assert segmenter is not None
    return DetectThenSegment(detector(path, tokenizer), segmenter)


@lru_cache(maxsize=1)
def both(path: Path) -> Both:
    """SAM 3 from a folder of transformers; FoundationError when it cannot be read."""
    _require_transformers()
    where = device()
    return Sam3(path, where, half=where == "cuda")


@lru_cache(maxsize=1)
def detector(path: Path, tokenizer: Path) -> Detector:
    """The model at ``path`` that finds boxes: a folder of transformers, or an original checkpoint.

    Raises FoundationError for a model that is no detector, or that cannot be read.
    """
    _require_transformers()
    where = device()
    kind = kind_of(path)
    if kind in _GROUNDING_DINO:
        return GroundingDino.from_folder(path, _GROUNDING_DINO[kind], where)
    if kind == "owlv2":
        return Owlv2(path, where)
    if kind is None:
        checkpoint = original_in(path)
        tensors = read_tensors(checkpoint, "GroundingDINO", inside="model")
        beside = (checkpoint.parent / "tokenizer.json", checkpoint.parent / "vocab.txt")
        folder = checkpoint.parent if any(file.is_file() for file in beside) else tokenizer
        model = original_grounding_dino.model_of(tensors, checkpoint)
        return GroundingDino.from_original(model, folder, where)
    raise FoundationError(
        f"{path}: holds a model of the kind {kind!r}; ALC_DETECTOR takes Grounding DINO, "
        "MM-Grounding-DINO, OWLv2 and SAM 3"
    )


@lru_cache(maxsize=1)
def segmenter(path: Path) -> Segmenter:
    """The model at ``path`` that segments boxes: a folder of transformers, or a checkpoint.

    Raises FoundationError for a model that is no segmenter, or that cannot be read.
    """
    _require_transformers()
    where = device()
    kind = kind_of(path)
    if kind == "sam":
        return Sam.from_folder(path, where, half=where == "cuda")
    if kind in _SAM2:
        return Sam2.from_folder(path, where, half=where == "cuda")
    if kind is None:
        checkpoint = original_in(path)
        tensors = read_tensors(checkpoint, "Segment Anything")
        model = original_sam.model_of(tensors, checkpoint)
        return Sam.from_original(model, where, half=where == "cuda")
    raise FoundationError(
        f"{path}: holds a model of the kind {kind!r}; ALC_SEGMENTER takes Segment Anything and "
        "Segment Anything 2.1"
    )


def _require_transformers() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise not_installed("the model", error) from error
